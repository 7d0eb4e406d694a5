"""A comparison as a value, and what moved its distance: what is needed to look at it, beyond its figures.

Shapes: P real clips, N samples, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Doubles
from vpoet.evaluate.compare.clips import Clip, prepared
from vpoet.evaluate.compare.features import Features, Watch
from vpoet.evaluate.compare.measures import Point, distances
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import Row, notes, of_sets
from vpoet.evaluate.distances import frechet
from vpoet.evaluate.looks import looks

LOOKED = 32
"""Clips of each set that are looked at again, for what their pixels are like."""


@dataclass(frozen=True, eq=False)
class Compared:
    """What was compared, and what was found."""

    about: str
    protocol: Protocol
    real: Sequence[Clip]
    """P clips; the first N of them are those that the samples are compared with."""
    fake: Sequence[Clip]
    real_PD: Doubles
    fake_ND: Doubles
    rows: list[Row]
    points: list[Point]
    notes: list[str]

    @property
    def ours(self) -> Doubles:
        """Features [N, D] of the real clips that the samples are compared with."""
        return self.real_PD[: len(self.fake_ND)]


def compared(
    about: str,
    rules: Protocol,
    features: Features,
    real: Sequence[Clip],
    fake: Sequence[Clip],
    times: int,
    watched: Watch,
) -> Compared:
    """Distances and diversity of N samples beside the first N real clips; of the others at most N more, for the floor.
    The protocol says how many N is; ``times`` sets are drawn anew for the intervals."""
    real, fake = real[: 2 * rules.count], fake[: rules.count]
    known = features.of(real, True, watched)
    judged = features.of(fake, False, watched)
    rows, points = of_sets(rules, known, judged, times)
    return Compared(about, rules, real, fake, known, judged, rows, points, notes(rules, judged.shape[1]))


def terms(found: Compared) -> tuple[float, float]:
    """The two that add up to the Frechet distance: that of the means, squared, and that of the covariances."""
    means = float(np.square(found.ours.mean(0) - found.fake_ND.mean(0)).sum())
    return means, max(0.0, frechet(found.ours, found.fake_ND) - means)


def along(found: Compared) -> tuple[Doubles, Doubles]:
    """Where clips lie, [N] real ones and [N] samples, on the line from the real clips' mean (0) to the samples' (1)."""
    start = found.ours.mean(0)
    line = found.fake_ND.mean(0) - start
    scale = max(float(line @ line), float(np.finfo(np.float64).tiny))
    return (found.ours - start) @ line / scale, (found.fake_ND - start) @ line / scale


def pairs(found: Compared) -> list[tuple[int, int, float]]:
    """Each sample, the real clip beside it and their distance in features, from the nearest pair on: the clip of its
    own name if all have one, and else the one that is nearest."""
    across = distances(found.fake_ND, found.ours)
    names = {clip.name: at for at, clip in enumerate(found.real[: len(across)])}
    if all(clip.name in names for clip in found.fake):
        beside = [names[clip.name] for clip in found.fake]
    else:
        beside = [int(at) for at in across.argmin(1)]
    rows = [(at, other, float(across[at, other])) for at, other in enumerate(beside)]
    return sorted(rows, key=lambda row: row[2])


def moved(found: Compared) -> list[tuple[str, float, float, float]]:
    """What the pixels of at most `LOOKED` clips of each set are like: measure, mean of real clips, of samples, and the
    difference in deviations of a real clip; the largest first."""
    sets = []
    for clips, real in ((found.real, True), (found.fake, False)):
        rows = [looks(prepared(clip, found.protocol, real).frames) for clip in clips[:LOOKED]]
        sets.append({name: np.array([row[name] for row in rows]) for name in rows[0]})
    ours, theirs = sets
    result = []
    for name, values in ours.items():
        mean, other = float(values.mean()), float(theirs[name].mean())
        deviation = float(values.std(ddof=1))
        result.append((name, mean, other, (other - mean) / deviation if deviation else 0.0))
    return sorted(result, key=lambda row: -abs(row[3]))
