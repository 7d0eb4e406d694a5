"""What to sample: a request, and what it comes to as a task, a sample with blank cells, and what of it is given."""

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.bundle import Bundle
from vpoet.errors import PromptError
from vpoet.generate import holes
from vpoet.media.video import Video
from vpoet.sequence.tasks import Given, Sample

Clip = Video | str | Path
"""A video or image, or the file that holds it."""

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
    """White where ``video`` or ``image`` is painted anew, of the same size; one frame holds for all."""
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


class _Arranged:
    """A request with what the bundle says where it says nothing."""

    def __init__(self, request: Request, bundle: Bundle) -> None:
        config = bundle.config
        self.request, self.config, self.tokenizer = request, config, bundle.video
        self.height = config.height if request.height is None else request.height
        self.width = config.width if request.width is None else request.width
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
                opening = _open(request.image).frames[:1]
            else:
                frames = self.video()
                opening = frames[-self.given_frames(frames, len(codes)) :]
            before = self.tokenizer.encode(self.sized(opening))
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
            shown = _open(self.request.last).frames[:1]
        else:
            frames = self.video()
            shown = frames[: self.given_frames(frames, len(codes)) : self.tokenizer.stride[0]]
        keyframes = np.zeros_like(codes)
        keyframes[-len(shown) :] = self.pictures(shown)
        return Sample(self.text, codes, self.fps, keyframes), "backward", Given(len(shown))

    def between(self) -> tuple[Sample, str, Given]:
        """From one image to another."""
        assert self.request.image is not None
        assert self.request.last is not None
        codes = self.blank(self.frames())
        self.some_left(codes)
        ends = [self.sized(_open(clip).frames[:1]) for clip in (self.request.image, self.request.last)]
        return self.interpolation(codes, np.concatenate(ends), len(codes) - 1)

    def slow_video(self) -> tuple[Sample, str, Given]:
        """A video's frames, with ``gap`` cells from one to the next: the fewest with which none is shown twice."""
        assert self.request.video is not None
        video, r = _open(self.request.video), self.tokenizer.stride[0]
        gap = math.ceil(self.fps / (r * video.fps) - 1e-6) if video.fps else 1
        shown = self.video(self.fps / (r * gap))
        most = 1 + r * gap * (len(shown) - 1)
        if len(shown) < 2:
            raise PromptError(f"the video has one frame in {r * gap} at {self.fps} fps: there is nothing between")
        frames = self.request.frames
        if frames is None:
            pairs = min(len(shown) - 1, (self.config.frames - 1) // (r * gap))
            frames = 1 + r * gap * max(1, pairs)
        if not 1 < frames <= most or (frames - 1) % (r * gap):
            raise PromptError(
                f"frames = {frames}: the video gives one frame in {r * gap} at {self.fps} fps, so it is 1 + a multiple "
                f"of {r * gap}, and at most {most}"
            )
        codes = self.blank(frames)
        return self.interpolation(codes, self.sized(shown[: 1 + (len(codes) - 1) // gap]), gap)

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
            source, fps, count = _open(request.image).frames[:1], 0, 1
        else:
            source, fps = self.video(), self.fps
            whole = self.tokenizer.frames(1 + (min(len(source), self.config.frames) - 1) // r)
            count = request.frames or whole
            if count > len(source):
                raise PromptError(f"frames = {count}, but the video has {len(source)} frames at {fps} fps")
        self.tokenizer.grid(count, self.height, self.width)
        if request.outpaint is not None:
            frames, mask = holes.border(source[:count], request.outpaint, self.height, self.width)
        else:
            assert request.mask is not None
            opened = _open(request.mask)
            mask = holes.white(opened.resample(fps) if opened.fps and fps else opened, count)
            frames = source[:count]
            if mask.shape != frames.shape[:3]:
                sizes = ["x".join(map(str, size)) for size in (mask.shape[1:], frames.shape[1:3])]
                raise PromptError(f"the mask has {sizes[0]} pixels, and what it is for {sizes[1]}: they must agree")
        frames, mask = holes.scaled(frames, mask, self.height, self.width)
        hidden = holes.touched(mask, self.tokenizer.stride)
        codes = np.where(hidden, np.int32(0), self.tokenizer.encode(frames))
        return Sample(self.text, codes, fps), task, Given(hidden=hidden)

    def frames(self) -> int:
        return self.config.frames if self.request.frames is None else self.request.frames

    def blank(self, frames: int) -> Ints:
        return np.zeros(self.tokenizer.grid(frames, self.height, self.width), np.int32)

    def some_left(self, codes: Ints) -> None:
        if len(codes) < 2:
            raise PromptError(f"{self.frames()} frames are all given: ask for {self.tokenizer.frames(2)} or more")

    def sized(self, frames: Frames) -> Frames:
        return Video(frames, 0).resize(self.height, self.width).frames

    def pictures(self, frames: Frames) -> Ints:
        """Each frame [n, H, W, 3] as an image of its own: codes [n, h, w]."""
        return self.tokenizer.encode_batch(self.sized(frames)[:, None])[:, 0]

    def video(self, fps: float | None = None) -> Frames:
        """The request's video at a rate, by default that of the clip."""
        assert self.request.video is not None
        video = _open(self.request.video)
        return (video.resample(fps or self.fps) if video.fps else video).frames

    def given_frames(self, frames: Frames, cells: int) -> int:
        """How many of a video's frames a clip of so many cells is given."""
        tokenizer, given = self.tokenizer, self.request.given_frames
        stride = tokenizer.stride[0]
        if given is None:
            given = tokenizer.frames(min(1 + (len(frames) - 1) // stride, max(1, cells // 2)))
        most = tokenizer.frames(cells - 1)
        if not 1 <= given <= most or (given - 1) % stride:
            choices = ", ".join(str(n) for n in range(1, most + 1, stride))
            raise PromptError(f"given_frames = {given}: for a clip of {tokenizer.frames(cells)} frames it is {choices}")
        if given > len(frames):
            raise PromptError(f"given_frames = {given}, but the video has {len(frames)} frames at {self.fps} fps")
        return given


def joined(request: Request, bundle: Bundle, made: Video) -> Video:
    """The clip that was made for a request, with the video behind it to which it leads, if it does: they share a frame.
    The video's frames are its own, not the tokenizer's."""
    if kind(request) != "backward" or request.video is None:
        return made
    arranged = _Arranged(request, bundle)
    return Video(np.concatenate([made.frames[:-1], arranged.sized(arranged.video())]), made.fps)


def _open(clip: Clip) -> Video:
    return clip if isinstance(clip, Video) else Video.read(clip)
