"""Draws of plans, against the distributions that they are of."""

import numpy as np
import pytest

from vpoet.play.proposals import Normal, Odds, anything, coloured
from vpoet.sequence.actions import ActionSpace

DRAWS = 40_000
NEAR = 4 * 0.5 / np.sqrt(DRAWS)
"""A share that is off by more has a chance below 1e-4."""


@pytest.mark.parametrize("colour", [0.0, 2.0])
def test_noise_is_normal_at_each_time_and_goes_on_as_long_as_its_colour_says(colour: float) -> None:
    noise = coloured(np.random.default_rng(0), (DRAWS, 16), colour)
    assert np.abs(noise.mean(0)).max() < 0.03
    assert np.abs(noise.std(0) - 1).max() < 0.03
    beside = (noise[:, :-1] * noise[:, 1:]).mean()
    assert abs(beside) < 0.03 if colour == 0 else beside > 0.8
    assert coloured(np.random.default_rng(0), (3, 1), colour).shape == (3, 1)


@pytest.mark.parametrize("colour", [0.0, 2.0])
def test_actions_are_drawn_by_their_odds_and_held(colour: float) -> None:
    odds = Odds(np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]))
    plans = odds.draw(np.random.default_rng(0), DRAWS, colour)
    for action in range(3):
        np.testing.assert_allclose((plans == action).mean(0), odds.odds_KA[:, action], atol=NEAR)
    held = (plans[:, 0] == plans[:, 1]).mean()
    assert abs(held - (0.25 + 0.09 + 0.04)) < NEAR if colour == 0 else held > 0.5
    assert odds.middle().tolist() == [0, 0, 2]


def test_vectors_are_drawn_around_their_means_and_within_their_bounds() -> None:
    low, high = np.array([0.0, -1.0]), np.array([1.0, 1.0])
    wide = Normal.wide(low, high, 5)
    assert wide.middle().tolist() == [[0.5, 0.0]] * 5
    plans = wide.draw(np.random.default_rng(0), 1000, 2.0)
    assert plans.shape == (1000, 5, 2)
    assert (plans >= low).all()
    assert (plans <= high).all()
    narrow = Normal(wide.mean_KD, wide.spread_KD * 0.1, low, high).draw(np.random.default_rng(0), DRAWS, 2.0)
    np.testing.assert_allclose(narrow.mean(0), wide.mean_KD, atol=0.01)
    np.testing.assert_allclose(narrow.std(0), wide.spread_KD * 0.1, rtol=0.05)


def test_what_is_learned_of_the_best_moves_towards_them_and_gives_nothing_up() -> None:
    even = anything(ActionSpace(names=["a", "b", "c"]), 2)
    assert isinstance(even, Odds)
    fitted = even.fitted(np.array([[0, 1], [0, 1], [0, 2], [0, 1]]), 0.1)
    np.testing.assert_allclose(fitted.odds_KA.sum(1), 1)
    assert fitted.middle().tolist() == [0, 1]
    assert fitted.odds_KA.min() > 0
    assert fitted.odds_KA[0, 0] > 0.9
    np.testing.assert_allclose(fitted.later(1).odds_KA, [fitted.odds_KA[1], [1 / 3] * 3])

    wide = anything(ActionSpace(low=[0.0], high=[1.0]), 2)
    assert isinstance(wide, Normal)
    learned = wide.fitted(np.array([[[0.9], [0.1]], [[0.9], [0.3]]]), 0.0)
    np.testing.assert_allclose(learned.mean_KD, [[0.9], [0.2]])
    np.testing.assert_allclose(learned.spread_KD, [[0.02], [0.1]])
    np.testing.assert_allclose(learned.later(1).mean_KD, [[0.2], [0.5]])
