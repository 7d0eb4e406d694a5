"""Laws of synthetic runs are found again, and their intervals hold what they say."""

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.evaluate.scaling import fit

FLOPS = np.array([4e12, 1e13, 3e13, 1e14])


@pytest.mark.parametrize(("floor", "slope"), [(0.0, 0.15), (1.6, 0.3), (1.0, 0.6)])
def test_a_law_without_noise_is_found_again(floor: float, slope: float) -> None:
    bits = floor + 3 * (FLOPS / 1e13) ** -slope
    law = fit(FLOPS.tolist(), bits.tolist(), 1e15)
    truth = floor + 3 * 100**-slope
    assert law.slope == pytest.approx(slope, rel=0.01)
    assert law.floor == pytest.approx(floor, abs=0.02)
    assert law.bits == pytest.approx(truth, rel=0.005)
    assert law.interval[0] <= law.bits <= law.interval[1]
    assert law.interval[1] - law.interval[0] < 0.1


def test_intervals_hold_the_next_run_as_often_as_they_say() -> None:
    """The 95% interval is for a run that deviates by 2% as the others do. Fewer than 85 of 100 draws within would
    have a probability below 2e-4."""
    random = np.random.default_rng(0)
    flops = np.repeat(FLOPS, 2)
    held = 0
    for _ in range(100):
        noise = np.exp(0.02 * random.normal(size=len(flops) + 1))
        truth = (1.2 + 3 * (np.append(flops, 1e15) / 1e13) ** -0.4) * noise
        low, high = fit(flops.tolist(), truth[:-1].tolist(), 1e15).interval
        held += low <= truth[-1] <= high
    assert held >= 85


def test_too_few_runs_are_an_error() -> None:
    with pytest.raises(DataError, match="at least 4 runs"):
        fit([1e12, 2e12, 3e12], [3.0, 2.5, 2.2], 1e13)
    with pytest.raises(DataError, match="2 amounts of compute in 4 runs"):
        fit([1e12, 1e12, 3e12, 3e12], [3.0, 3.1, 2.2, 2.3], 1e13)
