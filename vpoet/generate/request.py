"""What to sample: a request, and what it comes to as a task, a sample with blank cells, and what of it is given."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vpoet.arrays import Frames, Ints, Mask
from vpoet.bundle import Bundle
from vpoet.data.painting import scaled, shown_codes
from vpoet.errors import PromptError, ShapeError
from vpoet.generate import holes
from vpoet.media.video import Video, at_rate, first_frame, frame_rate, resize_frame
from vpoet.sequence.arrangements import Given, Sample

Clip = Video | str | Path
"""A video or image, or the file that holds it."""

BLACK = 0

VIDEO_TASKS = ("continuation", "backward", "interpolation")
"""What can become of a request's video, without a mask."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What to sample. None: as the training data were."""

    prompt: str = ""
    image: Clip | None = None
    """The first frame; with ``mask`` or ``outpaint``, the picture to paint on."""
    last: Clip | None = None
    """The last frame: the clip leads to it, from ``image`` where there is one."""
    video: Clip | None = None
    """What ``task``, ``mask`` or ``outpaint`` is about."""
    task: str | None = None
    """What becomes of ``video``. continuation: its last frames open the clip; the default. backward: the clip leads to
    its first frames, and it follows. interpolation: the clip shows its frames, and more between them."""
    mask: Clip | None = None
    """White where ``video`` or ``image`` is painted anew, of the same size; one frame holds for all. Transparent counts
    as black."""
    outpaint: tuple[int, int, int, int] | None = None
    """Pixels of the result, left, top, right and bottom, that are painted on around ``video`` or ``image``."""
    given_frames: int | None = None
    """How many frames of the video a continuation or backward extension is given, 1 + a multiple of the tokenizer's
    time stride; None: all, but at most half of the clip."""
    via_image: bool = False
    """Make an image of the prompt first, then a video that starts from it."""
    story: Items[tuple[int, str]] = ()
    """(frame, prompt), ascending: another prompt holds from this frame on, or from the first frame of its cell."""
    frames: int | None = None
    """Frames of the clip, with those that are given; 1 makes an image. What is painted on, or interpolated, is as long
    as it is, and at most as the training data were."""
    window: int | None = None
    """Frames that are made at once; a longer clip is made in windows, each of which continues the one before."""
    overlap: int | None = None
    """Frames that a window has in common with what was made before it, 1 + a multiple of the tokenizer's time stride;
    None: about half. It has more where a whole window would go beyond a change of prompt, or the end."""
    height: int | None = None
    """Pixels; what is given is scaled to cover the size, and its centre is taken."""
    width: int | None = None
    fps: int | None = None
    """Frames per second."""
    seed: int = 0


def kind(request: Request) -> str:
    """The task that a request asks for; for text to video, image, or nothing at all, ``t2v``. PromptError: it says
    different things at once."""
    visual = [name for name in ("image", "last", "video") if getattr(request, name) is not None]
    painting = [name for name in ("mask", "outpaint") if getattr(request, name) is not None]
    if painting and visual not in (["image"], ["video"]):
        raise PromptError(
            f"{painting[0]} says what of a video or an image to paint: give one of them, and nothing else"
        )
    if len(painting) == 2:
        raise PromptError("mask and outpaint are given: paint within a picture, or around it")
    if request.task is not None and (painting or "video" not in visual):
        raise PromptError("task says what becomes of a video without a mask, and no such video is given")
    if request.task is not None and request.task not in VIDEO_TASKS:
        raise PromptError(f"task = {request.task!r}: of a video there can be its {', '.join(VIDEO_TASKS)}")
    if visual in (["image", "video"], ["last", "video"], ["image", "last", "video"]):
        raise PromptError("an image and a video are given: a clip can open or end with one of them only")
    found = {"mask": "inpainting", "outpaint": "outpainting"}.get(painting[0]) if painting else request.task
    by_default = {(): "t2v", ("image",): "i2v", ("last",): "backward", ("image", "last"): "interpolation"}
    found = found or by_default.get(tuple(visual), "continuation")
    if request.given_frames is not None and not (found in ("continuation", "backward") and "video" in visual):
        raise PromptError("given_frames says how much of a video to continue or lead to, and no such video is given")
    return found


def arrange(request: Request, bundle: Bundle) -> tuple[Sample, str, Given]:
    """The request's text and clip (what is given, and blank cells), its task, and how much of the clip is given."""
    task = kind(request)
    if request.seed < 0:
        raise PromptError(f"seed = {request.seed}: a seed is 0 or more")
    arranged = _Arranged(request, bundle)
    if task in ("inpainting", "outpainting"):
        return arranged.painting(task)
    if task == "interpolation" and request.video is not None:
        return arranged.slow_video()
    if task == "interpolation":
        return arranged.between()
    if task == "backward":
        return arranged.backward()
    return arranged.forward(task)


def frame_size(request: Request, bundle: Bundle) -> tuple[int, int]:
    """Height and width of the clip, in pixels; ShapeError if one frame of it is longer than the model can serve, said
    before anything of that size is made."""
    config, (_, s, _) = bundle.config, bundle.video.stride
    height = config.height if request.height is None else request.height
    width = config.width if request.width is None else request.width
    if min(height, width) > 0 and (height // s) * (width // s) > config.length:
        raise ShapeError(
            f"a frame of {height}x{width} is {height // s}x{width // s} cells, and this model was trained on at most "
            f"{config.length} tokens: ask for a smaller size"
        )
    return height, width


class _Arranged:
    """A request with what the bundle says where it says nothing."""

    def __init__(self, request: Request, bundle: Bundle) -> None:
        config = bundle.config
        self.request, self.config, self.tokenizer = request, config, bundle.video
        self.height, self.width = frame_size(request, bundle)
        self.fps = config.fps if request.fps is None else request.fps
        if self.fps < 1:
            raise PromptError(f"fps = {self.fps}: a video has at least 1 frame per second")
        self.text = np.array(bundle.text.encode(request.prompt), np.int32)

    def forward(self, task: str) -> tuple[Sample, str, Given]:
        """From nothing, an image, or the end of a video on."""
        request = self.request
        codes = self.blank(self.frames())
        if request.image is not None or request.video is not None:
            self.some_left(codes)
            if request.image is not None:
                opening = self.sized([first_frame(request.image)])
            else:
                opening = self.end_of_video(len(codes))
            before = self.tokenizer.encode(opening)
            codes[: len(before)] = before
            return Sample(self.text, codes, self.fps), task, Given(len(before))
        task = "t2i" if len(codes) == 1 else task
        if not len(self.text) and "unconditional" in self.config.tasks:
            task = "unconditional"
        return Sample(self.text, codes, 0 if len(codes) == 1 else self.fps), task, Given()

    def backward(self) -> tuple[Sample, str, Given]:
        """Up to an image, or to the first frames of a video."""
        codes = self.blank(self.frames())
        self.some_left(codes)
        if self.request.last is not None:
            shown = self.sized([first_frame(self.request.last)])
        else:
            start = self.sized(islice(self.video(), self.tokenizer.frames(len(codes) - 1)))
            shown = start[: self.given_frames(len(start), len(codes)) : self.tokenizer.stride[0]]
        keyframes = np.zeros_like(codes)
        keyframes[-len(shown) :] = self.pictures(shown)
        return Sample(self.text, codes, self.fps, keyframes), "backward", Given(len(shown))

    def between(self) -> tuple[Sample, str, Given]:
        """From one image to another."""
        assert self.request.image is not None
        assert self.request.last is not None
        codes = self.blank(self.frames())
        self.some_left(codes)
        ends = self.sized([first_frame(clip) for clip in (self.request.image, self.request.last)])
        return self.interpolation(codes, ends, len(codes) - 1)

    def slow_video(self) -> tuple[Sample, str, Given]:
        """A video's frames, with ``gap`` cells from one to the next: the fewest with which none is shown twice."""
        assert self.request.video is not None
        own, r = frame_rate(self.request.video), self.tokenizer.stride[0]
        gap = math.ceil(self.fps / (r * own) - 1e-6) if own else 1
        frames, step = self.request.frames, r * gap
        pairs = max(1, (self.config.frames - 1) // step) if frames is None else -(-(frames - 1) // step)
        shown = self.sized(islice(self.video(self.fps / step), 1 + max(1, pairs)))
        if len(shown) < 2:
            raise PromptError(f"the video has one frame in {step} at {self.fps} fps: there is nothing between")
        most = 1 + step * (len(shown) - 1)
        frames = most if frames is None else frames
        if not 1 < frames <= most or (frames - 1) % step:
            there = f", and at most {most}" if frames > most else ""
            raise PromptError(
                f"frames = {frames}: the video gives one frame in {step} at {self.fps} fps, so it is 1 + a multiple of "
                f"{step}{there}"
            )
        codes = self.blank(frames)
        return self.interpolation(codes, shown[: 1 + (len(codes) - 1) // gap], gap)

    def interpolation(self, codes: Ints, shown: Frames, gap: int) -> tuple[Sample, str, Given]:
        times = tuple(range(0, len(codes), gap))
        keyframes = np.zeros_like(codes)
        keyframes[list(times)] = self.pictures(shown)
        codes[0] = keyframes[0]
        return Sample(self.text, codes, self.fps, keyframes), "interpolation", Given(times=times)

    def painting(self, task: str) -> tuple[Sample, str, Given]:
        """Within a video or image where a mask is white, or around it."""
        request, r = self.request, self.tokenizer.stride[0]
        if request.image is not None:
            if request.frames not in (None, 1):
                raise PromptError(f"frames = {request.frames}: an image is painted on as the one frame that it is")
            source, fps, most = iter([first_frame(request.image)]), 0, 1
        else:
            source, fps, most = self.video(), self.fps, request.frames or self.config.frames
        white = None
        if request.mask is not None:
            white = holes.white(at_rate(request.mask, fps or 1, behind=BLACK), most)
        parts = self.bordered(source) if white is None else self.masked(source, white)
        frames, mask = (np.concatenate(part) for part in zip(*islice(parts, most), strict=True))
        count = request.frames or self.tokenizer.frames(1 + (len(frames) - 1) // r)
        if count > len(frames):
            raise PromptError(f"frames = {count}, but the video has {len(frames)} frames at {fps} fps")
        if white is not None and 1 < len(white) < count:
            raise PromptError(
                f"the mask has {len(white)} frames, and the clip {count}: give one for each, or a single one"
            )
        self.tokenizer.grid(count, self.height, self.width)
        if not mask[:count].any():
            raise PromptError(
                "nothing of what the mask shows white is in the clip: what is given is scaled to cover "
                f"{self.height}x{self.width} pixels, and its centre is taken"
            )
        codes, hidden = shown_codes(frames[:count], mask[:count], self.tokenizer)
        return Sample(self.text, codes, fps), task, Given(hidden=hidden)

    def bordered(self, source: Iterator[Frames]) -> Iterator[tuple[Frames, Mask]]:
        """Each frame within the empty border of the request, [1, height, width, 3], and its mask."""
        assert self.request.outpaint is not None
        for frame in source:
            inside = holes.border(frame[None], self.request.outpaint, self.height, self.width)
            yield scaled(*inside, self.height, self.width)

    def masked(self, source: Iterator[Frames], white: Mask) -> Iterator[tuple[Frames, Mask]]:
        """Each frame without what the mask [frames, H, W] hides, [1, height, width, 3], and the mask of the result."""
        for index, frame in enumerate(source):
            if white.shape[1:] != frame.shape[:2]:
                sizes = ["x".join(map(str, size)) for size in (white.shape[1:], frame.shape[:2])]
                raise PromptError(f"the mask has {sizes[0]} pixels, and what it is for {sizes[1]}: they must agree")
            hole = white[min(index, len(white) - 1)]
            yield scaled(frame[None], hole[None], self.height, self.width)

    def frames(self) -> int:
        return self.config.frames if self.request.frames is None else self.request.frames

    def blank(self, frames: int) -> Ints:
        return np.zeros(self.tokenizer.grid(frames, self.height, self.width), np.int32)

    def some_left(self, codes: Ints) -> None:
        if len(codes) < 2:
            raise PromptError(f"{self.frames()} frames are all given: ask for {self.tokenizer.frames(2)} or more")

    def sized(self, frames: Iterable[Frames]) -> Frames:
        """Frames [n, height, width, 3]; those at full size are let go one by one."""
        return np.stack([resize_frame(frame, self.height, self.width) for frame in frames])

    def pictures(self, frames: Frames) -> Ints:
        """Each frame [n, height, width, 3] as an image of its own: codes [n, h, w]."""
        return self.tokenizer.encode_batch(frames[:, None])[:, 0]

    def video(self, fps: float | None = None) -> Iterator[Frames]:
        """The request's video at a rate, by default that of the clip."""
        assert self.request.video is not None
        return at_rate(self.request.video, fps or self.fps)

    def end_of_video(self, cells: int) -> Frames:
        """The last frames of the request's video, as many as a clip of so many cells is given."""
        count, last = 0, deque[Frames](maxlen=self.tokenizer.frames(cells - 1))
        for frame in self.video():
            last.append(resize_frame(frame, self.height, self.width))
            count += 1
        given = self.given_frames(count, cells)
        return np.stack(last)[-given:]

    def given_frames(self, there: int, cells: int) -> int:
        """How many of the frames that a video has a clip of so many cells is given."""
        tokenizer, given = self.tokenizer, self.request.given_frames
        stride = tokenizer.stride[0]
        if given is None:
            given = tokenizer.frames(min(1 + (there - 1) // stride, max(1, cells // 2)))
        most = tokenizer.frames(cells - 1)
        if not 1 <= given <= most or (given - 1) % stride:
            choices = ", ".join(str(n) for n in range(1, most + 1, stride))
            raise PromptError(f"given_frames = {given}: for a clip of {tokenizer.frames(cells)} frames it is {choices}")
        if given > there:
            raise PromptError(f"given_frames = {given}, but the video has {there} frames at {self.fps} fps")
        return given


def joined(request: Request, bundle: Bundle, made: Video) -> Video:
    """The clip that was made for a request, with the video behind it to which it leads, if it does: they share a frame.
    The video's frames are its own, not the tokenizer's."""
    if kind(request) != "backward" or request.video is None:
        return made
    arranged = _Arranged(request, bundle)
    return Video(np.concatenate([made.frames[:-1], arranged.sized(arranged.video())]), made.fps)
