"""Writing .mp4 files frame by frame: a long film needs no memory."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from vpoet.arrays import Frames
from vpoet.errors import DataError

CRF = 18
"""x264's constant rate factor: 18 is close to transparent, 0 to 51, lower is better."""
PRESET = "medium"
"""x264's own: how long it looks for a small file."""


def encode_mp4(
    out: Path | io.BytesIO,
    frames: Iterable[Frames],
    fps: float,
    *,
    lossless: bool = False,
    crf: int = CRF,
    preset: str = PRESET,
    comment: str = "",
) -> None:
    """Write frames uint8 [H, W, 3] to an .mp4 as they come, as `Video.encode` says. DataError: there are none."""
    with open_mp4(out, fps, lossless=lossless, crf=crf, preset=preset, comment=comment) as add:
        for frame in frames:
            add(frame)


@contextmanager
def open_mp4(
    out: Path | io.BytesIO,
    fps: float,
    *,
    lossless: bool = False,
    crf: int = CRF,
    preset: str = PRESET,
    comment: str = "",
) -> Iterator[Callable[[Frames], None]]:
    """A function that adds a frame uint8 [H, W, 3] to an .mp4, which is whole when the context ends.

    The file appears with the first frame. DataError, at the end: there was none.
    """
    container: Any = None
    stream: Any = None
    convert = VideoReformatter()

    def add(array: Frames) -> None:
        nonlocal container, stream
        if container is None:
            container = stack.enter_context(
                av.open(out if isinstance(out, io.BytesIO) else f"file:{out}", "w", format="mp4")  # never an address
            )
            if comment:
                container.metadata["comment"] = comment
            options = {"qp": "0"} if lossless else {"crf": str(crf), "preset": preset}
            stream = _stream(container, array.shape[0], array.shape[1], fps, lossless, options)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
        if not lossless:
            frame = convert.reformat(
                frame, format=stream.pix_fmt, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
        container.mux(stream.encode(frame))

    with ExitStack() as stack:
        yield add
        if container is None:
            raise DataError("a video has one frame at least")
        container.mux(stream.encode())


def _stream(container: Any, height: int, width: int, fps: float, lossless: bool, options: dict[str, str]) -> Any:
    rate = Fraction(fps or 1).limit_denominator(1001)
    stream = container.add_stream("libx264rgb" if lossless else "libx264", rate=rate)
    stream.width, stream.height = width, height
    context = stream.codec_context
    context.thread_count = 1  # x264's bytes depend on the number of threads
    if lossless:
        stream.pix_fmt, stream.options = "rgb24", options
    else:
        # 4:2:0 plays everywhere and needs even sides. Tagged BT.709, so that no player guesses by the size.
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        # Without mbtree: with it the same frames gave other bytes in one run of 20 (x264 core 165, measured).
        stream.options = options | {"x264-params": "mbtree=0"}
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return stream
