"""Futures: what comes of plans, in any world that can be gone on from one frame in several ways.

    plans              what is stepped: the first actions that plans share, once
    0 2 2              0 --- 2 --- 2
    0 2 1                     `--- 1
    3 1 1              3 --- 1 --- 1

A real world (`vpoet.worlds.world.SteppedWorld`) goes back by `save` and `restore`, a learned one
(`vpoet.generate.environment.Session`) goes on from a `fork`, or in many ways at once, of which each step is one pass
through the network. Planners see only `Future`s, and so need not know which.
"""

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Doubles, Frames
from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.world import SteppedWorld

Actions = npt.NDArray[Any]
"""One after the other: indices int64 [K], or vectors float64 [K, D]."""


class Steps(Protocol):
    """What a plan is carried out in."""

    def step(self, action: Any, /) -> tuple[Frames, float, bool]: ...


@runtime_checkable
class Forking(Steps, Protocol):
    """A world that can be had twice."""

    def fork(self) -> "Forking": ...


class Together(Protocol):
    """Worlds that have a beginning in common."""

    def step(self, parents: Sequence[int], actions: Sequence[Any], /) -> "list[_Told]":
        """World number i goes on from number ``parents[i]`` of the step before, in the first one from 0."""


@runtime_checkable
class Branching(Protocol):
    """A world that may go on in many ways at once."""

    @property
    def lanes(self) -> int:
        """Groups of worlds that are best stepped at the same time, in a thread each."""

    def branches(self) -> Together | None: ...


Place = Forking | SteppedWorld
"""A world at one of its frames."""
AT_ONCE = 64
"""Plans whose worlds are stepped together."""


@dataclass(frozen=True, eq=False, slots=True)
class Future:
    """What comes of a plan of K actions; the world may end before, after L of them."""

    plan: Actions
    """[K] or [K, D]."""
    frames: Frames
    """uint8 [L, H, W, 3]: the one behind each action."""
    rewards: Doubles
    """[L]."""
    ended: bool
    """Whether the last frame is the world's end."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def taken(self) -> Actions:
        """The actions that were carried out."""
        return self.plan[: len(self)]


def futures(place: Place, plans: Actions) -> list[Future]:
    """The future of each of N plans, [N, K] or [N, K, D], K >= 1, from where a world is; it is left there.

    DataError: an action that there is not, or the world is at its end.
    """
    found: dict[int, Future] = {}
    if isinstance(place, Branching):
        order = sorted(range(len(plans)), key=lambda number: plans[number].tobytes())  # what is shared stays together
        size = min(AT_ONCE, -(-len(order) // place.lanes))
        groups = [order[start : start + size] for start in range(0, len(order), size)]

        def those(group: list[int]) -> list[tuple[int, Future]]:
            worlds = place.branches()
            return [*zip(group, _together(worlds, plans[group]), strict=True)] if worlds else []

        with ThreadPoolExecutor(place.lanes) as lanes:
            # a single lane stays in this thread, which has chosen its GPU
            each = lanes.map(those, groups) if place.lanes > 1 else map(those, groups)
            found |= itertools.chain.from_iterable(each)
        if len(found) == len(plans):
            return [found[number] for number in range(len(plans))]
    again = _held(place)
    try:
        _branch(again, plans, list(range(len(plans))), [], found)
    finally:
        again()
    return [found[number] for number in range(len(plans))]


def carried_out(world: Steps, actions: Actions) -> Future:
    """The future of one plan, of one action at least, in the world itself: it goes on from there."""
    told: list[_Told] = []
    for action in actions:
        told.append(world.step(_given(action)))
        if told[-1][2]:
            break
    return _future(actions, told)


_Told = tuple[Frames, float, bool]


def _held(place: Place) -> Callable[[], Place]:
    """What gives a world at this frame, as often as it is called; of a real world, which is one, until the next."""
    if isinstance(place, Forking):
        return place.fork
    state = place.save()

    def again() -> Place:
        place.restore(state)
        return place

    return again


def _branch(
    again: Callable[[], Place], plans: Actions, members: Sequence[int], told: list[_Told], found: dict[int, Future]
) -> None:
    """The futures of the plans ``members``, whose first actions are those that ``told`` came of."""
    shared: dict[bytes, list[int]] = {}
    for number in members:
        shared.setdefault(plans[number, len(told)].tobytes(), []).append(number)
    for together in shared.values():
        world, mine = again(), list(told)
        while True:
            mine.append(world.step(_given(plans[together[0], len(mine)])))
            if mine[-1][2] or len(mine) == plans.shape[1]:
                found |= {number: _future(plans[number], mine) for number in together}
                break
            if any((plans[number, len(mine)] != plans[together[0], len(mine)]).any() for number in together[1:]):
                _branch(_held(world), plans, together, mine, found)
                break


def _together(worlds: Together, plans: Actions) -> list[Future]:
    """The futures of plans that are carried out side by side, a step of all at a time."""
    told: list[list[_Told]] = [[] for _ in plans]
    going = dict.fromkeys(range(len(plans)), 0)  # plan: its world
    for step in range(plans.shape[1]):
        shared: dict[tuple[int, bytes], list[int]] = {}
        for number, world in going.items():
            shared.setdefault((world, plans[number, step].tobytes()), []).append(number)
        parents, actions = [world for world, _ in shared], [_given(plans[same[0], step]) for same in shared.values()]
        came = worlds.step(parents, actions)
        for world, same in enumerate(shared.values()):
            for number in same:
                told[number].append(came[world])
                going[number] = world
        going = {number: world for number, world in going.items() if not told[number][-1][2]}
        if not going:
            break
    return [_future(plan, mine) for plan, mine in zip(plans, told, strict=True)]


def space_of(world: SteppedWorld) -> ActionSpace:
    """The actions of a real world; those of a learned one are in its bundle."""
    if world.actions:
        return ActionSpace(names=list(world.actions))
    low, high = world.bounds  # type: ignore[attr-defined]
    return ActionSpace(low=list(low), high=list(high))


def _given(action: Any) -> Any:
    """As a world takes it: an int, or a list of floats."""
    return np.asarray(action).tolist()


def _future(plan: Actions, told: Sequence[_Told]) -> Future:
    frames, rewards, ends = zip(*told, strict=True)
    return Future(np.asarray(plan), np.stack(frames), np.array(rewards, np.float64), bool(ends[-1]))
