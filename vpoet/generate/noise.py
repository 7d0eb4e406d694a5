"""The noise that a document's codes are drawn with, a row [V] a step: fresh from a seed, or prepared."""

from collections.abc import Callable
from functools import partial

import numpy as np

from vpoet.arrays import Floats
from vpoet.generate.logits import gumbel

Noise = Callable[[int], Floats]
"""That of the next so many steps, [count, V]; behind the last, whatever."""


def fresh(seed: int, size: int, temperature: float) -> Noise:
    """Standard Gumbel noise of ``size`` values a step; none at temperature 0."""
    return partial(gumbel, np.random.default_rng(seed) if temperature else None, size=size)


def prepared(noise_SV: Floats) -> Noise:
    """What was prepared for S steps, and none behind them."""
    at = 0

    def rows(count: int) -> Floats:
        nonlocal at
        found = noise_SV[at : at + count]
        at += count
        return np.pad(found, ((0, count - len(found)), (0, 0)))

    return rows
