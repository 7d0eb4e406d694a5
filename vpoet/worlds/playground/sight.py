"""What a frame of the playground shows, told by its pixels alone: the measuring stick of tokenizers and learned worlds.

Each frame is judged by itself, by matching it against all that can be drawn (`vpoet.worlds.platformer.matching`): the
stage that differs least, with differences cut off where something stands before it; the character, in the pose and at
the place that explains most; the coin, at the place of the level that explains most.

Shapes: T frames; N stages or sprites; H, W sides of a frame; Y, X row and column of the feet.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.arrays import Frames
from vpoet.errors import ShapeError
from vpoet.worlds.platformer.matching import AROUND, Canvases, Stage, View, picture, put
from vpoet.worlds.platformer.scenery import GROUNDS, SKIES
from vpoet.worlds.platformer.sprites import Sprite
from vpoet.worlds.playground.drawing import POSES, Painter
from vpoet.worlds.playground.levels import Level
from vpoet.worlds.playground.physics import DROWNED, HEAD

PRESENT = 0.1
"""Gain, as a share of the energy, from which on something is there."""
OUTLIER = 0.15
"""A difference of colours, of 1, beyond which it counts no more."""
SCENE_SIDE = 32
"""Stages are compared at about so many pixels a side."""
PLAIN = tuple(pose for pose in POSES if not pose[0].startswith("walk"))
"""They say where somebody is; which pose it is, all are asked then."""
AT_ONCE = 16
"""Frames that are judged together: more would only need memory."""


def action(name: str) -> str:
    """What a figure of this picture does."""
    return {"idle": "stand"}.get(name, name.rstrip("0123456789"))


class Judge:
    """Sees frames of one painter's size."""

    def __init__(self, painter: Painter, levels: Sequence[Level], size: tuple[int, int]) -> None:
        self._painter, self._levels, self._size = painter, levels, size
        self._names = [(who, action(name), left) for who in painter.figures for name, left in POSES]
        sprites = [sprite for poses in painter.figures.values() for sprite in poses]
        self._figures = Canvases.of(sprites)
        self._plain = [
            poses[at] for poses in painter.figures.values() for at, pose in enumerate(POSES) if pose in PLAIN
        ]
        self._halved = Canvases.of(self._plain, halve=True)
        self._coin = Canvases.of([painter.coin])
        self._pool = max(1, min(size) // SCENE_SIDE)
        self._top = round((painter.floor - 30) * painter.unit)  # only sky, coin and character are higher
        self._scenes: dict[str, Tensor] = {}
        self._skies = self._pooled([painter.stage(GROUNDS[0], sky, levels[0])[: self._top] for sky in SKIES])

    @torch.inference_mode()
    def look(self, frames: Frames) -> list[dict[str, Any]]:
        """As `Playground.see` says, of frames uint8 [T, H, W, 3]."""
        if frames.ndim != 4 or frames.shape[1:] != (*self._size, 3) or frames.dtype != np.uint8:
            high, wide = self._size
            raise ShapeError(f"this playground sees uint8 [T, {high}, {wide}, 3], not {frames.dtype} {frames.shape}")
        return [seen for at in range(0, len(frames), AT_ONCE) for seen in self._look(frames[at : at + AT_ONCE])]

    def _look(self, frames: Frames) -> list[dict[str, Any]]:
        frames_T3HW = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        scenes = [self._scene(frame) for frame in frames]
        levels = [self._levels[number] for _, _, number in scenes]
        stages = [self._painter.stage(ground, sky, self._levels[n]).astype(np.float32) for ground, sky, n in scenes]
        view = View.of(frames_T3HW, _stack(stages))
        near = self._place(View.of(frames_T3HW, self._with_coins(stages, self._coins(view, levels))))
        silhouettes = [
            _silhouette(stage, self._plain[at], x, y) for stage, (at, x, y) in zip(stages, near, strict=True)
        ]
        coins = self._coins(View.of(frames_T3HW, _stack(stages), torch.stack(silhouettes)), levels)
        figures = self._figure(View.of(frames_T3HW, self._with_coins(stages, coins)), near)
        told = []
        for (ground, sky, number), figure, coin in zip(scenes, figures, coins, strict=True):
            who, doing, left = self._names[figure[0]] if figure else ("", "", None)
            x, y = (at / self._painter.unit for at in figure[1:]) if figure else (None, None)
            facing = "" if left is None else "left" if left else "right"
            told.append(
                {"who": who, "ground": ground, "sky": sky, "level": number, "x": x, "y": y}
                | {"action": doing, "facing": facing, "coin": list(coin or ())}
            )
        return told

    def _scene(self, frame: Frames) -> tuple[str, str, int]:
        """Ground, sky, and number of the level."""
        sky = list(SKIES)[_nearest(self._pooled([frame[: self._top]]), self._skies)]
        if sky not in self._scenes:
            self._scenes[sky] = self._pooled([self._painter.stage(g, sky, n) for g in GROUNDS for n in self._levels])
        ground, number = divmod(_nearest(self._pooled([frame]), self._scenes[sky]), len(self._levels))
        return GROUNDS[ground], sky, number

    def _pooled(self, stages: Sequence[Frames]) -> Tensor:
        stages_N3HW = torch.from_numpy(np.stack(stages)).permute(0, 3, 1, 2).float() / 255
        return F.avg_pool2d(stages_N3HW, self._pool)

    def _place(self, view: View) -> list[tuple[int, int, int]]:
        """In each frame: the plain sprite that fits best at half size, and about where its feet are: column and row."""
        unit, painter = self._painter.unit, self._painter
        rows = range(round(HEAD * unit) // 2, round((painter.floor + DROWNED) * unit) // 2 + 1)
        gain_TNYX, _ = self._halved.match(view.halved(), rows)
        high, wide = gain_TNYX.shape[2:]
        best = [divmod(at, high * wide) for at in gain_TNYX.flatten(1).argmax(1).tolist()]
        return [(sprite, 2 * (place % wide), 2 * (place // wide + rows.start)) for sprite, place in best]

    def _figure(self, view: View, near: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int] | None]:
        """Of each frame: the character's sprite, and column and row of its feet; None where nobody is."""
        columns_T, rows_T = (torch.tensor([place[axis] for place in near]) for axis in (1, 2))
        gain_TNYX, energy_TNYX = self._figures.match_around(view, rows_T, columns_T)
        wide = gain_TNYX.shape[3]
        best_T, at_T = gain_TNYX.flatten(1).max(1)
        energy_T = energy_TNYX.flatten(1).gather(1, at_T[:, None])[:, 0]
        found: list[tuple[int, int, int] | None] = []
        for t, (gain, energy, at) in enumerate(zip(best_T.tolist(), energy_T.tolist(), at_T.tolist(), strict=True)):
            sprite, place = divmod(at, wide**2)
            row, column = int(rows_T[t]) + place // wide - AROUND, int(columns_T[t]) + place % wide - AROUND
            found.append((sprite, column, row) if gain > PRESENT * energy else None)
        return found

    def _coins(self, view: View, levels: Sequence[Level]) -> list[tuple[int, int] | None]:
        """The middle of each frame's coin, in units; None where there is none."""
        places_T = [[self._painter.place_of_coin(coin) for coin in level.coins] for level in levels]
        gains_K, energies_K = [], []
        for at_T in zip(*places_T, strict=True):
            columns_T, rows_T = torch.tensor(at_T).T
            gain_T1YX, energy_T1YX = self._coin.match_around(view, rows_T, columns_T)
            gains_K.append(gain_T1YX[:, 0, AROUND, AROUND])
            energies_K.append(energy_T1YX[:, 0, AROUND, AROUND])
        gain_T, best_T = torch.stack(gains_K).max(0)
        energy_T = torch.stack(energies_K).gather(0, best_T[None])[0]
        found = zip(levels, best_T.tolist(), (gain_T > PRESENT * energy_T).tolist(), strict=True)
        return [level.coins[best] if there else None for level, best, there in found]

    def _with_coins(self, stages: Sequence[Stage], coins: Sequence[tuple[int, int] | None]) -> Tensor:
        drawn = [stage.copy() for stage in stages]
        for stage, coin in zip(drawn, coins, strict=True):
            if coin:
                put(stage, self._painter.coin, *self._painter.place_of_coin(coin))
        return _stack(drawn)


def _silhouette(stage: Stage, sprite: Sprite, x: int, y: int) -> Tensor:
    """[1, H, W], 1 where the character is, or so near that its blur is."""
    alpha = np.zeros_like(stage)
    put(alpha, sprite._replace(pixels=255 * sprite.pixels[..., [3, 3, 3, 3]]), x, y)
    return F.max_pool2d(picture(alpha)[:1], 2 * AROUND + 1, 1, AROUND)


def _stack(stages: Sequence[Stage]) -> Tensor:
    return torch.stack([picture(stage) for stage in stages])


def _nearest(picture_13HW: Tensor, stages_N3HW: Tensor) -> int:
    return int((picture_13HW - stages_N3HW).abs().clamp(max=OUTLIER).flatten(1).mean(1).argmin())
