"""What the platformer draws: characters, creatures and things by name, and the scenery that they stand in.

Lengths are in units of 1/64 of the picture's shorter side, y downwards; at 64x64 a unit is a pixel. The world
(`vpoet.worlds.platformer.world`) and its judge (`vpoet.worlds.platformer.sight`) draw with the same hand.
"""

import numpy as np
import numpy.typing as npt

from vpoet.worlds.platformer.sprites import Sprite, draw, sprite

CHARACTERS = {
    "heroine": "female_adventurer/femaleAdventurer",
    "woman": "female_person/femalePerson",
    "hero": "male_adventurer/maleAdventurer",
    "man": "male_person/malePerson",
    "robot": "robot/robot",
    "zombie": "zombie/zombie",
}
GROUNDS = ("grass", "sand", "snow", "dirt", "stone", "planet")
SKIES = {
    "day": ((120, 190, 250), (205, 235, 255)),
    "dusk": ((235, 120, 90), (255, 205, 150)),
    "night": ((18, 22, 58), (58, 62, 120)),
    "fog": ((150, 155, 160), (215, 218, 220)),
}
"""Colours at the top and at the horizon."""
BACKDROPS = ("", "hills", "clouds")
CREATURES = {
    "bee": ("fly", ("bee",)),
    "fly": ("fly", ("fly",)),
    "ladybug": ("crawl", ("ladybug",)),
    "mouse": ("crawl", ("mouse",)),
    "green worm": ("crawl", ("wormGreen", "wormGreen_move")),
    "blue slime": ("crawl", ("slimeBlue", "slimeBlue_move")),
    "green fish": ("swim", ("fishGreen",)),
    "pink fish": ("swim", ("fishPink",)),
}
"""Name -> how it moves, and the pictures of its cycle (they look to the left)."""
SPEEDS = {"fly": (12, 22), "crawl": (6, 11), "swim": (9, 16)}
"""Of each motion, the slowest and the fastest, in units per second."""
ITEMS = {
    "gold coin": "items/coinGold",
    "blue gem": "items/gemBlue",
    "red gem": "items/gemRed",
    "yellow key": "items/keyYellow",
    "star": "items/star",
    "cactus": "tiles/cactus",
    "bush": "tiles/bush",
    "red mushroom": "tiles/mushroomRed",
}
TALL, TILE, SMALL, FISH = 28, 16, 15, 12
"""Heights of the pictures: characters, tiles, creatures and items, fish."""
BACKDROP_SHIFT = 20
STEP = 2.4  # way between two of the eight pictures of a walk: the feet don't slide
GRAVITY = 72.0  # units a second squared, for jumps and falls alike


class Scenery:
    """All that can be drawn, at one size."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.unit = min(height, width) / 64

    def picture(self, name: str, height: float, mirrored: bool = False) -> Sprite:
        """A sprite, ``height`` units high."""
        return sprite(name, max(1, round(height * self.unit)), mirrored)

    def put(self, frame: npt.NDArray[np.float32], picture: Sprite, x: float, y: float) -> tuple[int, int, int, int]:
        """Draw a sprite whose feet, the middle of its lower edge, stand at (x, y) in units."""
        return draw(frame, picture, x * self.unit, round(y * self.unit))

    def floor(self, over_water: bool) -> float:
        """The ground's upper edge, where feet stand."""
        return self.height / self.unit - (22 if over_water else 12)

    def scenery(
        self, sky: str, ground: str, backdrop: str = "", *, over_water: bool = False, shift: float = 0.0
    ) -> npt.NDArray[np.float32]:
        """Sky, backdrop, water and ground alone: [H, W, 3] in 0..255.

        ``shift``, 0 to `BACKDROP_SHIFT`, moves the backdrop to the right.
        """
        wide, floor = self.width / self.unit, self.floor(over_water)
        stage = self._sky(sky, wide, floor)
        self._backdrop(stage, backdrop, floor, np.array(SKIES[sky][1], np.float32), shift)
        tile = self.picture(f"tiles/{ground}{'Half_mid' if over_water else 'Mid'}", TILE)
        for middle in np.arange(TILE / 2, wide + TILE, TILE):
            if over_water:
                self.put(stage, self.picture("tiles/water", TILE), middle, floor + TILE + 6)
                self.put(stage, self.picture("tiles/waterTop_low", TILE), middle, floor + TILE + 3)
            self.put(stage, tile, middle, floor + TILE)
        return stage

    def _sky(self, sky: str, wide: float, floor: float) -> npt.NDArray[np.float32]:
        """From top to horizon, with stars at night."""
        top, horizon = (np.array(colour, dtype=np.float32) for colour in SKIES[sky])
        down = np.linspace(0, 1, self.height, dtype=np.float32)[:, None, None]
        stage = np.repeat(top * (1 - down) + horizon * down, self.width, axis=1)
        if sky == "night":
            stars = np.random.default_rng(0)  # the same stars every night
            for x_star, y_star in stars.uniform(2, 62, (8, 2)) * (wide / 64, (floor - 14) / 64) * self.unit:
                size = max(1, round(self.unit))
                stage[int(y_star) : int(y_star) + size, int(x_star) : int(x_star) + size] = (225, 225, 200)
        return stage

    def _backdrop(
        self,
        stage: npt.NDArray[np.float32],
        kind: str,
        floor: float,
        horizon: npt.NDArray[np.float32],
        x: float,
    ) -> None:
        """Hills or clouds of flat discs (x, y, radius), in colours near the horizon's; nothing for the empty kind."""
        wide = self.width / self.unit
        discs: list[tuple[float, float, float]]
        if kind == "hills":
            discs = [(x + i, floor + 14 + i % 3 * 4, 26) for i in range(0, int(wide) + 20, 38)]
            lowest, colour = floor + 4, 0.65 * horizon
        elif kind == "clouds":
            puffs = ((-7, 0, 4.5), (0, -2, 6.5), (7, 0, 4.5))
            discs = [(x + i + dx, 14 + i % 3 * 3 + dy, r) for i in range(0, int(wide) + 20, 40) for dx, dy, r in puffs]
            lowest, colour = self.height / self.unit, 0.4 * horizon + 0.6 * 255
        else:
            return
        rows, columns = np.ogrid[: self.height, : self.width]
        for x_disc, y_disc, radius in discs:
            away = np.hypot(columns + 0.5 - x_disc * self.unit, rows + 0.5 - y_disc * self.unit)
            cover = np.clip(radius * self.unit - away + 0.5, 0, 1) * (rows < lowest * self.unit)
            self._cover(stage, cover[..., None].astype(np.float32), colour)

    def _cover(
        self, stage: npt.NDArray[np.float32], cover_HW1: npt.NDArray[np.float32], colour: npt.NDArray[np.float32]
    ) -> None:
        """A part of the backdrop, drawn into the stage."""
        stage += cover_HW1 * (colour - stage)
