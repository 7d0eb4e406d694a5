"""Clips of the platformer world with one fault each, to try a judge on."""

from collections.abc import Callable
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.worlds.platformer.scenery import CHARACTERS, CREATURES, TALL
from vpoet.worlds.platformer.sprites import Sprite
from vpoet.worlds.platformer.world import Platformer

GHOST = 0.7
"""Opacity."""


class _Deserted(Platformer):
    """Without the character."""

    def picture(self, name: str, height: float, mirrored: bool = False) -> Sprite:
        sprite = super().picture(name, height, mirrored)
        return sprite._replace(pixels=0 * sprite.pixels) if name.startswith("animated_characters/") else sprite


class _SecondCreature(Platformer):
    """With a creature that no caption tells of, of another kind than the first."""

    def _stage(self, truth: dict[str, Any], *rest: Any) -> Any:
        stage, random = super()._stage(truth, *rest), rest[-1]
        known = [creature["name"] for creature in truth["creatures"]]
        others = [name for name, (motion, _) in CREATURES.items() if motion != "swim" and name not in known]
        name, direction = str(random.choice(others)), str(random.choice(("left", "right")))
        truth["creatures"].append({"name": name, "motion": CREATURES[name][0], "direction": direction})
        return stage


class _SecondFigure(Platformer):
    """With another character that stands beside the first."""

    def _stage(self, truth: dict[str, Any], floor: float, *rest: Any) -> Any:
        stage, x, random = super()._stage(truth, floor, *rest), rest[1], rest[-1]
        other = random.choice([path for who, path in CHARACTERS.items() if who != truth["who"]])
        wide = self.width / self.unit
        self.put(
            stage, self.picture(f"animated_characters/{other}_idle", TALL), 12 if 2 * x > wide else wide - 12, floor
        )
        return stage


class _Gliding(Platformer):
    """With a character whose picture does not change while it moves."""

    def _act(self, *given: Any) -> Any:
        x_T, y_T, poses, controls = super()._act(*given)
        return x_T, y_T, [poses[0]] * len(poses), controls


def _shuffled(seed: int) -> Frames:
    frames = Platformer().clip(seed)[0]
    return frames[np.random.default_rng(seed).permutation(len(frames))]


def _every_other(seed: int) -> Frames:
    frames = Platformer().clip(seed)[0].copy()
    frames[1::2] = _Deserted().clip(seed)[0][1::2]
    return frames


def _ghost(seed: int) -> Frames:
    frames, empty = (world.clip(seed)[0].astype(np.float32) for world in (Platformer(), _Deserted()))
    return (GHOST * frames + (1 - GHOST) * empty + 0.5).astype(np.uint8)


CORRUPTIONS: dict[str, Callable[[int], Frames]] = {
    "shuffled": _shuffled,
    "reversed": lambda seed: Platformer().clip(seed)[0][::-1].copy(),
    "frozen": lambda seed: Platformer().clip(seed)[0][:1].repeat(17, axis=0),
    "figure in every other frame": _every_other,
    f"ghost, {GHOST:.0%} opaque": _ghost,
    "unasked second creature": lambda seed: _SecondCreature().clip(seed)[0],
    "unasked second figure": lambda seed: _SecondFigure().clip(seed)[0],
    "figure that glides": lambda seed: _Gliding().clip(seed)[0],
}
"""Of a clip's number, the clip with a fault; it is the clip itself where that changes nothing, as who stands can be
reversed."""
