"""Super-resolution by tiles: a window of a coarse clip, and the tile in its middle with twice as many pixels a side.

    coarse   |  margin  |  half a tile  |  margin  |     a window has as many pixels as a tile
    fine                |     a tile    |

A margin is a quarter of a tile wide. Beyond the edge of the picture a window repeats the outermost pixels, in training
and in sampling alike, so that pictures of any size have tiles up to their edge.

`vpoet encode --tiles N` puts them into token shards, N samples of each clip:

    KEY-N.codes.npy     the tile
    KEY-N.coarse.npy    its window, [t, h, w] as well
"""

import zlib
from typing import NamedTuple

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media.video import Video

FINER = 2
"""Pixels of a tile for one of its window, along each side."""
COARSE = "coarse.npy"
EDGE = 4
"""Sides of a tile are multiples of it, in pixels: a margin is a whole number of them."""


class Tile(NamedTuple):
    """Frames uint8 [T, S, S, 3] both."""

    fine: Frames
    window: Frames


def window(coarse: Frames, top: int, left: int, height: int, width: int) -> Frames:
    """The window [T, height, width, 3] of coarse frames around the tile of that size whose upper left corner is, in
    coarse pixels, at ``top`` and ``left``."""
    rows, columns = (
        np.clip(np.arange(first - side // 4, first - side // 4 + side), 0, most - 1)
        for first, side, most in ((top, height, coarse.shape[1]), (left, width, coarse.shape[2]))
    )
    return np.ascontiguousarray(coarse[:, rows][:, :, columns])


def draw(frames: Frames, side: int, key: str, *, seed: int, count: int) -> list[Tile]:
    """``count`` tiles of ``side`` pixels from anywhere in frames [T, H, W, 3]: a function of the seed and the sample's
    key alone. DataError: the frames are smaller, or of odd sides."""
    height, width = frames.shape[1:3]
    if min(height, width) < side or height % FINER or width % FINER:
        raise DataError(f"{height}x{width} pixels have no tile of {side}x{side}, or no half")
    coarse = Video(frames, 0).resize(height // FINER, width // FINER).frames
    random = np.random.default_rng((seed, zlib.crc32(key.encode())))
    found = []
    for _ in range(count):
        top, left = (int(random.integers((most - side) // FINER + 1)) for most in (height, width))
        fine = frames[:, FINER * top : FINER * top + side, FINER * left : FINER * left + side]
        found.append(Tile(np.ascontiguousarray(fine), window(coarse, top, left, side, side)))
    return found
