"""How closely samples follow controls: clips of the platformer that nobody trained on, drawn again under their signals.

Each clip's caption is sampled without a control, under each kind at several strengths, under all at once, and, for the
conflict of control and prompt, under another caption: other ground, sky and character. What a sample shows is read off
its pixels: by the world's judge (`vpoet.worlds.platformer.sight`), and by the very detector of edges. Their ceiling
is the clip through the tokenizer and back.

    moved    pixels between the figure and where it is in the clip, the median over frames; 64 where nobody is seen
    miou     intersection over union, the mean over what there is of background, ground, creature and character
    f1       of edges, pixel by pixel
    told     share of what the caption states that is seen
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.errors import ConfigError
from vpoet.generate.model import Model
from vpoet.generate.request import ControlClip, Request
from vpoet.generate.sampling import Sampling
from vpoet.media.control import MAKERS, edges
from vpoet.media.video import Video
from vpoet.worlds.platformer.captions import captions
from vpoet.worlds.platformer.layers import LAYERS, labels
from vpoet.worlds.platformer.matching import put
from vpoet.worlds.platformer.scenery import CHARACTERS, GROUNDS, SKIES
from vpoet.worlds.platformer.sight import Sight, Witness
from vpoet.worlds.platformer.world import Platformer

FIRST = 2 * 10**9
"""Number of the first clip: far from those that models are trained on."""
STRENGTHS = (0.25, 0.5, 0.75, 1.0)
"""Beside none, which is 0."""
NOBODY = 64.0
OTHERWISE = {"ground": GROUNDS, "sky": SKIES, "who": CHARACTERS}
"""What another prompt says otherwise, with what there is."""
_PHRASING = 1
_COARSE = np.array([{"ground": 1, "water": 1, "creature": 2, "character": 3}.get(layer, 0) for layer in LAYERS])
_APART, _TRIES = 10**6, 100


@dataclass(frozen=True, slots=True)
class Condition:
    """What a clip is sampled under."""

    name: str
    kinds: tuple[str, ...] = ()
    strength: float = 1.0
    conflict: bool = False
    """The prompt is another one than the clip's."""

    def __str__(self) -> str:
        return f"{self.name}, {self.strength:g}" if self.kinds and not self.conflict else self.name


def conditions(kinds: Sequence[str]) -> list[Condition]:
    """All of a model that reads these kinds."""
    found = [Condition("none")]
    found += [Condition(kind, (kind,), strength) for kind in kinds for strength in STRENGTHS]
    found += [Condition("all", tuple(kinds))] if len(kinds) > 1 else []
    return found + [Condition(f"{kind}, another prompt", (kind,), conflict=True) for kind in kinds]


@dataclass(frozen=True, eq=False, slots=True)
class Clip:
    """A clip of the world, and what is known of it."""

    number: int
    frames: Frames
    facts: dict[str, Any]
    other: dict[str, Any]
    """Facts of another caption for it."""
    controls: dict[str, Frames]
    coarse: npt.NDArray[np.int64]
    """[T, H, W]: background, ground, creature or character."""

    def prompt(self, conflict: bool = False) -> str:
        return captions((self.other if conflict else self.facts)["truth"])[_PHRASING]

    def edited(self, name: str) -> str:
        """Its prompt, but ``name``, one of `OTHERWISE`, is as the other caption has it."""
        return captions(self.facts["truth"] | {name: self.other["truth"][name]})[_PHRASING]


def clips(model: Model, kinds: Sequence[str], count: int) -> Iterator[Clip]:
    """Clips of the model's size; a number whose captions have words that the model never met is passed over for one of
    the millions behind it. ConfigError: the model knows other words than the world's."""
    config = model.bundle.config
    world = Platformer(config.height, config.width, config.fps, config.frames)
    for first in range(FIRST, FIRST + count):
        for number in range(first, first + _TRIES * _APART, _APART):
            frames, facts = world.clip(number)
            truth = facts["truth"]
            after = {
                name: list(values)[(list(values).index(truth[name]) + 1) % len(values)]
                for name, values in OTHERWISE.items()
            }
            other = facts | {"truth": truth | after}
            strange = [word for each in (facts, other) for word in model.unknown(captions(each["truth"])[_PHRASING])]
            if not strange:
                break
        else:
            raise ConfigError(f"this model does not know the words of the platformer's captions ({strange[0]} ...)")
        found = {kind: signal(world, number, kind, frames) for kind in kinds}
        yield Clip(number, frames, facts, other, found, _COARSE[labels(world.control(number, "segmentation"))])


def signal(world: Platformer, number: int, kind: str, frames: Frames) -> Frames:
    """A control's pictures: of the clip's own, where that is how they are made, or as the world knows them."""
    return MAKERS[kind](frames) if kind in MAKERS else world.control(number, kind)


def sampled(model: Model, some: Sequence[Clip], condition: Condition, sampling: Sampling) -> list[Frames]:
    """A sample of each clip under a condition, with the clip's number for a seed."""
    config = model.bundle.config
    documents = []
    for clip in some:
        told = [
            ControlClip(kind, Video(clip.controls[kind], config.fps), condition.strength) for kind in condition.kinds
        ]
        documents.append(model.document(Request(prompt=clip.prompt(condition.conflict), control=tuple(told))))
    decoded = model.decode(documents, [clip.number for clip in some], sampling)
    return [model.bundle.video.decode(each.document.codes()) for each in decoded]


def judged(witness: Witness, clip: Clip, reference: Sight, frames: Frames, conflict: bool = False) -> dict[str, float]:
    """The figures of a sample; ``reference`` is what is seen of the clip through the tokenizer and back."""
    sight = witness.look(frames)
    stated = Platformer.stated(clip.other if conflict else clip.facts, _PHRASING)
    told = [sight.shown[name] == value for name, value in stated.items() if name in sight.shown]
    drawn, wanted = (edges(each)[..., 0] > 0 for each in (frames, clip.frames))
    return {
        "moved": moved(reference, sight),
        "miou": mean_iou(clip.coarse, coarse(sight, frames.shape[1:3])),
        "f1": 2 * float((drawn & wanted).sum()) / max(1.0, float(drawn.sum() + wanted.sum())),
        "told": float(np.mean(told)),
    }


def moved(before: Sight, after: Sight) -> float:
    if not before.character or not after.character:
        return NOBODY
    ways = [np.hypot(a[1] - b[1], a[2] - b[2]) for a, b in zip(before.character, after.character, strict=True)]
    return float(np.median(ways))


def coarse(sight: Sight, size: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """[T, H, W]: what the judge saw, as `Clip.coarse` has it."""
    found = np.zeros((max(len(sight.character), len(sight.creature), 1), *size), np.int64)
    found[:, sight.floor :] = 1
    for value, places in ((2, sight.creature), (3, sight.character)):
        for frame, (sprite, row, column) in zip(found, places, strict=False):
            cover = np.zeros((*size, 3), np.float32)
            put(cover, sprite._replace(pixels=sprite.pixels[..., [3, 3, 3, 3]]), column, row)
            frame[cover[..., 0] >= 0.5] = value
    return found


def mean_iou(wanted: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Over the classes that either has; of a picture for all frames, or one each."""
    found = np.broadcast_to(found, wanted.shape) if len(found) == 1 else found
    shares = []
    for value in np.union1d(wanted, found):
        a, b = wanted == value, found == value
        shares.append((a & b).sum() / (a | b).sum())
    return float(np.mean(shares))


def summary(rows: Sequence[dict[str, Any]], ceiling: dict[str, float]) -> dict[str, float]:
    """Of a condition's rows: the median way, means of the others, and miou and f1 as shares of the ceiling's, where
    that is above 0."""
    found = {name: float(np.mean([row[name] for row in rows])) for name in ("miou", "f1", "told")}
    found |= {f"{name}_of_ceiling": found[name] / ceiling[name] for name in ("miou", "f1") if ceiling.get(name)}
    return {"moved": float(np.median([row["moved"] for row in rows])), **found}
