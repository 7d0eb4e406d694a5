"""Futures of plans: what the world itself does, in a real world and in a learned one, by the same code."""

from typing import Any

import numpy as np
import pytest

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.generate.model import Model
from vpoet.play.futures import carried_out, futures, space_of


class Counted:
    """A corridor under the contract of worlds; it ends at its right end, and counts the steps that are taken."""

    actions = ("left", "right", "stay")
    fps = 8.0

    def __init__(self) -> None:
        self.steps = 0
        self.at = 3

    def reset(self, seed: int, prompt: str = "") -> Frames:
        self.at = 3 + seed % 3
        return self._frame()

    def step(self, action: int) -> tuple[Frames, float, bool]:
        if not 0 <= action < 3 or self.at > 6:
            raise DataError(f"no action {action}")
        self.steps += 1
        self.at += (-1, 1, 0)[action]
        return self._frame(), float(self.at == 5), self.at > 6

    def save(self) -> bytes:
        return bytes([self.at])

    def restore(self, state: bytes) -> None:
        self.at = state[0]

    @property
    def truth(self) -> dict[str, Any]:
        return {"x": self.at}

    def see(self, frames: Frames) -> list[dict[str, Any]]:
        return [{"x": int(frame[0, 0, 0])} for frame in frames]

    def _frame(self) -> Frames:
        return np.full((2, 2, 3), self.at, np.uint8)


def same(one: Any, other: Any) -> bool:
    parts = ("plan", "frames", "rewards")
    return one.ended == other.ended and all(np.array_equal(getattr(one, x), getattr(other, x)) for x in parts)


def test_plans_are_stepped_once_where_they_agree_and_stop_at_the_end() -> None:
    world = Counted()
    plans = np.array([[2, 2, 2], [2, 2, 1], [2, 2, 1], [0, 1, 1], [1, 1, 1]])
    found = futures(world, plans)
    assert world.steps == 2 + 1 + 1 + 3 + 3
    assert world.at == 3
    assert [each.frames[:, 0, 0, 0].tolist() for each in found] == [
        [3, 3, 3], [3, 3, 4], [3, 3, 4], [2, 3, 4], [4, 5, 6]
    ]  # fmt: skip
    assert found[4].rewards.tolist() == [0, 1, 0]

    world.at = 5
    short, whole = futures(world, np.array([[1, 1, 1], [0, 0, 0]]))
    assert (len(short), short.ended, short.taken.tolist()) == (2, True, [1, 1])
    assert (len(whole), whole.ended) == (3, False)
    with pytest.raises(DataError, match="no action"):
        futures(world, np.array([[1], [7]]))
    assert world.at == 5


def test_the_oracle_s_futures_are_what_the_simulator_does() -> None:
    world = worlds.stepped("world:playground")
    plans = np.random.default_rng(0).integers(6, size=(12, 10))
    plans[6:, :4] = plans[:6, :4]
    world.reset(7)
    world.step(3)
    state = world.save()
    found = futures(world, plans)
    assert world.save() == state
    for plan, future in zip(plans, found, strict=True):
        world.restore(state)
        assert same(future, carried_out(world, plan))


def test_a_learned_world_is_gone_on_from_by_the_same_code(toy: Model) -> None:
    session = toy.play("a robot", seed=5)
    plans = np.array([[0, 1, 2, 0], [0, 1, 2, 2], [0, 1, 1, 1], [2, 0, 0, 1], [0, 1, 2, 0]])
    found = futures(session, plans)
    for plan, future in zip(plans, found, strict=True):
        assert same(future, carried_out(session.fork(), plan))
    assert len({future.frames.tobytes() for future in found}) > 1


def test_the_space_of_a_world_is_its_names_or_its_bounds() -> None:
    assert space_of(Counted()).names == ["left", "right", "stay"]

    class Pushed(Counted):
        actions: Any = ()
        bounds = [0.0, -1.0], [1.0, 1.0]

    assert (space_of(Pushed()).low, space_of(Pushed()).high) == Pushed.bounds
