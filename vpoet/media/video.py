"""Videos in memory and on disk: ``uint8 [T, H, W, 3]`` RGB and a frame rate, whatever the file held.

Reading gives what a player shows: rotation and mirroring, non-square pixels, grey, 10-bit, HDR, alpha (laid over white)
and timestamps are applied, as `vpoet.media.container`, `images` and `colour` say. Frames always come out evenly spaced:
output frame k is the frame nearest in time to k/fps, so a variable rate becomes a constant one, a lower rate drops
frames, and a higher rate repeats them and drops none.
"""

import base64
import io
import math
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.files import write_atomic
from vpoet.media.comments import png_info
from vpoet.media.container import open_video, reason, thumbnails
from vpoet.media.fitted import Size
from vpoet.media.images import durations, image_frames, open_image, small_picture
from vpoet.media.mp4 import CRF, PRESET, encode_mp4

Source = str | Path | bytes
Frame = TypeVar("Frame")
"""A frame in whatever form."""

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv")
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"))

FASTEST = 1000
"""Frames per second that are read at the most: more would only repeat frames."""


@dataclass(frozen=True, eq=False)
class Video:
    """Evenly spaced frames. ``fps`` is in frames per second, and 0 for a lone image."""

    frames: Frames
    """``uint8 [T, H, W, 3]``, RGB, T >= 1."""
    fps: float

    def __post_init__(self) -> None:
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[3] != 3 or not self.frames.size:
            raise DataError(f"a video is uint8 [T, H, W, 3] with T >= 1, not {self.frames.dtype} {self.frames.shape}")
        if not (math.isfinite(self.fps) and self.fps >= 0):
            raise DataError(f"a frame rate is 0 (a lone image) or more, not {self.fps}")

    def __len__(self) -> int:
        return len(self.frames)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.frames, dtype=dtype, copy=copy)

    @property
    def height(self) -> int:
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        return int(self.frames.shape[2])

    @classmethod
    def read(
        cls,
        source: Source,
        *,
        fps: float | None = None,
        start: float = 0.0,
        max_frames: int | None = None,
        look: Callable[[Any], None] | None = None,
    ) -> "Video":
        """Read a video or image file, or its bytes, from ``start`` seconds on; ``fps`` None keeps the file's own rate.

        ``look`` is shown every frame of a video as it is decoded, an `av.VideoFrame` with its motion vectors.
        Raises DataError, naming the file, if it cannot be decoded or holds no frame there.
        """
        rate, numbered = stream_numbered(source, fps=fps, start=start, look=look)
        taken = [frame for _, frame in islice(numbered, max_frames or None)]
        if not taken:
            raise DataError(f"{_name(source)}: no frames{f' after {start} s' if start else ''}")
        return cls(np.stack(taken), rate)

    def write(self, path: str | Path, *, lossless: bool = False) -> None:
        """Write a file whose kind is its suffix: .mp4, .gif, .webp, or .png for a single frame."""
        path = Path(path)
        write_atomic(path, self.encode(path.suffix, lossless=lossless))

    def encode(
        self, suffix: str, *, lossless: bool = False, crf: int = CRF, preset: str = PRESET, comment: str = ""
    ) -> bytes:
        """The bytes of `write`. The same frames give the same bytes.

        An .mp4 is h264 4:2:0 (4:4:4 where a side is odd) at ``crf`` and x264's ``preset``; ``lossless`` stores RGB bit
        for bit, which few browsers play. A .webp can be lossless too; a .gif has 256 colours and time in steps of 10
        ms. ``comment`` is what an .mp4, .gif or .png says of itself (`vpoet.media.comments`).
        """
        if suffix == ".mp4":
            mp4 = io.BytesIO()
            encode_mp4(mp4, self.frames, self.fps, lossless=lossless, crf=crf, preset=preset, comment=comment)
            return mp4.getvalue()
        images = [Image.fromarray(frame) for frame in self.frames]
        buffer = io.BytesIO()
        duration = 1000 / self.fps if self.fps else 1000.0
        if suffix == ".png":
            if len(images) > 1:
                raise DataError(f"a .png holds one frame, this video has {len(images)}: write .mp4, .gif or .webp")
            images[0].save(buffer, "PNG", pnginfo=png_info(comment) if comment else None)
        elif suffix == ".webp":
            times = np.diff(np.rint(np.arange(len(images) + 1) * duration)).astype(int).tolist()
            images[0].save(
                buffer, "WEBP", save_all=True, append_images=images[1:], duration=times, loop=0, lossless=lossless
            )
        elif suffix == ".gif":
            # One palette for all frames, for a palette each flickers. Times are rounded so that errors cancel out.
            palette = Image.fromarray(self.frames[:: max(1, len(self) // 8)].reshape(-1, self.width, 3)).quantize(256)
            indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
            times = (np.diff(np.rint(np.arange(len(images) + 1) * duration / 10)) * 10).astype(int).tolist()
            told = {"comment": comment.encode()} if comment else {}
            indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=times, loop=0, **told)
        else:
            raise DataError(f"cannot write {suffix or 'a file without a suffix'}: use .mp4, .gif, .webp or .png")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        """The clip itself, for a notebook: an .mp4 or .png within the page, small frames enlarged by whole pixels."""
        width = self.width * max(1, round(256 / max(self.width, self.height)))
        look = f'width="{width}" style="image-rendering: pixelated"'
        kind, suffix = ("video/mp4", ".mp4") if self.fps else ("image/png", ".png")
        source = f"data:{kind};base64,{base64.b64encode(self.encode(suffix)).decode()}"
        if not self.fps:
            return f'<img src="{source}" {look}>'
        return f'<video src="{source}" {look} autoplay loop muted playsinline controls></video>'

    def resize(self, height: int, width: int) -> "Video":
        """Scale to cover ``height x width`` with the aspect kept, and cut the centre out."""
        return Video(np.stack([resize_frame(frame, height, width) for frame in self.frames]), self.fps)

    def resample(self, fps: float) -> "Video":
        """The same duration at another rate, by nearest frame."""
        if not self.fps:
            raise DataError("a lone image has no frame rate to resample from")
        return Video(np.stack(list(at_rate(self, fps))), fps)


def read_image(source: Source) -> Video:
    """The first frame of an image file, or of its bytes: upright by EXIF, over white where transparent, fps 0."""
    return Video(first_frame(source)[None], 0.0)


def first_frame(clip: "Video | Source") -> Frames:
    """``uint8 [H, W, 3]``; of a file no more is read. DataError: it cannot be decoded, or holds no frame."""
    frames: Iterator[Frames] = iter(clip.frames) if isinstance(clip, Video) else stream_frames(clip)[1]
    frame = next(frames, None)
    if frame is None:
        raise DataError(f"{'the clip' if isinstance(clip, Video) else _name(clip)}: no image in it")
    return frame


def resize_frame(frame: Frames, height: int, width: int) -> Frames:
    """Bicubic with antialiasing, ``uint8 [H, W, 3]`` to ``[height, width, 3]``: covers the target, cuts the centre."""
    if frame.shape[:2] == (height, width):
        return frame
    scale = min(frame.shape[0] / height, frame.shape[1] / width)
    cut_height, cut_width = height * scale, width * scale
    top, left = (frame.shape[0] - cut_height) / 2, (frame.shape[1] - cut_width) / 2
    box = (left, top, left + cut_width, top + cut_height)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC, box=box))


def nearest_in_time(
    timed: Iterable[tuple[float, Frame]], fps: float, hold: float, start: float | None = None
) -> Iterator[Frame]:
    """Frames at ``start + k/fps``, each the nearest of ``timed`` (seconds, ascending); a tie goes to the earlier one.

    ``start`` is the first frame's time by default; the last frame lasts ``hold`` seconds, and with it the video.
    """
    slack = 1e-6  # below any timestamp's resolution, above the rounding of float seconds
    previous: tuple[float, Frame] | None = None
    count = 0
    for time, frame in timed:
        start = time if start is None else start
        while previous and start + count / fps <= (previous[0] + time) / 2 + slack:
            yield previous[1]
            count += 1
        previous = (time, frame)
    while previous and start is not None and start + count / fps < previous[0] + hold - slack:
        yield previous[1]
        count += 1


def stream_frames(
    source: Source, *, fps: float | None = None, start: float = 0.0, behind: int = 255, size: Size | None = None
) -> tuple[float, Iterator[Frames]]:
    """The frame rate, and the frames as they are decoded: a long film never lies whole in memory.

    ``fps`` None keeps the file's own rate (0 for an image). All frames have the size of the first. What is transparent
    is laid over the grey ``behind``. With ``size``, height and width, all have that, as `resize_frame` cuts and scales
    them, in one step with the conversion to RGB where that can be (`vpoet.media.fitted`). DataError, naming the file,
    comes from here or from the iterator, as the damage is found.
    """
    rate, numbered = stream_numbered(source, fps=fps, start=start, behind=behind, size=size)
    return rate, (frame for _, frame in numbered)


def stream_numbered(
    source: Source,
    *,
    fps: float | None = None,
    start: float = 0.0,
    behind: int = 255,
    watch: Callable[[Frames], None] | None = None,
    look: Callable[[Any], None] | None = None,
    size: Size | None = None,
) -> tuple[float, Iterator[tuple[int, Frames]]]:
    """As `stream_frames`, each frame with its number among those that were decoded, from 0 on: one that is shown again
    has the same number, and where the rate is lowered some are left out.

    ``watch`` is shown every frame of the video as a thumbnail `THUMB`, no later than the frame comes, and ``look`` as
    `Video.read` says. Without either, those that will not be shown need not be decoded (`vpoet.media.sparing`), and are
    not counted.
    """
    if fps is not None and not 0 < fps <= FASTEST:
        raise DataError(f"a frame rate to read at is above 0 and at most {FASTEST}, not {fps}")
    if not 0 <= start < math.inf:
        raise DataError(f"a video is read from 0 seconds on or later, not from {start}")
    name = _name(source)
    if not isinstance(source, bytes):
        check_file(source)
    with _named(name, "not readable"):
        if (picture := open_image(source)) is None:
            spared = None if watch or look else fps
            rate, timed, finish = open_video(source, start, behind, fps=spared, size=size, vectors=look is not None)
            found = fps or rate
            timed = timed if look is None else _looked_at(timed, look)
            seen = _seen(timed, None if watch is None else thumbnails(), watch)
            chosen = nearest_in_time(seen, found, 1 / rate, start or None)
            return found, _guard(map(_last_kept(finish), chosen), name, size)
        shown = durations(picture)
    pictures = image_frames(picture, behind)
    if not shown:
        lone = ((0.0, frame) for frame in (pictures if start <= 0 else ()))
        return 0.0, _guard((numbered for _, numbered in _seen(lone, small_picture, watch)), name, size)
    found = fps or len(shown) / sum(shown)
    times = np.cumsum([0.0, *shown[:-1]]).tolist()
    seen = _seen(zip(times, pictures, strict=True), small_picture, watch)
    return found, _guard(nearest_in_time(seen, found, shown[-1], start), name, size)


def _looked_at(timed: Iterable[tuple[float, Any]], look: Callable[[Any], None]) -> Iterator[tuple[float, Any]]:
    for time, frame in timed:
        look(frame)
        yield time, frame


def _seen(
    timed: Iterable[tuple[float, Frame]],
    thumb: Callable[[Frame], Frames] | None,
    watch: Callable[[Frames], None] | None,
) -> Iterator[tuple[float, tuple[int, Frame]]]:
    """Each frame with its time and its number, once ``watch`` has seen it."""
    for number, (time, frame) in enumerate(timed):
        if watch is not None and thumb is not None:
            watch(thumb(frame))
        yield time, (number, frame)


def at_rate(clip: Video | Source, fps: float, *, behind: int = 255) -> Iterator[Frames]:
    """A clip's frames at a rate, one by one, as `Video.resample` and `stream_frames` have them; an image's frame as it
    is. The errors are those of `stream_frames`."""
    if isinstance(clip, Video):
        timed = ((index / (clip.fps or 1), frame) for index, frame in enumerate(clip.frames))
        return nearest_in_time(timed, fps, 1 / clip.fps) if clip.fps else iter(clip.frames)
    return stream_frames(clip, fps=fps, behind=behind)[1]


def frame_rate(clip: Video | Source) -> float:
    """A clip's own rate, 0 of an image; nothing is decoded for it but an animated image."""
    return clip.fps if isinstance(clip, Video) else stream_frames(clip)[0]


def check_file(path: str | Path) -> None:
    """DataError: there is no file to read. Anything but a file (a pipe, a device) could be waited for without end."""
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device"
        raise DataError(f"{path}: {kind}, not a file that holds a video or an image")
    if not found.st_size:
        raise DataError(f"{path}: not a video or image: the file is empty")


def _last_kept(function: Callable[[Any], Frames]) -> Callable[[tuple[int, Any]], tuple[int, Frames]]:
    """The function, which remembers its last result: a frame that is shown for long is converted once."""
    last = -1
    result: Frames

    def kept(numbered: tuple[int, Any]) -> tuple[int, Frames]:
        nonlocal last, result
        if numbered[0] != last:
            last, result = numbered[0], function(numbered[1])
        return last, result

    return kept


def _guard(numbered: Iterable[tuple[int, Frames]], name: str, size: Size | None) -> Iterator[tuple[int, Frames]]:
    """Name the file in whatever goes wrong while it is decoded, and bring all frames to a size, or the first one's."""
    with _named(name, "broken while decoding"):
        for number, frame in numbered:
            size = size or (int(frame.shape[0]), int(frame.shape[1]))
            yield number, resize_frame(frame, *size)


@contextmanager
def _named(name: str, what: str) -> Iterator[None]:
    """Decoders meet damage with nearly any exception (OSError, SyntaxError, struct.error): each becomes a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except Exception as error:
        raise DataError(f"{name}: {what}: {reason(error)}") from None


def _name(source: Source) -> str:
    return f"video of {len(source)} bytes" if isinstance(source, bytes) else str(source)
