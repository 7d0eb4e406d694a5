"""Which measure notices which damage: clips made worse rung by rung, and every measure of a comparison at each rung.

Distances are those of damaged clips to *other* clips, which nobody touched, so that rung 0 is the floor; scores of
pairs are those of a damaged clip beside itself. A measure that is any good gets worse at each rung of what it is to
notice, and by more than chance (the interval of rung 0) at an early one.
"""

import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.evaluate.compare.clips import Clip, frame_by_frame, prepared
from vpoet.evaluate.compare.corruptions import CORRUPTIONS, Corruption
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.measures import bootstrap, diversity, mmd, mmd_bootstrap
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import of_pairs
from vpoet.evaluate.distances import frechet
from vpoet.evaluate.plots import Panel, panels_figure
from vpoet.evaluate.tables import markdown
from vpoet.media.video import Video

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDAMAGED = ("", 0)
"""The name of no damage, and its rung."""
PAIRS = 8
"""Clips that are scored beside themselves, at most: SSIM takes longer than features do."""
HIGHER = ("precision", "recall", "density", "coverage", "PSNR", "SSIM")
"""How the names of measures begin that are better the higher they are; all others are better the lower."""

Place = tuple[str, int]
"""A corruption's name and a rung, from 1 on."""
Watched = Callable[[Sequence[Clip]], Iterable[Clip]]
MMD = "MMD x 100"


@dataclass(frozen=True)
class Ladder:
    """What was measured."""

    clips: int
    """Of each set; of pairs, `PAIRS` at most."""
    values: dict[str, dict[str, list[float]]]
    """Measure -> corruption -> value at rung 0 (undamaged), 1, 2 and so on."""
    chance: dict[str, float]
    """Of the measures that have one, half the width of the 95% interval at rung 0."""

    def steps(self, measure: str, corruption: str) -> tuple[int, int]:
        """How many steps up the ladder make the measure worse, and of how many."""
        worse = self._worse(measure, corruption)
        return sum(after > before for before, after in itertools.pairwise(worse)), len(worse) - 1

    def noticed(self, measure: str, corruption: str) -> int | None:
        """The first rung that is worse than rung 0 by more than chance; None for none, or where chance is not known."""
        worse = self._worse(measure, corruption)
        beyond = worse[0] + self.chance.get(measure, np.inf)
        return next((rung for rung, value in enumerate(worse) if value > beyond), None)

    def _worse(self, measure: str, corruption: str) -> list[float]:
        sign = -1 if measure.startswith(HIGHER) else 1
        return [sign * value for value in self.values[measure][corruption]]

    def told(self) -> dict[str, Any]:
        """All of it, for machines."""
        steps = {
            measure: {
                name: {"worse": self.steps(measure, name)[0], "noticed_from": self.noticed(measure, name)}
                for name in curves
            }
            for measure, curves in self.values.items()
        }
        levels = {each.name: list(each.levels) for each in CORRUPTIONS}
        return {"clips": self.clips, "levels": levels, "values": self.values, "chance": self.chance, "steps": steps}


def climb(
    protocol: Protocol, features: Features, others: Sequence[Clip], clips: Sequence[Clip], watched: Watched, times: int
) -> Ladder:
    """Every measure at each rung, of ``clips`` beside as many ``others``; ``times`` sets are drawn for intervals."""
    assert len(others) == len(clips)
    seen: dict[Place, list[Doubles]] = {}
    paired: dict[Place, list[dict[str, float]]] = {}
    for number, clip in enumerate(watched(clips)):
        opened, variants = damaged(clip, protocol)
        named = [replace(variant, name=" ".join(map(str, (clip.name, *place)))) for place, variant in variants.items()]
        for place, row in zip(variants, features.of(named, False), strict=True):
            seen.setdefault(place, []).append(row)
        if number < PAIRS:
            for place, variant in variants.items():
                rows = of_pairs(protocol, [opened], [variant], lambda group: group)
                paired.setdefault(place, []).append({row.measure: row.value for row in rows})
    known = features.of(others, False)
    found = {place: _measured(protocol, known, np.stack(rows)) for place, rows in seen.items()}
    for place, scores in paired.items():
        found[place] |= {name: float(np.mean([each[name] for each in scores])) for name in scores[0]}
    whole = np.stack(seen[UNDAMAGED])
    chance = {
        protocol.title: bootstrap(frechet, known, whole, protocol.seed, times),
        MMD: mmd_bootstrap(known, whole, protocol.seed, times),
    }
    values = {
        measure: {
            each.name: [found[UNDAMAGED][measure], *(found[each.name, rung][measure] for rung in _rungs(each))]
            for each in CORRUPTIONS
        }
        for measure in found[UNDAMAGED]
    }
    return Ladder(len(clips), values, chance)


def _measured(protocol: Protocol, known: Doubles, judged: Doubles) -> dict[str, float]:
    return {protocol.title: frechet(known, judged), MMD: mmd(known, judged)} | diversity(known, judged)


def damaged(clip: Clip, protocol: Protocol) -> tuple[Clip, dict[Place, Clip]]:
    """The clip, and by its place each version of it, undamaged first. It is decoded once for all, and held as long as
    these are; what the protocol does not look at is left out."""

    @functools.cache
    def frames(fps: float) -> Video:
        return clip.read(fps, protocol.span)

    seed = int(hashlib.sha256(f"{protocol.seed} {clip.name}".encode()).hexdigest()[:15], 16)

    def version(each: Corruption, level: float) -> Clip:
        def stream(fps: float) -> tuple[float, Iterator[Frames]]:
            video = frames(fps)
            return frame_by_frame(Video(each.damaged(video.frames, level, seed), video.fps), fps)

        told = f"{clip.content} {each.name} {level:g} {seed}"
        return Clip(clip.name, hashlib.sha256(told.encode()).hexdigest(), stream)

    opened = Clip(clip.name, clip.content, lambda fps: frame_by_frame(frames(fps), fps))
    variants = {
        (each.name, rung): version(each, each.levels[rung - 1]) for each in CORRUPTIONS for rung in _rungs(each)
    }
    return opened, {UNDAMAGED: opened, **variants}


def rows(clip: Clip, protocol: Protocol) -> list[tuple[str, Frames]]:
    """Of a contact sheet: the clip as it is, and at each rung of each ladder."""
    opened, variants = damaged(clip, protocol)
    levels = {each.name: each.levels for each in CORRUPTIONS}
    shown = [("as it is", opened)]
    shown += [(f"{name}, {levels[name][rung - 1]:g}", each) for (name, rung), each in variants.items() if rung]
    return [(label, prepared(each, protocol, False).frames) for label, each in shown]


def table(ladder: Ladder) -> str:
    """Of each measure and corruption, at how many steps it gets worse, and from which rung on by more than chance."""
    heads = ["measure", *(each.name for each in CORRUPTIONS)]
    cells = []
    for measure, curves in ladder.values.items():
        line = [measure]
        for name in curves:
            worse, steps = ladder.steps(measure, name)
            rung = ladder.noticed(measure, name)
            line.append(f"{worse} of {steps}" + ("" if rung is None else f", from {rung}"))
        cells.append(line)
    return markdown(heads, cells, range(len(heads)))


def figure(ladder: Ladder) -> "Figure":
    """A panel for each measure, a curve for each corruption, over the rungs."""

    def curves(of: Mapping[str, Sequence[float]]) -> dict[str, tuple[list[float], Sequence[float]]]:
        return {name: ([float(rung) for rung in range(len(values))], values) for name, values in of.items()}

    return panels_figure([Panel(measure, curves(of)) for measure, of in ladder.values.items()])


def _rungs(corruption: Corruption) -> range:
    return range(1, len(corruption.levels) + 1)
