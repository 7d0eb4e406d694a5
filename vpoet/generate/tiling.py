"""Super-resolution of pictures of any size: tile after tile, each a document of its own (`vpoet.data.tiles`).

    +--------+             Neighbours overlap by a quarter of a tile, and there one fades into the other, so that no
    |      +-+------+      border shows. A tile knows of its neighbours by its window, which shows, half as fine, a
    |      | |      |      quarter of a tile beyond it on each side.
    +------+-+      |
           +--------+

The network never has more than a tile before it. What grows with the picture are its own pixels: those that are given,
and those of as many frames as the model makes at once. A longer clip is made in stretches of so many frames.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from vpoet.arrays import Floats, Frames
from vpoet.bundle import Bundle
from vpoet.data.tiles import FINER, window
from vpoet.errors import PromptError
from vpoet.generate.asks.table import document, family
from vpoet.generate.edit import Redraw
from vpoet.generate.request import Request
from vpoet.media.video import Video, at_rate, first_frame
from vpoet.sequence.document import Document

OVERLAP = 4
"""Neighbours share a side of a tile divided by it."""


class Tiling:
    """A request as a chain of documents, as `vpoet.generate.rollout.Rollout` is one."""

    was, whole, known, tiled = "", False, 0, True

    def __init__(self, bundle: Bundle, request: Request) -> None:
        """PromptError: the picture is smaller than a tile, or of odd sides, or the model makes none finer."""
        family(request)
        self._bundle, self._request = bundle, request
        self.fps, self._coarse = _read(request, bundle)
        self._side = bundle.config.height, bundle.config.width
        height, width = self._coarse.shape[1:3]
        self._size = FINER * height, FINER * width
        if any(most < side for most, side in zip(self._size, self._side, strict=True)):
            told = "{}x{} pixels become {}x{}, and a tile has {}x{}".format(height, width, *self._size, *self._side)
            raise PromptError(f"upscale: {told}: give a larger picture, or say --height and --width")
        corners = [(top, left) for top in _places(height, self._side[0]) for left in _places(width, self._side[1])]
        most = bundle.config.frames
        self._places = deque((first, *at) for first in range(0, len(self._coarse), most) for at in corners)
        self._corners, self._index = len(corners), 0
        self._fade = np.multiply.outer(*map(_ramp, self._side)).astype(np.float32)[..., None]
        self.count = len(self._places)
        self._ask()
        assert self.document is not None
        self.size = self.count, sum(span.values.size for span in self.document.spans)

    @property
    def held(self) -> int:
        """Frames that are kept until they are whole."""
        return len(self._sum) if self._index % self._corners else 0

    def _ask(self) -> None:
        first, top, left = self._places[0]
        most, (r, _, _) = self._bundle.config.frames, self._bundle.video.stride
        frames = self._coarse[first : first + most]
        if top == left == 0:
            lacking = -(len(frames) - 1) % r  # a clip has 1 + a multiple of r frames
            self._stretch = np.concatenate([frames, frames[-1:].repeat(lacking, 0)])
            self._sum = np.zeros((len(self._stretch), *self._size, 3), np.float32)
            self._weights = np.zeros((*self._size, 1), np.float32)
        seen = Video(window(self._stretch, top, left, *self._side), float(self.fps if len(self._stretch) > 1 else 0))
        part = replace(
            self._request, image=None, video=seen, frames=None, height=None, width=None, fps=self.fps or None
        )
        self.document: Document | None = document(part, self._bundle)
        seeds = np.random.SeedSequence([self._request.seed, self._index])
        self.seed: int | Redraw = int(seeds.generate_state(1, np.uint64)[0])

    def take(self, filled: Document, drawn: Frames | None = None) -> Iterator[Frames]:
        """Go on to the next tile, and return the frames uint8 [T, H, W, 3] that are whole with this one, maybe none.
        ``drawn`` is the tile, where it is at hand."""
        first, top, left = self._places.popleft()
        (target,) = (span for span in filled.spans if span.target)
        tile = self._bundle.video.decode(target.values) if drawn is None else drawn
        rows, columns = (slice(FINER * at, FINER * at + side) for at, side in zip((top, left), self._side, strict=True))
        self._sum[:, rows, columns] += self._fade * tile
        self._weights[rows, columns] += self._fade
        self._index += 1
        made = np.zeros((0, *self._size, 3), np.uint8)
        if self._index % self._corners == 0:
            frames = min(self._bundle.config.frames, len(self._coarse) - first)
            made = (self._sum[:frames] / self._weights).round().astype(np.uint8)
        if self._places:
            self._ask()
        else:
            self.document = None
        return iter((made,))


def _read(request: Request, bundle: Bundle) -> tuple[int, Frames]:
    """The rate of what is given, 0 of an image, and its frames at half the size that is asked for."""
    fps = request.fps or bundle.config.fps
    if request.image is not None:
        fps, frames = 0, first_frame(request.image)[None]
    else:
        assert request.video is not None
        frames = np.stack(list(islice(at_rate(request.video, fps), request.frames)))
    own = frames.shape[1:3]
    asked = [given or FINER * side for given, side in zip((request.height, request.width), own, strict=True)]
    if any(side % FINER for side in asked):
        raise PromptError(f"upscale: {asked[0]}x{asked[1]} pixels have no half: ask for an even --height and --width")
    return 0 if len(frames) == 1 else fps, Video(frames, 0).resize(*(side // FINER for side in asked)).frames


def _places(length: int, side: int) -> list[int]:
    """Where tiles of ``side`` pixels begin along a side of ``length`` coarse pixels, evenly, in coarse pixels."""
    tile = side // FINER
    steps = -(-(length - tile) // (tile - tile // OVERLAP))
    found: list[int] = np.linspace(0, length - tile, 1 + steps).round().astype(int).tolist()
    return found


def _ramp(side: int) -> Floats:
    """How much a tile counts along its side: less towards its ends, where others overlap it."""
    away = np.arange(side) + 0.5
    rising = np.minimum(away, away[::-1]) * OVERLAP / side
    found: Floats = np.minimum(rising, 1.0).astype(np.float32)
    return found
