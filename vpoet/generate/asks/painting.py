"""Painting within a video or image, where a mask is white, or around it."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from vpoet.arrays import Frames, Mask
from vpoet.data.painting import scaled, shown_codes
from vpoet.errors import PromptError
from vpoet.generate.asks.base import Ask, sources
from vpoet.generate.request import Request
from vpoet.media.video import Video, at_rate, first_frame
from vpoet.sequence.arrangements import Given, Sample

BLACK = 0
WHITE = 128
"""A mask's pixel of this brightness or more is painted anew."""


class Painting(Ask):
    takes = frozenset({"image", "video", "mask", "outpaint"})

    @staticmethod
    def claims(request: Request) -> str | None:
        asked = [name for name in ("mask", "outpaint") if getattr(request, name) is not None]
        if request.edit is not None:
            return None
        if asked and sources(request) not in (["image"], ["video"]):
            raise PromptError(
                f"{asked[0]} says what of a video or an image to paint: give one of them, and nothing else"
            )
        if len(asked) == 2:
            raise PromptError("mask and outpaint are given: paint within a picture, or around it")
        return {"mask": "inpainting", "outpaint": "outpainting"}[asked[0]] if asked else None

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        request, r = self.request, self.tokenizer.stride[0]
        if request.image is not None:
            if request.frames not in (None, 1):
                raise PromptError(f"frames = {request.frames}: an image is painted on as the one frame that it is")
            source, fps, most = iter([first_frame(request.image)]), 0, 1
        else:
            source, fps, most = self.video(), self.fps, request.frames or self.config.frames
        mask = None if request.mask is None else white(at_rate(request.mask, fps or 1, behind=BLACK), most)
        parts = self.bordered(source) if mask is None else self.masked(source, mask)
        frames, hidden = (np.concatenate(part) for part in zip(*islice(parts, most), strict=True))
        count = request.frames or self.tokenizer.frames(1 + (len(frames) - 1) // r)
        if count > len(frames):
            raise PromptError(f"frames = {count}, but the video has {len(frames)} frames at {fps} fps")
        if mask is not None and 1 < len(mask) < count:
            raise PromptError(
                f"the mask has {len(mask)} frames, and the clip {count}: give one for each, or a single one"
            )
        self.tokenizer.grid(count, self.height, self.width)
        if not hidden[:count].any():
            raise PromptError(
                "nothing of what the mask shows white is in the clip: what is given is scaled to cover "
                f"{self.height}x{self.width} pixels, and its centre is taken"
            )
        codes, unseen = shown_codes(frames[:count], hidden[:count], self.tokenizer)
        return Sample(self.text, codes, fps), task, Given(hidden=unseen)

    def bordered(self, source: Iterator[Frames]) -> Iterator[tuple[Frames, Mask]]:
        """Each frame within the empty border of the request, [1, height, width, 3], and its mask."""
        assert self.request.outpaint is not None
        for frame in source:
            inside = border(frame[None], self.request.outpaint, self.height, self.width)
            yield scaled(*inside, self.height, self.width)

    def masked(self, source: Iterator[Frames], mask: Mask) -> Iterator[tuple[Frames, Mask]]:
        """Each frame without what the mask [frames, H, W] hides, [1, height, width, 3], and the mask of the result."""
        for index, frame in enumerate(source):
            if mask.shape[1:] != frame.shape[:2]:
                sizes = ["x".join(map(str, size)) for size in (mask.shape[1:], frame.shape[:2])]
                raise PromptError(f"the mask has {sizes[0]} pixels, and what it is for {sizes[1]}: they must agree")
            hole = mask[min(index, len(mask) - 1)]
            yield scaled(frame[None], hole[None], self.height, self.width)


def white(mask: Iterator[Frames], most: int) -> Mask:
    """Where the first ``most`` frames of a mask are white, [frames, H, W]. PromptError: nowhere."""
    masked: Mask = np.stack([frame.mean(axis=-1) >= WHITE for frame in islice(mask, most)])
    if not masked.any():
        raise PromptError(
            "the mask is black everywhere (what is transparent in it counts as black): paint white what is to be made "
            "anew"
        )
    return masked


def border(frames: Frames, outpaint: tuple[int, int, int, int], height: int, width: int) -> tuple[Frames, Mask]:
    """Frames of ``height x width`` pixels whose border (left, top, right, bottom) is empty, and its mask.

    Within lie the frames [T, H, W, 3], scaled to cover what the border leaves, and cut to it.
    """
    left, top, right, bottom = outpaint
    inside = height - top - bottom, width - left - right
    if min(outpaint) < 0 or not any(outpaint) or min(inside) < 1:
        given = ",".join(map(str, outpaint))
        raise PromptError(
            f"outpaint = {given}: left, top, right and bottom are pixels of the result, which has {height}x{width}; "
            "each is 0 or more, one is more, and something is left between them"
        )
    around = (0, 0), (top, bottom), (left, right)
    inner = Video(frames, 0).resize(*inside).frames
    mask = np.pad(np.zeros(inner.shape[:3], dtype=np.bool_), around, constant_values=True)
    return np.pad(inner, (*around, (0, 0))), mask
