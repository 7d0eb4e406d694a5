"""Videos in memory and on disk: ``uint8 [T, H, W, 3]`` RGB and a frame rate, whatever the file held.

Reading applies what a file says about itself: rotation and mirroring, non-square pixels, grey, 10-bit and alpha (laid
over white), and timestamps. Frames always come out evenly spaced: output frame k is the frame nearest in time to k/fps,
so a variable rate becomes a constant one, a lower rate drops frames, and a higher rate repeats them and drops none.
"""

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media.mp4 import CRF, encode_mp4

Source = str | Path | bytes

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What Pillow reads, one frame or several; everything else goes to FFmpeg."""

VIDEO_SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv")
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"))


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
        cls, source: Source, *, fps: float | None = None, start: float = 0.0, max_frames: int | None = None
    ) -> "Video":
        """Read a video or image file, or its bytes, from ``start`` seconds on; ``fps`` None keeps the file's own rate.

        Raises DataError, naming the file, if it cannot be decoded or holds no frame there.
        """
        rate, frames = stream_frames(source, fps=fps, start=start)
        taken = [frame for _, frame in zip(range(max_frames), frames)] if max_frames else list(frames)  # noqa: B905
        if not taken:
            raise DataError(f"{_name(source)}: no frames{f' after {start} s' if start else ''}")
        return cls(np.stack(taken), rate)

    def write(self, path: str | Path, *, lossless: bool = False) -> None:
        """Write a file whose kind is its suffix: .mp4, .gif, .webp, or .png for a single frame."""
        path = Path(path)
        data = self.encode(path.suffix, lossless=lossless)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def encode(self, suffix: str, *, lossless: bool = False, crf: int = CRF) -> bytes:
        """The bytes of `write`. The same frames give the same bytes.

        An .mp4 is h264 4:2:0 (4:4:4 where a side is odd) at ``crf``; ``lossless`` stores RGB bit for bit, which few
        browsers play. A .webp can be lossless too; a .gif has 256 colours and time in steps of 10 ms.
        """
        if suffix == ".mp4":
            mp4 = io.BytesIO()
            encode_mp4(mp4, self.frames, self.fps, lossless=lossless, crf=crf)
            return mp4.getvalue()
        images = [Image.fromarray(frame) for frame in self.frames]
        buffer = io.BytesIO()
        duration = 1000 / self.fps if self.fps else 1000.0
        if suffix == ".png":
            if len(images) > 1:
                raise DataError(f"a .png holds one frame, this video has {len(images)}: write .mp4, .gif or .webp")
            images[0].save(buffer, "PNG")
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
            indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=times, loop=0)
        else:
            raise DataError(f"cannot write {suffix or 'a file without a suffix'}: use .mp4, .gif, .webp or .png")
        return buffer.getvalue()

    def resize(self, height: int, width: int) -> "Video":
        """Scale to cover ``height x width`` with the aspect kept, and cut the centre out."""
        return Video(np.stack([resize_frame(frame, height, width) for frame in self.frames]), self.fps)

    def resample(self, fps: float) -> "Video":
        """The same duration at another rate, by nearest frame."""
        if not self.fps:
            raise DataError("a lone image has no frame rate to resample from")
        timed = ((index / self.fps, frame) for index, frame in enumerate(self.frames))
        return Video(np.stack(list(nearest_in_time(timed, fps, 1 / self.fps))), fps)


def read_image(source: Source) -> Video:
    """The first frame of an image file, or of its bytes: upright by EXIF, over white where transparent, fps 0."""
    _, frames = stream_frames(source)
    frame = next(frames, None)
    if frame is None:
        raise DataError(f"{_name(source)}: no image in it")
    return Video(frame[None], 0.0)


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
    timed: Iterable[tuple[float, Frames]], fps: float, hold: float, start: float | None = None
) -> Iterator[Frames]:
    """Frames at ``start + k/fps``, each the nearest of ``timed`` (seconds, ascending); a tie goes to the earlier one.

    ``start`` is the first frame's time by default; the last frame lasts ``hold`` seconds, and with it the video.
    """
    slack = 1e-6  # below any timestamp's resolution, above the rounding of float seconds
    previous: tuple[float, Frames] | None = None
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


def stream_frames(source: Source, *, fps: float | None = None, start: float = 0.0) -> tuple[float, Iterator[Frames]]:
    """The frame rate, and the frames as they are decoded: a long film never lies whole in memory.

    ``fps`` None keeps the file's own rate (0 for an image). DataError, naming the file, comes from here or from the
    iterator, as the damage is found.
    """
    if fps is not None and not fps > 0:
        raise DataError(f"a frame rate to read at is above 0, not {fps}")
    name = _name(source)
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURE_FORMATS)
    except FileNotFoundError:
        raise DataError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        return _stream_ffmpeg(source, name, fps, start)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not readable as an image: {error}") from None
    return _stream_pillow(picture, name, fps, start)


def _stream_pillow(picture: Image.Image, name: str, fps: float | None, start: float) -> tuple[float, Iterator[Frames]]:
    if getattr(picture, "n_frames", 1) == 1:
        return 0.0, _guard((frame for _, frame in _pages(picture, [0.0]) if start <= 0), name)
    try:
        durations = [_seconds(page) for page in ImageSequence.Iterator(picture)]
    except Exception as error:
        raise _broken(name, error) from None
    rate = fps or len(durations) / sum(durations)
    times = np.cumsum([0.0, *durations[:-1]]).tolist()
    return rate, _guard(nearest_in_time(_pages(picture, times), rate, durations[-1], start), name)


def _pages(picture: Image.Image, times: list[float]) -> Iterator[tuple[float, Frames]]:
    with picture:
        for time, page in zip(times, ImageSequence.Iterator(picture), strict=True):
            yield time, _pillow_rgb(page)


def _seconds(page: Image.Image) -> float:
    page.load()  # WebP knows a page's duration only then
    return float(page.info.get("duration") or 100) / 1000  # browsers, too, show a page without a duration for 100 ms


def _pillow_rgb(picture: Image.Image) -> Frames:
    upright = ImageOps.exif_transpose(picture)
    if upright.mode in ("I;16", "I;16B", "I;16L", "I", "F"):  # 16-bit grey: Pillow would clip it, not scale it
        deep = np.asarray(upright, np.float64)
        grey = np.rint(deep / (257 if deep.max(initial=0) > 255 else 1)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    return _over_white(np.asarray(upright.convert("RGBA")))


def _over_white(rgba: Frames) -> Frames:
    """Lay ``uint8 [H, W, 4]`` over white: ``[H, W, 3]``."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    return ((colour.astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16)) + 127) // 255).astype(np.uint8)


def _stream_ffmpeg(source: Source, name: str, fps: float | None, start: float) -> tuple[float, Iterator[Frames]]:
    try:
        container = av.open(io.BytesIO(source) if isinstance(source, bytes) else str(source))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{name}: not a video or image that can be decoded: {error}") from None
    if not container.streams.video:
        container.close()
        raise DataError(f"{name}: no video stream in it")
    stream = container.streams.video[0]
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    timed = _decode(container, stream, 1 / rate, start)
    return fps or rate, _guard(nearest_in_time(timed, fps or rate, 1 / rate, start or None), name)


def _decode(container: Any, stream: Any, step: float, start: float) -> Iterator[tuple[float, Frames]]:
    """(seconds from the stream's start, frame), ascending; a frame without a sound timestamp follows by one step."""
    with container:
        origin = float((stream.start_time or 0) * stream.time_base)
        if start > 0:
            container.seek(int((origin + start) / stream.time_base), stream=stream)
        stream.codec_context.thread_count = 1  # ingest runs a process a core; threads under them only get in the way
        convert = VideoReformatter()  # kept: it costs more to set up than to run on a small frame
        last = None
        for frame in container.decode(stream):
            if frame.is_corrupt:
                continue
            time = frame.time - origin if frame.time is not None else None
            if time is None or (last is not None and time <= last):
                time = 0.0 if last is None else last + step
            last = time
            if time >= start - step:  # before that a seek lands on a keyframe, and its frames only feed the decoder
                yield time, _ffmpeg_rgb(frame, stream.sample_aspect_ratio, convert)


def _ffmpeg_rgb(frame: Any, pixel_aspect: Fraction | None, convert: Any) -> Frames:
    alpha = any(component.is_alpha for component in frame.format.components)
    rgb: Frames = convert.reformat(frame, format="rgba" if alpha else "rgb24").to_ndarray()
    if alpha:
        rgb = _over_white(rgb)
    if pixel_aspect and pixel_aspect != 1:
        width = max(1, round(rgb.shape[1] * pixel_aspect))
        rgb = np.asarray(Image.fromarray(rgb).resize((width, rgb.shape[0]), Image.Resampling.BICUBIC))
    for side in frame.side_data.keys():  # noqa: SIM118 - the container's values are unreachable by key in PyAV 18
        if side.type.name == "DISPLAYMATRIX":
            rgb = apply_display_matrix(rgb, np.frombuffer(bytes(side), "<i4").reshape(3, 3))
    return rgb


def apply_display_matrix(rgb: Frames, matrix: npt.NDArray[np.int32]) -> Frames:
    """Turn a frame as its file says: quarter turns and mirrors (others are left alone).

    ISO 14496-12, 6.2.2: (x, y) is shown at (a x + c y, b x + d y), rows of the matrix being (a, b, u), (c, d, v).
    """
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if b == c == 0:
        flip_x, flip_y = a < 0, d < 0
    elif a == d == 0:
        rgb, flip_x, flip_y = rgb.transpose(1, 0, 2), c < 0, b < 0
    else:
        return rgb
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _guard(frames: Iterator[Frames], name: str) -> Iterator[Frames]:
    """Name the file in whatever goes wrong while it is decoded."""
    try:
        yield from frames
    except Exception as error:
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> DataError:
    """Decoders meet damage with nearly any exception (OSError, SyntaxError, struct.error): each becomes this one."""
    return DataError(f"{name}: broken while decoding: {type(error).__name__}: {error}")


def _name(source: Source) -> str:
    return f"video of {len(source)} bytes" if isinstance(source, bytes) else str(source)
