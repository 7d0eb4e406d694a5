"""Could the platformer world have drawn this clip? What moves keeps its order, is in every frame, opaque, and alone.

`vpoet.worlds.platformer.sight` says what a clip shows; shuffled, with a ghost for a figure, or with a second creature,
a clip shows the same. Here all that was seen is drawn again and laid over the clip:

    order      the character keeps to a law of motion of the world, and its pictures are those that go with the motion;
               a creature looks to where it goes
    presence   in each frame character and creature explain most of what they change there
    opacity    they stand out from what is behind them as much as their sprites do
    alone      what is left over holds no second creature and no second figure

Thresholds lie between clips of the world that went through a tokenizer and clips with one fault each, which
`python tests/bench judge` counts. Tokenizers lose fine structure first, so that shares are taken of softened pictures.

Shapes: T frames; K motions; H, W sides of a frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vpoet.arrays import Doubles, Frames
from vpoet.worlds.platformer.matching import View, blur, put
from vpoet.worlds.platformer.scenery import CHARACTERS, GRAVITY, STEP, TALL
from vpoet.worlds.platformer.sight import Places, Sight, Witness
from vpoet.worlds.platformer.sprites import Sprite

FAULTS = ("order", "presence", "opacity", "alone")

TOLERANCE = 3.0
"""Units that a figure may be off the law of its motion."""
MARGIN = {"walk": -0.01, "climb": -0.05, "jump": 0.02}
"""By how much of the character's energy the right pictures have to explain a clip better than wrong ones. Below 0 where
a tokenizer loses the difference: a figure that glides through the world's own clips is at -0.1 and less."""
THERE = 0.5
"""Share of its change that has to be explained in every frame."""
OPAQUE = 0.85
"""Contrast to the background in the median frame, 1 where the sprite is what is seen."""
SECOND = 0.35
"""Gain, as a share of the energy, from which on a second creature or figure is there."""
FEW = 2
"""Frames in which a second figure may seem to be there."""
SOFT = 2.0
"""Standard deviation in pixels of what shares are taken of."""
_COVERED = 0.02
_LEAST = 1.0
"""Energy, so that nothing is divided by none."""

Layers = npt.NDArray[np.float32]
"""A clip [T, H, W, 3] in 0..255."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One moving thing, drawn."""

    places: Places
    behind: Layers
    """The clip as it is drawn without it and what covers it."""
    clip: Layers
    """What was to be explained."""
    covered: Layers
    """[T, H, W, 1], 1 where something stands before it."""
    energy: float

    @classmethod
    def of(cls, places: Places, drawn: Layers, clip: Layers, covered: Layers) -> "Layer":
        """Draws it into ``drawn``, in place."""
        behind = drawn.copy()
        for frame, (sprite, row, column) in zip(drawn, places, strict=True):
            put(frame, sprite, column, row)
        return cls(places, behind, clip, covered, float(np.square(drawn - behind).sum()) + _LEAST)

    def explained(self, drawn: Layers) -> tuple[Doubles, Doubles]:
        """[T] share of its change that it explains, and contrast; NaN in frames where most of it is covered."""
        change = drawn - self.behind
        whole = np.square(change).sum((1, 2, 3))
        change, found = change * (1 - self.covered), (self.clip - self.behind) * (1 - self.covered)
        seen = np.square(change).sum((1, 2, 3)) > 0.3 * whole + _LEAST
        change, found = soften(change), soften(found)
        energy = np.square(change).sum((1, 2, 3)) + _LEAST
        outline = np.abs(change) > 2  # of 255
        share = 1 - (np.square(found - change) * outline).sum((1, 2, 3)) / energy
        contrast = (change * found).sum((1, 2, 3)) / energy
        return np.where(seen, share, np.nan), np.where(seen, contrast, np.nan)

    def error(self, sprites: Sequence[Sprite]) -> float:
        """What these sprites, one per frame, leave unexplained at its places, as a share of its energy."""
        total = 0.0
        for t, (sprite, (_, row, column)) in enumerate(zip(sprites, self.places, strict=True)):
            frame = self.behind[t].copy()
            put(frame, sprite, column, row)
            total += float((np.square(frame - self.clip[t]) * (1 - self.covered[t])).sum())
        return total / self.energy


@torch.inference_mode()
def faults(witness: Witness, sight: Sight, frames: Frames) -> tuple[str, ...]:
    """Those of `FAULTS` that a clip uint8 [T, H, W, 3] has, ``sight`` being what the witness saw in it."""
    clip = frames.astype(np.float32)
    drawn = np.repeat(sight.stage[None], len(clip), axis=0)
    layers = []
    covered = np.zeros_like(clip[..., :1])
    for mask, (sprite, row, column) in zip(covered, sight.character, strict=bool(sight.character)):
        alpha = np.zeros(clip.shape[1:], np.float32)
        put(alpha, sprite._replace(pixels=sprite.pixels[..., [3, 3, 3, 3]]), column, row)
        mask[:] = alpha[..., :1] > _COVERED
    found = set()
    for places, before in ((sight.creature, covered), (sight.character, np.zeros_like(covered))):
        if places:
            layers.append(Layer.of(places, drawn, clip, before))
            # what is drawn later covers it, so that it is looked at as it is now
            share, contrast = layers[-1].explained(drawn)
            if np.isnan(share).all():
                continue
            if np.nanmin(share) < THERE:
                found.add("presence")
            if np.nanmedian(contrast) < OPAQUE:
                found.add("opacity")
    if sight.creature and not _looks_ahead(layers[0]):
        found.add("order")
    if sight.character and not _in_order(witness, sight, layers[-1]):
        found.add("order")
    if _another(witness, sight, clip, drawn, covered):
        found.add("alone")
    return tuple(name for name in FAULTS if name in found)


def _looks_ahead(creature: Layer) -> bool:
    """It explains more than its mirror image would."""
    mirrored = [
        Sprite(sprite.pixels[:, ::-1], -sprite.left - sprite.pixels.shape[1], sprite.top)
        for sprite, _, _ in creature.places
    ]
    return creature.error([sprite for sprite, _, _ in creature.places]) <= creature.error(mirrored)


def _in_order(witness: Witness, sight: Sight, character: Layer) -> bool:
    """It moves by a law of the world, in pictures that go with that."""
    world, action, direction = witness.world, sight.shown["action"], sight.shown["direction"]
    y_T, x_T = (np.array([place[axis] for place in sight.character]) / world.unit for axis in (1, 2))
    seconds_T, floor = np.arange(len(y_T)) / witness.fps, sight.floor / world.unit
    y_KT = heights(action, direction, seconds_T, floor)
    law_T = y_KT[np.abs(y_KT - y_T).max(1).argmin()]
    x_law_T: npt.NDArray[np.floating] = np.full(len(x_T), np.median(x_T))
    if action == "walk" and len(x_T) > 1:
        x_law_T = np.polyval(np.polyfit(seconds_T, x_T, 1), seconds_T)
    if max(np.abs(y_T - law_T).max(), np.abs(x_T - x_law_T).max()) > TOLERANCE:
        return False
    path = f"animated_characters/{CHARACTERS[sight.shown['who']]}_"

    def error(names: Sequence[str]) -> float:
        return character.error([world.picture(path + name, TALL, direction == "left") for name in names])

    right, wrong = pictures(action, x_law_T, law_T, floor)
    return not wrong or min(map(error, wrong)) - min(map(error, right)) > MARGIN[action]


def pictures(
    action: str, x_T: npt.NDArray[np.floating], y_T: Doubles, floor: float
) -> tuple[list[list[str]], list[list[str]]]:
    """The pictures of a motion, right ones (a walk may begin with any) and wrong ones: one for all, or the reverse."""
    count = len(x_T)
    if action == "walk":
        phase_T = np.abs(x_T - x_T[0]) / STEP
        walks = [[f"walk{int(phase + first) % 8}" for phase in phase_T] for first in range(8)]
        return walks, [[f"walk{one}"] * count for one in range(8)]
    if action == "climb":
        climbs = [[f"climb{int(y / 3 + first) % 2}" for y in y_T] for first in range(2)]
        return climbs, [["climb0"] * count, ["climb1"] * count]
    if action == "jump":
        rising_T = np.gradient(y_T) < 0
        jump = ["idle" if y > floor - 0.5 else "jump" if up else "fall" for y, up in zip(y_T, rising_T, strict=True)]
        swapped = {"idle": "idle", "jump": "fall", "fall": "jump"}
        return [jump], [[swapped[name] for name in jump], *([name] * count for name in ("idle", "jump", "fall"))]
    return [], []


def heights(action: str, direction: str, seconds_T: Doubles, floor: float) -> Doubles:
    """[K, T] where the feet can be, in units, by all motions of an action."""
    if action == "jump":
        rise_K, start_K = _grid(np.arange(8, 15.1, 0.5), np.arange(0, 1.75, 1 / 32))
        speed_K = np.sqrt(2 * GRAVITY * rise_K)
        airborne_K = 2 * speed_K / GRAVITY
        since_KT = (seconds_T + start_K) % (airborne_K + 0.375)
        return floor - np.where(since_KT < airborne_K, since_KT * (speed_K - GRAVITY / 2 * since_KT), 0)
    if action == "fall":
        (start_K,) = _grid(np.arange(14, 30, 0.5))
        return np.minimum(start_K + GRAVITY / 2 * seconds_T**2, floor)
    if action == "climb":
        speed_K, start_K = _grid(np.arange(7, 16, 0.5), np.arange(TALL - 8, floor + 8, 0.5))
        return np.clip(start_K + (-speed_K if direction == "up" else speed_K) * seconds_T, TALL, floor)
    return np.full((1, len(seconds_T)), floor)


def _grid(*axes: Doubles) -> list[Doubles]:
    return [axis.ravel()[:, None] for axis in np.meshgrid(*axes)]


def _another(witness: Witness, sight: Sight, clip: Layers, drawn: Layers, covered: Layers) -> bool:
    """A second creature, or a second figure in more than `FEW` frames."""
    clip_T3HW, drawn_T3HW = (torch.from_numpy(each).permute(0, 3, 1, 2) / 255 for each in (clip, drawn))
    hidden_T1HW = torch.from_numpy(covered).permute(0, 3, 1, 2)
    second, _ = witness.creature(View.of(clip_T3HW, drawn_T3HW, hidden_T1HW), sight.floor, SECOND)
    return bool(second) or int((witness.figures(View.of(clip_T3HW, drawn_T3HW), sight.floor) > SECOND).sum()) > FEW


def soften(layers: Layers) -> Layers:
    """Blurred by `SOFT`."""
    softened: Layers = blur(torch.from_numpy(layers).permute(0, 3, 1, 2), SOFT).permute(0, 2, 3, 1).numpy()
    return softened
