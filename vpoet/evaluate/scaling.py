"""Scaling laws: held-out bits as a power law of compute, fitted to finished runs, to predict longer ones.

    bits(C) = E + A C^-b        C: FLOPs of training, forward and backward;  E >= 0: what no compute takes away

(Hoffmann et al., arXiv:2203.15556, section 3.) Only ends count: there the learning rate has fallen, and nowhere before.
The runs should grow in parameters and tokens as the long run does; a law of other runs says nothing of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.errors import DataError
from vpoet.evaluate.describe import load_recipe, of_the_data
from vpoet.evaluate.intervals import student
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import METRICS, RESOLVED
from vpoet.training.run.tracking import read_numbers

LEAST = 4
"""Runs that a law of three unknowns needs, so that one is left over to tell its error from."""
BITS = "heldout/bits"
SLOPES = np.geomspace(0.01, 4, 3000)
"""Exponents b that are tried; for the interval one in `SKIP`."""
SKIP = 10
GUESSES = 600
"""Bits of the long run that are tried for the interval, from 0 to above the worst of the runs."""


@dataclass(frozen=True, slots=True)
class Law:
    """A fitted law, and what it says of one more run."""

    floor: float
    """E."""
    scale: float
    """A."""
    slope: float
    """b."""
    error: float
    """Standard deviation of a run from the law, as a share of its bits."""
    bits: float
    """Of the run that was asked about."""
    interval: tuple[float, float]
    """95%: of that run, so with its own deviation."""


def fit(flops: Sequence[float], bits: Sequence[float], asked: float) -> Law:
    """The law nearest to the runs in relative squares, and what it says of a run with ``asked`` FLOPs.

    The interval holds the values that a law can pass through at ``asked`` without being significantly worse than the
    best one (a profile of the likelihood; Bates and Watts, Nonlinear Regression Analysis, section 6.1), widened by the
    deviation of a single run. It takes runs to deviate independently, and the law to be of the right shape.

    DataError: fewer than `LEAST` runs, or all of one size.
    """
    if len(flops) != len(bits) or len(flops) < LEAST or len(set(flops)) < LEAST - 1:
        raise DataError(
            f"{len(set(flops))} amounts of compute in {len(flops)} runs: a law with a floor has three unknowns; "
            f"give at least {LEAST} runs of {LEAST - 1} sizes"
        )
    unit, y_N = max(flops), np.array(bits)
    w_N = 1 / np.square(y_N)

    # the best law of each slope: bits = E + A x, a weighted line, level where the bits don't fall, through 0 if E < 0
    x_SN = (np.array(flops) / unit) ** -SLOPES[:, None]
    x_mean_S, y_mean = x_SN @ w_N / w_N.sum(), y_N @ w_N / w_N.sum()
    apart_SN = x_SN - x_mean_S[:, None]
    scale_S = (apart_SN @ (w_N * y_N) / (np.square(apart_SN) @ w_N)).clip(0)
    floor_S = y_mean - scale_S * x_mean_S
    scale_S = np.where(floor_S < 0, x_SN @ (w_N * y_N) / (np.square(x_SN) @ w_N), scale_S)
    floor_S = floor_S.clip(0)
    squares_S = np.square(y_N - floor_S[:, None] - scale_S[:, None] * x_SN) @ w_N
    best = int(squares_S.argmin())
    floor, scale, slope = float(floor_S[best]), float(scale_S[best]), float(SLOPES[best])
    predicted = floor + scale * float((asked / unit) ** -slope)

    # the best law through each guess at what was asked: bits = guess + A (x - there), 0 <= A, 0 <= E = guess - A there
    x_SN, there_S = x_SN[::SKIP], (asked / unit) ** -SLOPES[::SKIP]
    apart_SN = x_SN - there_S[:, None]
    guess_G = np.append(np.linspace(0, 1.2 * y_N.max(), GUESSES + 1)[1:], predicted)
    fitted_GS = (y_N * w_N) @ apart_SN.T - guess_G[:, None] * (apart_SN @ w_N)
    fitted_GS = (fitted_GS / (np.square(apart_SN) @ w_N)).clip(0, guess_G[:, None] / there_S)
    misses_GSN = (y_N - guess_G[:, None, None]) - fitted_GS[..., None] * apart_SN
    squares_G = (np.square(misses_GSN) @ w_N).min(1)

    free = len(flops) - 3
    error, t = math.sqrt(squares_S[best] / free), student(free)
    near = [predicted, *guess_G[squares_G <= squares_S[best] * (1 + t * t / free)].tolist()]
    own = t * error * predicted
    low, high = predicted - math.hypot(predicted - min(near), own), predicted + math.hypot(max(near) - predicted, own)
    return Law(floor, scale * unit**slope, slope, error, predicted, (max(0.0, low), high))


@dataclass(frozen=True)
class Prediction:
    """The law through the ends of finished runs, and what it says of the run that was asked about."""

    runs: dict[str, tuple[float, float]]
    """Of each run its FLOPs, and its held-out bits after the last step."""
    asked: float
    """FLOPs of the run that was asked about."""
    law: Law

    def facts(self) -> dict[str, Any]:
        """What a reader is shown."""
        law = self.law
        return {
            "runs": {run: {"FLOPs": flops, "held-out bits": bits} for run, (flops, bits) in self.runs.items()},
            "law": f"{law.floor:.3g} + {law.scale:.3g} FLOPs^-{law.slope:.3g}",
            "runs deviate by": f"{law.error:.2%}",
            "FLOPs": self.asked,
            "times the largest run": self.asked / max(flops for flops, _ in self.runs.values()),
            "held-out bits": law.bits,
            "95% interval": list(law.interval),
        }


def predict(thing: Path, runs: Sequence[Path]) -> Prediction:
    """What the ends of finished runs say of the held-out bits of ``thing``, a recipe or a run.

    DataError: a run is not finished, or was judged on other packs than ``thing`` is.
    """
    recipe = _recipe(thing)
    ends = {}
    for run in runs:
        other = _recipe(run)
        if different := [name for name, value in _judged(other).items() if value != _judged(recipe)[name]]:
            raise DataError(f"{run}: {', '.join(different)}: not those of {thing}, so its bits are of other packs")
        ends[str(run)] = _flops(other, run), _end(run, other)
    asked = _flops(recipe, thing)
    flops, bits = ([end[at] for end in ends.values()] for at in (0, 1))
    return Prediction(ends, asked, fit(flops, bits, asked))


def _recipe(thing: Path) -> PretrainConfig:
    path = thing / RESOLVED if thing.is_dir() else thing
    recipe = load_recipe(path)
    if not isinstance(recipe, PretrainConfig):
        raise DataError(f"{path}: laws are fitted to pretraining runs")
    return recipe


def _judged(recipe: PretrainConfig) -> dict[str, Any]:
    """What decides which packs a run is judged on; not where its files lie."""
    data = recipe.data
    return {
        "data.tasks": dict(data.tasks),
        "data.drop_caption": data.drop_caption,
        "data.length": data.length,
        "data.lookahead": data.lookahead,
        "data.bidirectional": data.bidirectional,
        "data.window": data.window,
        "evaluate_packs": recipe.evaluate_packs,
        "number of heldout sources": len(recipe.heldout),
    }


def _flops(recipe: PretrainConfig, thing: Path) -> float:
    try:
        return float(of_the_data(recipe)["FLOPs in all"])
    except DataError as error:
        raise DataError(f"{thing}: its FLOPs are counted on its data: {error}") from None


def _end(run: Path, recipe: PretrainConfig) -> float:
    """Held-out bits after the last step."""
    metrics = run / METRICS
    rows = read_numbers(metrics) if metrics.is_file() else []
    if not rows or rows[-1]["step"] < recipe.steps:
        raise DataError(f"{run}: not finished: its rate has not fallen yet, so its bits are no end")
    if rows[-1].get(BITS) is None:
        raise DataError(f"{run}: was not judged on held-out packs; give its recipe `heldout`")
    return float(rows[-1][BITS])
