"""Intervals hold what they say, also those of means over seeds."""

import math

import numpy as np
import pytest

from vpoet.evaluate.intervals import clustered_interval, mean_interval, over_seeds


def test_the_interval_is_students():
    mean, half = mean_interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(4.302653 * np.std([1, 2, 4], ddof=1) / math.sqrt(3), rel=1e-4)
    assert math.isnan(mean_interval([5.0])[1])


@pytest.mark.parametrize("count", [2, 3, 10, 11, 20])
def test_the_interval_holds_the_mean_19_times_in_20(count):
    """Both from the table (to 10 values) and from the expansion."""
    draws = np.random.default_rng(count).normal(3, 2, (4000, count))
    held = np.mean([abs(mean - 3) <= half for mean, half in map(mean_interval, draws.tolist())])
    assert held == pytest.approx(0.95, abs=0.012)


def test_rows_that_agree_become_a_line():
    rows = [{"kind": "b", "dB": 20.0}, {"kind": "a", "dB": 10.0}, {"kind": "b", "dB": 22.0}]
    lines = over_seeds(rows, ["kind"], ["dB"])
    assert [(line["kind"], line["seeds"], line["dB"]) for line in lines] == [("b", 2, 21.0), ("a", 1, 10.0)]


def test_an_interval_over_clusters_holds_the_mean_where_values_of_one_are_alike() -> None:
    assert clustered_interval([1.0, 2.0, 4.0], "abc") == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    # copies of a value say nothing more
    assert clustered_interval([1.0, 2.0, 4.0] * 5, "abc" * 5) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    assert math.isnan(clustered_interval([1.0, 2.0], "aa")[1])
    random, held = np.random.default_rng(0), 0
    for _ in range(1000):
        values = (random.normal(size=(12, 1)) + 0.2 * random.normal(size=(12, 8))).ravel().tolist()
        mean, half = clustered_interval(values, [i // 8 for i in range(96)])
        held += abs(mean) < half
    assert held / 1000 == pytest.approx(0.95, abs=0.02)  # by clips it would be half of that
