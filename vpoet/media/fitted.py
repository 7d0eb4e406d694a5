"""Decoded frames to a smaller size in one step: cut, converted to RGB and scaled by FFmpeg's scaler.

The slow twin converts a frame whole and scales it by Pillow (`vpoet.media.video.resize_frame`). Both are bicubic with
antialiasing, each pixel made of as many as lie under it, and both cover the size and cut the middle out. Here the cut
falls on whole pixels of the coded colour, every second one, and colour is scaled as it is coded, at half the
resolution: beside an edge between two colours pixels differ from the twin's, elsewhere by a level or two.
"""

from typing import Any

from av.filter import Graph
from av.video.reformatter import Interpolation, VideoReformatter

from vpoet.arrays import Frames
from vpoet.media.colour import HLG, PQ, matrix_of

Size = tuple[int, int]
"""Height and width, in pixels."""
STRETCH = 0.005
"""Share of its length by which a side may come out longer or shorter, so that whole pixels are cut."""


class Fitted:
    """Frames of one video as ``uint8 [*size, 3]``."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._convert = VideoReformatter()
        self._cut_of: tuple[int, int, str] | None = None
        self._graph: Graph | None = None

    def __call__(self, frame: Any) -> Frames | None:
        """An `av.VideoFrame`; None where this is not the way: HDR, alpha, no YUV, no smaller a size, or a small frame
        whose aspect whole pixels would change. DataError: it is of unknown colours."""
        kind = frame.format
        if frame.color_trc in (PQ, HLG) or kind.is_rgb or len(kind.components) != 3:
            return None
        height, width = self._size
        scale = min(frame.height / height, frame.width / width)
        top, high = _middle(frame.height, height * scale)
        left, wide = _middle(frame.width, width * scale)
        off = abs(high / (height * scale) - 1) + abs(wide / (width * scale) - 1)
        if off > STRETCH or high < height or wide < width or (high, wide) == self._size:
            return None
        matrix = matrix_of(frame)
        if (high, wide) != (frame.height, frame.width):
            frame = self._cut(frame, f"{wide}:{high}:{left}:{top}:exact=1")
        way = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
        rgb: Any = self._convert.reformat(
            frame, width=width, height=height, format="gbrp", src_colorspace=matrix, interpolation=way, threads=1
        ).to_ndarray()
        fitted: Frames = rgb
        return fitted

    def _cut(self, frame: Any, box: str) -> Any:
        """A part of a frame, without a copy."""
        cut_of = frame.width, frame.height, frame.format.name
        if self._graph is None or self._cut_of != cut_of:
            self._cut_of, self._graph = cut_of, Graph()
            source = self._graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
            )
            self._graph.link_nodes(source, self._graph.add("crop", box), self._graph.add("buffersink"))
            self._graph.configure()
        self._graph.push(frame)
        return self._graph.pull()


def _middle(whole: int, part: float) -> tuple[int, int]:
    """Where the middle ``part`` of a side begins, at an even pixel, and its pixels."""
    first = 2 * round((whole - part) / 4)
    return first, whole - 2 * first
