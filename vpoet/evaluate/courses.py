"""Courses, by which a learned world is judged: recordings that no model was trained on, and what is measured in them.

A course is frames that are seen, and the keys that follow.

    frames    seen      | dreamt: each from the key alone and all that was dreamt before
    course    0 ... s-1 | s  s+1 ... s+n-1

What is measured is the place of the figure of a world of vpoet, or what is known of an environment of gymnasium
(`vpoet.worlds.environments`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.play.futures import space_of
from vpoet.worlds.environments.known import Measure
from vpoet.worlds.gym import GymWorld
from vpoet.worlds.world import SteppedWorld

UNSEEN = 10**9
"""The world's recordings from this number on are no training data."""
FIGURE = Measure("", ("x", "y"), "pixels of 64")
"""Where the feet of the figure of a world of vpoet are."""


@dataclass(frozen=True, eq=False)
class Course:
    """One recording: what is seen of it, and what follows."""

    number: int
    text: str
    seen: Frames
    """uint8 [s, H, W, 3]."""
    did: list[Any]
    """[s - 1], the keys between them, and their rewards."""
    brought: list[float]
    keys: list[Any]
    """[n], those that follow."""
    frames: Frames
    """uint8 [n, H, W, 3], where they lead."""
    rewards: list[float]
    truths: list[dict[str, Any]]
    """[n], what is where in them, by names of the world's truth."""
    state: bytes
    """Of the simulator at the last frame that is seen."""


def courses(
    clip: Callable[[int], tuple[Frames, dict[str, Any]]],
    simulator: SteppedWorld,
    seen: int,
    length: int,
    first: int = UNSEEN,
) -> Iterator[Course]:
    """Endless courses of ``seen`` and ``length`` frames, from recording number ``first`` on, half of them under random
    keys; shorter ones are left out. ``clip`` makes a recording of so many frames (`vpoet.worlds.maker`).

    DataError: the recordings do not tell what is needed.
    """
    number = first
    while True:
        frames, facts = clip(number)
        number += 1
        if not {"state", "truth"} <= facts.keys():
            raise DataError(f"{facts['source']}: nobody knows what is where in this world's frames, to judge it by")
        if len(frames) < seen + length:
            continue
        actions, rewards = facts["actions"], facts["outcomes"]["reward"]
        simulator.restore(bytes.fromhex(facts["state"]))
        for action in actions[: seen - 1]:
            simulator.step(action)
        truth = {name: told for name, told in facts["truth"].items() if isinstance(told, list)}
        yield Course(
            number=number - 1, text=facts["caption"] if isinstance(facts["caption"], str) else facts["caption"][0],
            seen=frames[:seen], did=actions[: seen - 1], brought=rewards[: seen - 1],
            keys=actions[seen - 1 :], frames=frames[seen:], rewards=rewards[seen - 1 :],
            truths=[{name: told[at] for name, told in truth.items()} for at in range(seen, seen + length)],
            state=simulator.save(),
        )  # fmt: skip


def measures(simulator: SteppedWorld) -> tuple[Measure, ...]:
    """What is judged in a world; the first is of whom the keys move."""
    return simulator.known.measures if isinstance(simulator, GymWorld) and simulator.known else (FIGURE,)


def left_out(simulator: SteppedWorld) -> str:
    """Rows that have no meaning in a world, and why."""
    return simulator.known.left_out if isinstance(simulator, GymWorld) and simulator.known else ""


def scores(simulator: SteppedWorld) -> bool:
    """Whether a reward above 0 is something that happens, as a coin that is taken."""
    return not isinstance(simulator, GymWorld) or simulator.known is None or simulator.known.scores


def keys(simulator: SteppedWorld) -> list[Any]:
    """What can be done, to compare its effects: each action, or the corners, the middles of the sides and the middle
    of where vectors lie."""
    space = space_of(simulator)
    if space.names:
        return list(range(len(space.names)))
    axes = [(low, (low + high) / 2, high) for low, high in zip(space.low, space.high, strict=True)]
    return [list(vector) for vector in product(*axes)]


def anything(simulator: SteppedWorld, random: np.random.Generator) -> Any:
    """A random action."""
    space = space_of(simulator)
    if space.names:
        return int(random.integers(len(space.names)))
    return [float(value) for value in random.uniform(space.low, space.high)]
