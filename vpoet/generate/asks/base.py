"""What all families of requests share: the request, the bundle it is for, and the frames that are given."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.bundle import Bundle
from vpoet.errors import PromptError, ShapeError
from vpoet.generate.request import Request
from vpoet.media.video import at_rate, resize_frame
from vpoet.sequence.arrangements import Given, Sample

SOURCES = ("image", "last", "video")
"""The fields of a request that give something to see."""
ROLLING = ("story", "via_image", "window", "overlap")
"""The fields that make several documents of a request (`vpoet.generate.rollout`)."""


def sources(request: Request) -> list[str]:
    """Which of `SOURCES` a request gives."""
    return [name for name in SOURCES if getattr(request, name) is not None]


def unknown_words(prompt: str, bundle: Bundle) -> list[str]:
    """The words of a prompt that no caption had in training, where the bundle knows."""
    known = bundle.config.words
    return [word for word in re.findall(r"\w+", prompt.lower()) if word not in known] if known else []


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


class Ask(ABC):
    """A request with what the bundle says where it says nothing; a subclass is a family of requests."""

    takes: ClassVar[frozenset[str]]
    """The fields that the family reads, of those that not all do."""
    video_task: ClassVar[str | None] = None
    """What ``task`` says of a video that is the family's."""

    def __init__(self, request: Request, bundle: Bundle) -> None:
        config = bundle.config
        self.request, self.bundle, self.config, self.tokenizer = request, bundle, config, bundle.video
        self.height, self.width = frame_size(request, bundle)
        self.fps = config.fps if request.fps is None else request.fps
        self.text = np.array(bundle.text.encode(request.prompt), np.int32)

    @staticmethod
    @abstractmethod
    def claims(request: Request) -> str | None:
        """The task of a request of this family, and None for others. PromptError: it is of this family, and says
        different things at once."""

    @abstractmethod
    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        """The request's text and clip (what is given, and blank cells), its task, and how much of the clip is given."""

    def joined(self, made: Frames) -> Iterator[Frames]:
        """The frames that were made, uint8 [T, H, W, 3], and those that belong to the clip though they were not made.

        They come in pieces, each read when its turn comes, so that a long video is not held. The errors are those of
        `at_rate`.
        """
        yield made

    def whole(self, cells: int) -> tuple[str, Given]:
        """The task that makes a clip of so many cells of which nothing is given: a video, an image (t2i), or, without a
        prompt, whatever there is (unconditional)."""
        if not len(self.text) and "unconditional" in self.config.tasks:
            return "unconditional", Given()
        return "t2i" if cells == 1 else "t2v", Given()

    def frames(self) -> int:
        return self.config.frames if self.request.frames is None else self.request.frames

    def blank(self, frames: int) -> Ints:
        return np.zeros(self.tokenizer.grid(frames, self.height, self.width), np.int32)

    def blank_clip(self) -> Ints:
        """A whole clip's blank cells [t, h, w], of which the first or last will be given. PromptError: none is left."""
        codes = self.blank(self.frames())
        if len(codes) < 2:
            raise PromptError(f"{self.frames()} frames are all given: ask for {self.tokenizer.frames(2)} or more")
        return codes

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
