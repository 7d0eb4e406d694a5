"""The playground's pictures: sprites and stages made once, and frames put together from them.

Frames are put together in integers: 16 bits hold a colour times 0..256, so that a frame is the same bit for bit
wherever it is made.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.worlds.platformer.scenery import CHARACTERS, SMALL, TILE, Scenery
from vpoet.worlds.platformer.sprites import Sprite
from vpoet.worlds.playground.levels import SLOT, Level
from vpoet.worlds.playground.physics import CLIMBS, RUNG, STANDS, WALK, Body

TALL = 24
"""Height of a character's picture; about 17 units of it are seen."""
THICK = 5
"""Height of a platform."""
_SURFACE = 3
"""From the floor down to the water's upper edge."""

_BOTH_WAYS = ("idle", "jump", "fall", *(f"walk{i}" for i in range(8)))
POSES = (*((name, left) for left in (False, True) for name in _BOTH_WAYS), ("climb0", False), ("climb1", False))
"""A character's picture, and whether it is mirrored: all that is drawn."""


class Cutout(NamedTuple):
    """A sprite, ready to be put over a frame in integers."""

    colours: npt.NDArray[np.uint16]
    """[h, w, 3], colour times alpha times 256, and a half."""
    behind: npt.NDArray[np.uint16]
    """[h, w, 1], what is left of the frame behind it, 0 to 256."""
    left: int
    """From the middle of the feet."""
    top: int

    @classmethod
    def of(cls, sprite: Sprite) -> "Cutout":
        behind = 256 - np.rint(256 * sprite.pixels[..., 3:]).astype(np.uint16)
        # no more than the alpha lets through, or the sum would not fit in 16 bits
        colours = np.minimum(np.rint(256 * sprite.pixels[..., :3]), 255 * (256 - behind.astype(np.float32)))
        return cls(colours.astype(np.uint16) + 128, behind, int(np.floor(sprite.left)), sprite.top)

    def put(self, frame: Frames, x: int, y: int) -> None:
        """Over a frame in place, with the feet at column ``x`` and row ``y``."""
        h, w = self.colours.shape[:2]
        left, top = x + self.left, y + self.top
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, frame.shape[1]), min(top + h, frame.shape[0])
        if x0 < x1 and y0 < y1:
            part = frame[y0:y1, x0:x1]
            rows, columns = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
            part[...] = (part * self.behind[rows, columns] + self.colours[rows, columns]) >> 8


def pose(body: Body) -> tuple[str, bool]:
    """The picture of a figure, one of `POSES`: a function of what one sees it do, and of where it is."""
    if body.doing == CLIMBS:
        return f"climb{body.y // RUNG % 2}", False
    if body.doing != STANDS:
        return ("jump" if body.down < 0 else "fall"), body.faces_left
    if not body.across:
        return "idle", body.faces_left
    return f"walk{(-body.x if body.faces_left else body.x) // WALK % 8}", body.faces_left


class Painter:
    """Draws at one size."""

    def __init__(self, height: int, width: int) -> None:
        self._scenery, self._height, self._width = Scenery(height, width), height, width
        self.unit = self._scenery.unit
        self.wide, self.floor = int(width / self.unit), int(self._scenery.floor(False))
        self.figures = {
            who: [self._scenery.picture(f"animated_characters/{path}_{name}", TALL, left) for name, left in POSES]
            for who, path in CHARACTERS.items()
        }
        coin = self._scenery.picture("items/coinGold", SMALL)
        self.coin = coin._replace(top=-len(coin.pixels))
        self._cutouts = {
            (who, *each): Cutout.of(sprite)
            for who, sprites in self.figures.items()
            for each, sprite in zip(POSES, sprites, strict=True)
        }
        self._coin = Cutout.of(self.coin)
        self.stage = lru_cache(256)(self._stage)

    def place(self, at: tuple[int, int]) -> tuple[int, int]:
        """Units to the column and row of a pixel."""
        return round(at[0] * self.unit), round(at[1] * self.unit)

    def place_of_coin(self, middle: tuple[int, int]) -> tuple[int, int]:
        """Where its lower edge is put."""
        x, y = self.place(middle)
        return x, y + len(self.coin.pixels) // 2

    def frame(self, scene: Mapping[str, str], level: Level, body: Body) -> Frames:
        """uint8 [H, W, 3]: the stage, the coin, and the figure before all."""
        frame = self.stage(scene["ground"], scene["sky"], level).copy()
        self._coin.put(frame, *self.place_of_coin(level.coins[body.coin]))
        self.put(frame, scene["who"], pose(body), (body.x, body.y))
        return frame

    def box(self, who: str, body: Body) -> tuple[int, int, int, int]:
        """What `frame` covers with the figure: (left, top, right, bottom) in pixels, half open."""
        cutout = self._cutouts[(who, *pose(body))]
        rows, columns = (np.flatnonzero((cutout.behind[..., 0] < 256).any(axis)) for axis in (1, 0))
        x, y = self.place((body.x, body.y))
        wide, high = x + cutout.left, y + cutout.top
        left, right = (min(max(wide + int(edge), 0), self._width) for edge in (columns[0], columns[-1] + 1))
        top, bottom = (min(max(high + int(edge), 0), self._height) for edge in (rows[0], rows[-1] + 1))
        return left, top, right, bottom

    def put(self, frame: Frames, who: str, pose: tuple[str, bool], at: tuple[int, int]) -> None:
        """A character over a frame in place, in one of `POSES`, with its feet there."""
        self._cutouts[who, *pose].put(frame, *self.place(at))

    def _stage(self, ground: str, sky: str, level: Level) -> Frames:
        """All that stands still."""
        scenery, unit = self._scenery, self.unit
        stage = scenery.scenery(sky, ground)
        floor = round(level.floor * unit)
        if level.water is not None:
            left, right = (round(x * unit) for x in level.water)
            stage[floor:, left:right] = stage[floor - 1, left:right]
            pool = stage[:, left:right]
            for name, lower in (("tiles/water", TILE), ("tiles/waterTop_low", 0)):
                scenery.put(
                    pool, scenery.picture(name, TILE), SLOT / 2, level.floor + _SURFACE + lower + TILE * (not lower)
                )
        rung = scenery.picture("items/ladderMid", TILE)
        x, top = level.ladder
        ladder = stage[round(top * unit) : floor]
        for y in range(level.floor - top, 0, -TILE):
            scenery.put(ladder, rung, x, y)
        plank = scenery.picture(f"tiles/{ground}Half_mid", TILE)
        plank = plank._replace(pixels=plank.pixels[: round(THICK * unit)])
        for platform in level.platforms:
            for middle in range(platform.left + SLOT // 2, platform.right, SLOT):
                scenery.put(stage, plank, middle, platform.top + TILE)
        return (stage + 0.5).astype(np.uint8)
