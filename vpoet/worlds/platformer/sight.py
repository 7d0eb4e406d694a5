"""What a clip of the platformer world shows, found by matching it against all that the world can draw.

Nothing is trained and nobody is asked: the world is a known generator (`vpoet.worlds.platformer.matching`). An
attribute is that of the greatest gain over poses, places and frames; and "", nothing, where not even that reaches
`PRESENT` of the energy. Whether the world could have drawn the clip as a whole is asked in
`vpoet.worlds.platformer.consistency`.

Known things are taken up one after the other, each into the background of the next, or, the character, as what hides
it: sky and ground, backdrop, ladder, character, item, creature.

Shapes: T frames; N sprites; H, W sides of a frame; Y, X row and column of the feet; h, w sides of a canvas.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.arrays import Frames
from vpoet.errors import ShapeError
from vpoet.worlds.platformer.matching import AROUND, Canvases, Stage, View, picture, put
from vpoet.worlds.platformer.scenery import (
    BACKDROP_SHIFT,
    BACKDROPS,
    CHARACTERS,
    CREATURES,
    FISH,
    GROUNDS,
    ITEMS,
    SKIES,
    SMALL,
    SPEEDS,
    TALL,
    TILE,
    Scenery,
)
from vpoet.worlds.platformer.sprites import Sprite

SEEN = ("who", "action", "direction", "ground", "sky", "creature")
"""The attributes that a witness tells, by their names in `Platformer.attributes`."""
PRESENT = 0.1
"""Gain, as a share of the energy, from which on something is there."""
IN_VIEW = 0.15
"""Share of its energy that must not be hidden."""
OUTLIER = 0.15
"""A difference of colours, of 1, beyond which it counts no more: something stands before the scenery there."""

_WALKS = tuple(f"walk{i}" for i in range(8))
_STILL = ("idle", "jump", "fall", "climb0", "climb1")
POSES = tuple((name, False) for name in _STILL + _WALKS) + tuple((name, True) for name in _WALKS)
"""A character's picture, and whether it is mirrored: all that the world draws."""

# In the world's units. The least way of a walk is 26 in 2 seconds, the least height of a jump 9.
_WALKED, _MOVED, _RISEN = 6.0, 4.0, 4.5
_HIGHEST_FEET = 16
_NEVER = -1e9

Track = list[tuple[int, int, int]]
"""Of each frame: the character's sprite, and row and column of its feet, in pixels."""
Places = list[tuple[Sprite, int, int]]
"""The same with the sprite itself."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What a witness saw, and where."""

    shown: dict[str, str]
    """`SEEN`, with the values of `Platformer.attributes`, "" for none."""
    stage: Stage
    """All that stands still, as the world draws it."""
    floor: int
    """The row where feet stand, in pixels."""
    poses: tuple[tuple[str, bool], ...]
    """Of each frame: the character's picture, one of `POSES`."""
    character: Places
    creature: Places
    """Where nobody and nothing is, they are empty."""


class Witness:
    """Sees clips of one size and rate."""

    def __init__(
        self,
        height: int = 64,
        width: int = 64,
        fps: float = 8.0,
        characters: Mapping[str, str] = CHARACTERS,
        scenery: Callable[[int, int], Scenery] = Scenery,
    ) -> None:
        """``characters``: who can be seen, as `CHARACTERS`, and ``scenery`` draws them: others than the world has make
        a judge of others. DataError where the sprites are not installed."""
        self.world, self.fps, self._names = scenery(height, width), fps, tuple(characters)
        picture = self.world.picture
        people = [f"animated_characters/{path}" for path in characters.values()]
        self._people = [picture(f"{path}_{pose}", TALL, mirrored) for path in people for pose, mirrored in POSES]
        self._items = [picture(path, SMALL) for path in ITEMS.values()]
        self._characters, self._halved = Canvases.of(self._people), Canvases.of(self._people, halve=True)
        stage, grounds = self.world.scenery, [(ground, wet) for wet in (False, True) for ground in GROUNDS]
        self._stages = {sky: _stack([stage(sky, ground, over_water=wet) for ground, wet in grounds]) for sky in SKIES}
        self._stages["skies"] = torch.stack([self._stages[sky][len(GROUNDS)] for sky in SKIES])
        self._creatures = {}
        for name, (motion, files) in CREATURES.items():
            for sign in (-1, 1):
                size = FISH if motion == "swim" else SMALL
                sprites = [picture(f"enemies/{file}", size, sign > 0) for file in files]
                self._creatures[name, sign] = sprites, Canvases.of(sprites)

    @torch.inference_mode()
    def look(self, frames: Frames) -> Sight:
        """What a clip uint8 [T, H, W, 3] shows, and where. ShapeError for frames of another size."""
        if frames.shape[1:] != (self.world.height, self.world.width, 3):
            raise ShapeError(f"this witness sees {self.world.height}x{self.world.width}, not {list(frames.shape)}")
        frames_T3HW = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        still_3HW = frames_T3HW.median(0).values
        sky, ground, over_water, stage = self._scenery(still_3HW)
        floor = round(self.world.floor(over_water) * self.world.unit)
        self._add(stage, [self._ladder(floor)], View.of(still_3HW[None], stage), floor)

        who, track = self._character(View.of(frames_T3HW, stage), floor)
        action, direction = self._behaviour(track) if who else ("", "")
        hidden_T1HW = self._silhouette(track, frames_T3HW)
        self._add(stage, self._items, View.of(frames_T3HW, stage, hidden_T1HW), floor)
        creature, path = self.creature(View.of(frames_T3HW, stage, hidden_T1HW), floor)
        return Sight(
            dict(zip(SEEN, (who, action, direction, ground, sky, creature), strict=True)),
            stage,
            floor,
            tuple(POSES[sprite % len(POSES)] for sprite, _, _ in track),
            [(self._people[sprite], row, column) for sprite, row, column in track],
            path,
        )

    def _scenery(self, still_3HW: Tensor) -> tuple[str, str, bool, Stage]:
        """Sky, ground, whether there is water, and all that with its backdrop as the world draws it."""
        upper, lower = (round(self.world.floor(wet) * self.world.unit) for wet in (True, False))
        sky = list(SKIES)[_nearest(still_3HW[:, :upper], self._stages["skies"][:, :, :upper])]
        grounds = self._stages[sky]
        over_water = _nearest(still_3HW[:, lower:], grounds[:, :, lower:]) >= len(GROUNDS)
        first, top = (len(GROUNDS), upper) if over_water else (0, lower)
        ground = GROUNDS[_nearest(still_3HW[:, top:], grounds[first : first + len(GROUNDS), :, top:])]
        shifts = np.arange(0, BACKDROP_SHIFT + 0.5, 0.5).tolist()
        choices = [(backdrop, shift) for backdrop in BACKDROPS for shift in (shifts if backdrop else shifts[:1])]
        above = f"{sky} over {'water' if over_water else 'land'}"
        if above not in self._stages:
            drawn = [
                self.world.scenery(sky, GROUNDS[0], backdrop, over_water=over_water, shift=shift)[:top]
                for backdrop, shift in choices
            ]
            self._stages[above] = _stack(drawn)
        backdrop, shift = choices[_nearest(still_3HW[:, :top], self._stages[above])]
        return sky, ground, over_water, self.world.scenery(sky, ground, backdrop, over_water=over_water, shift=shift)

    def _ladder(self, floor: int) -> Sprite:
        """From the floor to the upper edge."""
        tile = self.world.picture("items/ladderMid", TILE)
        pixels = np.zeros((floor, tile.pixels.shape[1], 4), np.float32)
        for bottom in np.arange(floor, 0, -TILE * self.world.unit).round().astype(int):
            top = bottom + tile.top
            pixels[max(top, 0) : bottom] = tile.pixels[max(-top, 0) : bottom - top]
        return Sprite(pixels, tile.left, -floor)

    def _add(self, stage: Stage, sprites: Sequence[Sprite], view: View, floor: int) -> None:
        """Draw the still thing that stands on the floor into the stage, if one of these does."""
        canvases, rows = Canvases.of(sprites), range(floor, floor + 1)
        gain, energy = canvases.match(view, rows)
        whole = canvases.whole(view, rows)[0]
        gain_NX, energy_NX = torch.maximum(gain, -energy).mean(0)[:, 0], energy.mean(0)[:, 0]
        gain_NX[energy_NX < IN_VIEW * whole[:, 0]] = _NEVER
        best, x = divmod(int(gain_NX.argmax()), gain_NX.shape[1])
        if gain_NX[best, x] > PRESENT * energy_NX[best, x]:
            put(stage, sprites[best], x, floor)

    def figures(self, view: View, floor: int) -> Tensor:
        """[T], the greatest gain of a character at any place, as a share of its energy; found at half size."""
        gain, energy = self._halved.match(view.halved(), self._rows(floor))
        return (gain / energy.clamp(min=0.5)).amax((1, 2, 3))

    def _rows(self, floor: int) -> range:
        """Where a character's feet can be, at half size."""
        return range(round(_HIGHEST_FEET * self.world.unit) // 2, floor // 2 + 1)

    def _character(self, view: View, floor: int) -> tuple[str, Track]:
        """Who it is, and its track; "" and no track where there is nobody."""
        rows = self._rows(floor)
        coarse, _ = self._halved.match(view.halved(), rows)
        place_T, wide = coarse.amax(1).flatten(1).argmax(1), coarse.shape[3]
        rows_T, columns_T = 2 * (place_T // wide + rows.start), 2 * (place_T % wide)
        gain, energy = self._characters.match_around(view, rows_T, columns_T)
        best, at = gain.reshape(len(gain), len(self._names), -1).max(2)
        who = int(best.sum(0).argmax())
        wide = gain.shape[3]
        sprite_T, place_T = at[:, who] // wide**2 + who * len(POSES), at[:, who] % wide**2
        whole = energy.flatten(2)[torch.arange(len(gain)), sprite_T, place_T].sum()
        if best[:, who].sum() < PRESENT * whole:
            return "", []
        rows_T, columns_T = rows_T + place_T // wide - AROUND, columns_T + place_T % wide - AROUND
        return self._names[who], list(zip(sprite_T.tolist(), rows_T.tolist(), columns_T.tolist(), strict=True))

    def _behaviour(self, track: Track) -> tuple[str, str]:
        """Action and direction, from where the character goes; only who climbs is told by the pictures (its back)."""
        climbing = sum(POSES[sprite % len(POSES)][0].startswith("climb") for sprite, _, _ in track)
        x_T, y_T = (np.array([place[axis] for place in track]) / self.world.unit for axis in (2, 1))
        some = max(1, len(track) // 4)
        way, sunk = (float(np.median(z[-some:]) - np.median(z[:some])) for z in (x_T, y_T))
        if climbing > len(track) / 2:
            return "climb", "down" if sunk > 0 else "up"
        if abs(way) > _WALKED:
            return "walk", "right" if way > 0 else "left"
        if np.ptp(y_T) < _MOVED:
            return "idle", ""
        risen = (np.maximum.accumulate(y_T) - y_T).max()
        return "jump" if risen > _RISEN else "fall", ""

    def _silhouette(self, track: Track, frames_T3HW: Tensor) -> Tensor:
        """[T, 1, H, W], 1 where the character is, or so near that its blur is."""
        alpha_T1HW = torch.zeros_like(frames_T3HW[:, :1])
        for alpha_1HW, (index, row, column) in zip(alpha_T1HW, track, strict=bool(track)):
            stage = np.zeros((self.world.height, self.world.width, 3), np.float32)
            sprite = self._people[index]
            put(stage, sprite._replace(pixels=255 * sprite.pixels[..., [3, 3, 3, 3]]), column, row)
            alpha_1HW.copy_(picture(stage)[:1])
        return F.max_pool2d(alpha_T1HW, 2 * AROUND + 1, 1, AROUND)

    def creature(self, view: View, floor: int, present: float = PRESENT) -> tuple[str, Places]:
        """The creature whose even way across the picture, somewhere at its height, explains most, and its path.

        That is at least ``present`` of its energy.
        """
        unit, count = self.world.unit, len(view.changing_T5HW)
        seconds, room = (count - 1) / self.fps, self.world.width / unit - 20  # the world keeps 10 on each side
        heights = {"fly": (12 * unit, 19 * unit), "crawl": (floor, floor)}
        heights["swim"] = (self.world.height - 2 * unit, self.world.height)
        frames = torch.arange(count)
        best, found, path = 0.0, "", Places()
        for (name, sign), (sprites, canvases) in self._creatures.items():
            motion = CREATURES[name][0]
            rows = range(round(heights[motion][0]), round(heights[motion][1]) + 1)
            gain, energy = canvases.match(view, rows)
            gain, energy, whole = (
                part.flatten(1, 2).expand(count, -1, -1)
                for part in (torch.maximum(gain, -energy), energy, canvases.whole(view, rows))
            )
            gain_TX, which_TX = gain.max(1)  # any picture of the cycle, any height
            energy_TX, whole_TX = (part.gather(1, which_TX[:, None])[:, 0] for part in (energy, whole))
            slow, fast = (min(speed * seconds, room) for speed in SPEEDS[motion])
            way = sign * unit * torch.linspace(slow / 2, 1.2 * fast, 16)[:, None] * torch.linspace(0, 1, count)
            x_XVT = (torch.arange(gain_TX.shape[1])[:, None, None] + way).round().long()
            x_VT = x_XVT[((x_XVT >= 0) & (x_XVT < gain_TX.shape[1])).all(2)]
            gain_V, energy_V, whole_V = (part[frames, x_VT].sum(1) for part in (gain_TX, energy_TX, whole_TX))
            gain_V[(gain_V < present * energy_V) | (energy_V < IN_VIEW * whole_V)] = _NEVER
            if len(gain_V) and gain_V.max() > best:
                best, found = float(gain_V.max()), name
                x_T = x_VT[gain_V.argmax()]
                x_3T = (x_T + torch.tensor([-1, 0, 1])[:, None]).clamp(0, gain_TX.shape[1] - 1)
                x_T = x_3T.gather(0, gain_TX[frames, x_3T].argmax(0)[None])[0]
                places = zip(which_TX[frames, x_T].tolist(), x_T.tolist(), strict=True)
                path = [(sprites[at // len(rows)], rows[at % len(rows)], x) for at, x in places]
        return found, path


def _stack(stages: Sequence[Stage]) -> Tensor:
    """uint8 [N, 3, H, W]: many are kept."""
    return torch.from_numpy(np.stack(stages).round().astype(np.uint8)).permute(0, 3, 1, 2)


def _nearest(picture_3HW: Tensor, stages_N3HW: Tensor) -> int:
    differences = (255 * picture_3HW - stages_N3HW).abs().clamp(max=255 * OUTLIER)
    return int(differences.flatten(1).mean(1).argmin())
