"""Distances between two sets of features, how sure they are, and how diverse the second set is.

Frechet distance: `vpoet.evaluate.distances.frechet`. Maximum mean discrepancy (Gretton et al., 2012) with the kernel

    k(x, y) = (x . y / D)^2

the mean over all pairs, those of a clip with itself among them (a V-statistic, so not unbiased): JEDi's form (Luo et
al., 2025), who give it times 100, as is done here, of features of V-JEPA.

Precision, recall (Kynkaanniemi et al., 2019), density and coverage (Naeem et al., 2020): with balls around features
that reach to the K-th neighbour in their own set, the share of samples in a ball of the real ones; the share of real
ones in a ball of the samples; the mean number of real balls around a sample, over K; the share of real balls that hold
a sample.

Shapes: N and M clips, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Doubles
from vpoet.errors import ShapeError
from vpoet.evaluate.distances import frechet
from vpoet.evaluate.intervals import NORMAL

PERCENT = 100
K = 5
LEAST = 8
"""Clips of a set: balls to the fifth neighbour, and halves for the floor, mean nothing with fewer."""
REPEATS = 10
"""Draws for each point of a curve."""

Measure = Callable[[Doubles, Doubles], float]


def mmd(a_ND: Doubles, b_MD: Doubles) -> float:
    """The squared maximum mean discrepancy, times 100."""
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1]:
        raise ShapeError(f"two sets of features of one length, not {a_ND.shape} and {b_MD.shape}")
    return PERCENT * float(_kernel(a_ND, a_ND).mean() + _kernel(b_MD, b_MD).mean() - 2 * _kernel(a_ND, b_MD).mean())


def bootstrap(measure: Measure, a_ND: Doubles, b_MD: Doubles, seed: int, times: int) -> float:
    """Half the width of a 95% interval over clips: 1.96 standard deviations of the measure over sets drawn anew.

    Around the measure itself, and not the quantiles of what is drawn: a set that repeats clips is farther from all
    others than the set that it was drawn from, so its distances are too large; only how they spread says something.
    """
    random = np.random.default_rng(seed)
    values = [
        measure(a_ND[random.integers(len(a_ND), size=len(a_ND))], b_MD[random.integers(len(b_MD), size=len(b_MD))])
        for _ in range(times)
    ]
    return float(NORMAL * np.std(values, ddof=1))


def mmd_bootstrap(a_ND: Doubles, b_MD: Doubles, seed: int, times: int) -> float:
    """`bootstrap` of `mmd`, with each kernel computed once: a set drawn anew is a weight for each of its clips."""
    random = np.random.default_rng(seed)
    within_a, within_b, across = _kernel(a_ND, a_ND), _kernel(b_MD, b_MD), _kernel(a_ND, b_MD)
    values = []
    for _ in range(times):
        u, v = (np.bincount(random.integers(n, size=n), minlength=n) / n for n in across.shape)
        values.append(PERCENT * float(u @ within_a @ u + v @ within_b @ v - 2 * u @ across @ v))
    return float(NORMAL * np.std(values, ddof=1))


@dataclass(frozen=True)
class Point:
    """The Frechet distance at a number of clips of each set, over `REPEATS` draws without repetition."""

    clips: int
    distance: float
    deviation: float
    floor: float
    """Of two sets of real clips that share none."""
    floor_deviation: float


def curve(real_ND: Doubles, fake_MD: Doubles, seed: int) -> list[Point]:
    """Distance and floor at numbers of clips that double, up to half the real ones. ShapeError for fewer than `LEAST`
    clips."""
    if min(len(real_ND), len(fake_MD)) < LEAST:
        raise ShapeError(f"a curve takes {LEAST} clips of each set or more, not {len(real_ND)} and {len(fake_MD)}")
    random = np.random.default_rng(seed)
    most = min(len(real_ND) // 2, len(fake_MD))
    counts = sorted(count for power in range(5) if (count := most >> power) >= LEAST // 2)
    points = []
    for count in counts:
        distances, floors = [], []
        for _ in range(REPEATS):
            order = random.permutation(len(real_ND))
            ours = random.permutation(len(fake_MD))[:count]
            distances.append(frechet(real_ND[order[:count]], fake_MD[ours]))
            floors.append(frechet(real_ND[order[:count]], real_ND[order[count : 2 * count]]))
        means = float(np.mean(distances)), float(np.mean(floors))
        spread = float(np.std(distances, ddof=1)), float(np.std(floors, ddof=1))
        points.append(Point(count, means[0], spread[0], means[1], spread[1]))
    return points


def diversity(real_ND: Doubles, fake_MD: Doubles) -> dict[str, float]:
    """Precision, recall, density and coverage; ShapeError for sets of no more than `K` clips."""
    if min(len(real_ND), len(fake_MD)) <= K:
        raise ShapeError(f"precision and recall take more than {K} clips, not {len(real_ND)} and {len(fake_MD)}")
    across = distances(real_ND, fake_MD)
    reach = np.partition(distances(real_ND, real_ND), K, 1)[:, K]  # a clip's nearest is itself
    fake_reach = np.partition(distances(fake_MD, fake_MD), K, 1)[:, K]
    inside = across <= reach[:, None]
    return {
        "precision": float(inside.any(0).mean()),
        "recall": float((across <= fake_reach).any(1).mean()),
        "density": float(inside.sum(0).mean() / K),
        "coverage": float(inside.any(1).mean()),
    }


def spread(features_ND: Doubles) -> float:
    """How diverse a set is: the mean distance between two of its clips. ShapeError for fewer than two."""
    count = len(features_ND)
    if count < 2:
        raise ShapeError(f"two clips have a distance, not {count}")
    return float(distances(features_ND, features_ND).sum() / (count * (count - 1)))


def distances(a_ND: Doubles, b_MD: Doubles) -> Doubles:
    """Euclidean distances [N, M]."""
    squares = np.square(a_ND).sum(1)[:, None] - 2 * a_ND @ b_MD.T + np.square(b_MD).sum(1)
    found: Doubles = np.sqrt(squares.clip(min=0))
    return found


def _kernel(a_ND: Doubles, b_MD: Doubles) -> Doubles:
    found: Doubles = np.square(a_ND @ b_MD.T / a_ND.shape[1])
    return found
