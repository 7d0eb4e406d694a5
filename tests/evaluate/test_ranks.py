"""Ranks against definitions spelled out."""

import math

import numpy as np
import pytest

from vpoet.evaluate.ranks import area, spearman


def test_spearman_is_the_textbook_s_formula_without_ties_and_shares_ranks_with_them() -> None:
    random = np.random.default_rng(0)
    one, other = random.permutation(20), random.permutation(20)
    textbook = 1 - 6 * float(((one - other) ** 2).sum()) / (20 * (20**2 - 1))
    assert spearman(np.exp(one.astype(float)), other.astype(float) ** 3) == pytest.approx(textbook)
    # ranks 1.5 1.5 3 and 1 2 3
    assert spearman([0.0, 0.0, 1.0], [1.0, 2.0, 3.0]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))
    assert math.isnan(spearman([1.0, 1.0], [1.0, 2.0]))


def test_area_counts_pairs() -> None:
    assert area([2.0, 3.0], [0.0, 1.0]) == 1
    assert area([0.0, 1.0], [2.0, 3.0]) == 0
    assert area([0.0, 2.0], [1.0, 2.0]) == (0 + 0 + 1 + 0.5) / 4
