"""What is known of PushT and Breakout: the judges read off real frames what is true in them, and the players play."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from vpoet import worlds
from vpoet.errors import ShapeError
from vpoet.worlds.environments.known import Measure, densest
from vpoet.worlds.gym import GymWorld
from vpoet.worlds.world import SteppedWorld

PUSHT, BREAKOUT = ("gym_pusht/PushT-v0", "gym_pusht"), ("ALE/Breakout-v5", "ale_py")


@pytest.fixture
def world(request: pytest.FixtureRequest) -> GymWorld:
    name, package = request.param
    pytest.importorskip(package)
    return made(name)


@lru_cache
def made(name: str) -> GymWorld:
    """Once for all: a judge takes long to make."""
    return GymWorld(name, 64, 64)


def far(world: GymWorld, seed: int, frames: int) -> dict[str, np.ndarray[Any, Any]]:
    """Of each measure, how far the judge is off in the frames of a recording; nan where there is nothing to be seen."""
    assert world.known
    shown, facts = world.clip(seed, frames)
    truths = [{key: told[at] for key, told in facts["truth"].items()} for at in range(len(shown))]
    pairs = list(zip(truths, world.see(shown), strict=True))
    return {each.name: np.array([each.apart(*pair) for pair in pairs]) for each in world.known.measures}


def test_what_is_apart() -> None:
    place, turn = Measure("place", ("x", "y"), "units"), Measure("turn", ("angle",), "degrees", turn=360)
    assert place.apart({"x": 0, "y": 0}, {"x": 3, "y": 4}) == 5
    assert place.apart({"x": 0, "y": 0}, {"x": None, "y": None}) == math.inf
    assert place.apart({"x": 0, "y": 0}, {}) == math.inf
    assert math.isnan(place.apart({"x": None, "y": None}, {"x": 3, "y": 4}))
    assert turn.apart({"angle": 359}, {"angle": 2}) == turn.apart({"angle": 2}, {"angle": 359}) == 3
    assert turn.apart({"angle": 10}, {"angle": 190}) == 180


def test_the_densest_window_may_reach_over_the_edge() -> None:
    picture = np.zeros((8, 8))
    picture[5, 2] = picture[6, 3] = 1
    row, column = densest(picture, 2, 2)
    assert (row, column) == (6, 3)
    picture[:] = 0
    picture[0, 7] = 1
    row, column = densest(picture, 1, 1)
    assert (row, column) == (0.5, 7.5)


@pytest.mark.parametrize("world", [PUSHT], indirect=True)
def test_the_judge_of_pusht_reads_places_and_angle(world: GymWorld) -> None:
    for seed in (2, 3):
        off = far(world, seed, 24)
        assert off["agent"].max() < 8  # a pixel is 8 units
        assert off["block"].max() < 5
        assert off["angle"].max() < 4


@pytest.mark.parametrize("world", [PUSHT], indirect=True)
def test_what_is_no_t_is_none(world: GymWorld) -> None:
    frame = world.reset(1).copy()
    told = world.truth
    (seen,) = world.see(frame[None])
    assert seen["block_x"] == pytest.approx(told["block_x"], abs=5)
    blank = world.see(np.full((1, 64, 64, 3), 255, np.uint8))[0]
    assert set(blank.values()) == {None}
    frame[(frame[..., 0] < 144) & (frame[..., 1] < 170)] = 255
    frame[4:14, 4:14] = (143, 163, 184)  # a square of as much area
    assert world.see(frame[None])[0]["block_x"] is None
    with pytest.raises(ShapeError, match="this judge sees"):
        world.see(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("world", [BREAKOUT], indirect=True)
def test_the_judge_of_breakout_reads_what_the_memory_says(world: GymWorld) -> None:
    off = {name: [] for name in ("paddle", "ball", "lives", "score")}
    for seed in (2, 3):
        for name, values in far(world, seed, 48).items():
            off[name] += values.tolist()
    assert np.median(off["paddle"]) < 1
    assert np.nanmedian(off["ball"]) < 1  # a pixel is 2.5 by 3.3 of the console's
    assert np.mean(np.array(off["lives"]) == 0) > 0.95
    assert np.mean(np.array(off["score"]) == 0) > 0.95
    with pytest.raises(ShapeError, match="this judge sees"):
        world.see(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("world", [BREAKOUT], indirect=True)
def test_bricks_that_are_gone_are_no_ball_and_no_ball_is_none(world: GymWorld) -> None:
    world.reset(0)
    console = world._env.unwrapped.ale
    for byte in range(12):  # two bricks a byte and more
        console.setRAM(byte, 0)
    frame, *_ = world.step(0)
    assert world.truth["ball_x"] is None
    (seen,) = world.see(frame[None])
    assert seen["ball_x"] is None
    assert seen["paddle_x"] == pytest.approx(world.truth["paddle_x"], abs=2.5)
    for other in (np.zeros_like(frame), np.full_like(frame, 128), frame[::-1, ::-1], 255 - frame):
        assert world.see(other[None])[0]["paddle_x"] is None


@pytest.mark.parametrize("world", [PUSHT, BREAKOUT], indirect=True)
def test_a_recording_goes_on_from_its_state_exactly(world: GymWorld) -> None:
    for seed in (0, 1):
        frames, facts = world.clip(seed, 12)
        assert facts["policy"] == ("random", "player")[seed]
        other: SteppedWorld = worlds.stepped(f"env:{world.name}", 64, 64)
        other.restore(bytes.fromhex(facts["state"]))
        for at, action in enumerate(facts["actions"], 1):
            frame, reward, _ = other.step(action)
            np.testing.assert_array_equal(frame, frames[at])
            assert reward == facts["outcomes"]["reward"][at - 1]
            assert all(other.truth[name] == told[at] for name, told in facts["truth"].items())


def pushed(world: GymWorld, seed: int) -> float:
    """The share of a recording's steps in which the block is moved, by a unit and more."""
    truth = world.clip(seed, 49)[1]["truth"]
    return float((np.hypot(np.diff(truth["block_x"]), np.diff(truth["block_y"])) > 1).mean())


@pytest.mark.parametrize("world", [PUSHT], indirect=True)
def test_the_pusher_pushes_more_than_chance(world: GymWorld) -> None:
    random, player = (np.mean([pushed(world, seed) for seed in range(first, 16, 2)]) for first in (0, 1))
    assert player > 1.5 * random


def hits(world: GymWorld, act: Callable[[], int]) -> float:
    """Points in the first 300 steps."""
    world.reset(5)
    return sum(world.step(act())[1] for _ in range(300) if not world._ended)


@pytest.mark.parametrize("world", [BREAKOUT], indirect=True)
def test_who_follows_the_ball_scores_more_than_chance(world: GymWorld) -> None:
    assert world.known
    player, random = world.known.player(np.random.default_rng(0)), np.random.default_rng(0)
    assert hits(world, lambda: player(world.truth)) > hits(world, lambda: int(random.integers(4))) + 2
