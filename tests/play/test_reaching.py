"""Goals: what counts as there, in a world with a figure and in environments of gymnasium."""

from itertools import islice

import numpy as np
import pytest

from vpoet import worlds
from vpoet.errors import DataError
from vpoet.play.control import Episode
from vpoet.play.futures import carried_out
from vpoet.play.players import by_chance, players
from vpoet.play.reaching import PLACE, Start, attempt, away, judged, nearness, starts
from vpoet.worlds.environments.breakout import Breakout
from vpoet.worlds.environments.pusht import PushT
from vpoet.worlds.gym import GymWorld

POSE = {"agent_x": 100.0, "agent_y": 100.0, "block_x": 300.0, "block_y": 200.0, "angle": 359.0}


@pytest.mark.parametrize(
    ("moved", "there"),
    [
        ({}, True),
        ({"agent_x": 119.0}, True),
        ({"agent_x": 115.0, "block_y": 215.0}, False),  # each is near, and both together are 21 units off
        ({"angle": 18.0}, True),  # 19 degrees beyond a full turn
        ({"angle": 338.0}, False),
    ],
)
def test_pusht_is_there_by_both_places_as_one_vector_and_by_the_angle(moved: dict[str, float], there: bool) -> None:
    assert (away(POSE | moved, POSE, PushT.near) <= 1) is there


def test_a_figure_is_there_within_three_pixels() -> None:
    goal = {"x": 10.0, "y": 20.0}
    assert away({"x": 13.0, "y": 20.0}, goal, PLACE) == 1 < away({"x": 13.0, "y": 20.5}, goal, PLACE)


def test_an_environment_of_which_nobody_says_what_is_near_is_refused() -> None:
    world = GymWorld.__new__(GymWorld)
    world.name, world.known = "some/Thing-v0", None
    with pytest.raises(DataError, match=r"env:some/Thing-v0: nobody says how near"):
        nearness(world)
    world.known = Breakout
    with pytest.raises(DataError, match="nobody says how near"):
        nearness(world)
    assert nearness(worlds.stepped("world:playground", 32, 32)) is PLACE


class Line:
    """A place on a line, moved by vectors."""

    actions: tuple[str, ...] = ()
    bounds = ([-1.0, 0.0], [1.0, 4.0])
    fps = 8.0

    def step(self, action: list[float]) -> tuple[np.ndarray, float, bool]:
        assert len(action) == 2
        return np.zeros((4, 4, 3), np.uint8), 0.0, False


def test_chance_draws_vectors_within_their_bounds_and_holds_them() -> None:
    start = Start(0, "random", "", b"", np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8), {})
    one, again, other = (by_chance(Line(), start, seed, 60).seen.actions for seed in (1, 1, 2))  # type: ignore[arg-type]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.shape == (60, 2)
    low, high = Line.bounds
    assert (low <= one.min(0)).all()
    assert (one.max(0) <= high).all()
    assert one[:, 1].max() > 2
    assert 5 <= len(np.unique(one, axis=0)) <= 40


def test_the_goal_of_a_recording_of_pusht_is_reached_by_its_own_actions_and_by_plans() -> None:
    pytest.importorskip("gym_pusht")
    source, ahead = "env:gym_pusht/PushT-v0", 4
    real = worlds.stepped(source, 64, 64)
    near, clip = nearness(real), worlds.maker(source, 64, 64, real.fps, ahead + 1)
    found = [start for start in islice(starts(clip, near, ahead + 1, first=0), 6) if start]
    assert len(found) >= 3
    who = players(real, None, [4], ahead, near, ahead)
    assert list(who) == ["random keys", "oracle, random shooting, 4", "oracle, CEM, 4"]
    for start in found[:3]:
        actions = np.array(clip(start.seed)[1]["actions"])

        def again(start: Start, seed: int, actions: np.ndarray = actions) -> Episode:
            return Episode(start.frame, [], [carried_out(real, actions)])

        told = judged(real, near, start, attempt(real, start, again, 0))
        assert told["reached"]
        assert told["nearest"] <= 1
        assert np.array(told["actions"]).shape == (ahead, 2)
        planned = judged(real, near, start, attempt(real, start, who["oracle, CEM, 4"], 0))
        assert planned["searches"] >= 1
        chance = attempt(real, start, lambda start, seed: by_chance(real, start, seed, 8), 0)
        assert chance.seen.actions.shape == (8, 2)
        assert 0 <= chance.seen.actions.min() <= chance.seen.actions.max() <= 512
