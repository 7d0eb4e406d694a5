"""Players between an expert and chance, and what a model and the world say of them."""

import statistics

import numpy as np
import pytest

from vpoet import worlds
from vpoet.errors import DataError
from vpoet.generate.model import Model
from vpoet.play.mixtures import FIRST, episode, mixed, told
from vpoet.worlds.playground.scripts import Seeker

CLIPS, REAL = worlds.find("playground"), worlds.stepped("world:playground", 32, 32, 8.0)


def test_the_ends_are_the_expert_and_random_keys_and_the_same_seed_plays_the_same() -> None:
    acts = mixed(lambda: 9, 0.0, 6, np.random.default_rng(0))
    assert {acts() for _ in range(200)} == {9}
    acts = mixed(lambda: 9, 1.0, 6, np.random.default_rng(0))
    assert {acts() for _ in range(200)} == set(range(6))
    acts = mixed(lambda: 9, 0.3, 6, np.random.default_rng(0))
    assert statistics.mean(acts() != 9 for _ in range(20_000)) == pytest.approx(0.3, abs=0.03)
    one, again = (episode(REAL, CLIPS, FIRST, 0.5, 40) for _ in range(2))
    assert (one.actions, one.rewards) == (again.actions, again.rewards)
    np.testing.assert_array_equal(one.frames, again.frames)


def test_returns_fall_from_the_expert_to_chance_and_nothing_comes_of_standing_still() -> None:
    def returned(share: float | None) -> float:
        return statistics.mean(sum(episode(REAL, CLIPS, FIRST + at, share, 64).rewards) for at in range(30))

    expert, half, chance = map(returned, (0.0, 0.5, 1.0))
    assert expert > half > chance
    assert returned(None) <= chance


def test_the_expert_of_a_world_plays_its_recordings_and_another_world_has_none() -> None:
    REAL.reset(5)
    expert, known = (made(np.random.default_rng(5)) for made in (lambda r: CLIPS.expert(REAL, r), Seeker))
    assert [expert() for _ in range(9)] == [known(REAL) for _ in range(9)]
    with pytest.raises(DataError, match="knows no player"):
        worlds.find("platformer").expert(REAL, np.random.default_rng(0))


def test_what_is_told_of_an_episode_is_the_mean_of_what_the_model_is_paid_frame_by_frame(toy: Model) -> None:
    played = episode(REAL, CLIPS, FIRST, 0.0, 12)
    nats = [(each.nats, each.entropy, each.tokens) for each in toy.reward(iter(played.frames))][1:]
    found = told(toy, played)
    tokens = sum(each[2] for each in nats)
    assert found.steps == len(played.actions) == len(played.frames) - 1
    assert found.nats == pytest.approx(sum(each[0] for each in nats) / tokens, rel=1e-6)
    assert found.entropy == pytest.approx(sum(each[1] for each in nats) / tokens, rel=1e-6)
    assert found.value(1.0, 2.0) == pytest.approx(-found.nats + found.entropy + 2 * found.novelty)
    assert found.returned == sum(played.rewards)


def test_an_episode_that_is_too_short_to_see_what_came_of_it_is_told(toy: Model) -> None:
    with pytest.raises(DataError, match="an episode of 0 steps, and this model sees what came of them from 1 on"):
        told(toy, episode(REAL, CLIPS, FIRST, 0.0, 0))
