"""A protocol: how many goal pictures are reached that somebody else reached in so many steps.

The starts are clips of a world whose recordings say what is where: of clip number s, the first frame and its state are
the start, and the last frame is the goal's picture. One has reached it if any frame, in twice the steps, was as near to
it as the world says (`nearness`). Clips that end early are left out, and those that end as near to where they began:
nobody would have to do anything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.play.control import Episode
from vpoet.play.futures import carried_out
from vpoet.worlds import Maker
from vpoet.worlds.environments.known import Measure
from vpoet.worlds.gym import GymWorld
from vpoet.worlds.world import SteppedWorld

AHEAD = 16
"""Steps from a start to its goal."""
Near = Sequence[tuple[Measure, float]]
"""What has to be where it is in the goal's picture, to so many of its units."""
PLACE: Near = ((Measure("place", ("x", "y"), "pixels at 64x64"), 3.0),)
"""Of a figure."""
FIRST = 1_000_000
"""Number of the first clip: no recording that is trained on comes near it."""


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """A frame to begin at, and a picture to come to."""

    seed: int
    """The clip's number."""
    policy: str
    """Who played it."""
    caption: str
    state: bytes
    frame: Frames
    goal: Frames
    truth: Mapping[str, Any]
    """What is where in the last frame of the clip."""
    text: str = ""
    """What is to be done (`vpoet.play.commands`); empty: to come to the goal's picture."""


def nearness(world: SteppedWorld) -> Near:
    """What counts as there in a world. DataError: an environment of which nobody says it."""
    if not isinstance(world, GymWorld):
        return PLACE
    if world.known is None or not world.known.near:
        raise DataError(
            f"env:{world.name}: nobody says how near to a goal is there; of env:gym_pusht/PushT-v0 one does"
        )
    return world.known.near


def starts(clip: Maker, near: Near, frames: int = AHEAD + 1, first: int = FIRST) -> Iterator[Start | None]:
    """Those of the clips, of so many frames, from number ``first`` on, without end; None for one left out.

    DataError: the world's clips do not say what state they begin in and what is where.
    """
    seed = first
    while True:
        shown, told = clip(seed)
        start = clip_start(seed, shown[0], told, shown[-1])
        begins = told_at(told["truth"], 0)
        yield None if len(shown) < frames or away(begins, start.truth, near) <= 1 else start
        seed += 1


def attempt(world: SteppedWorld, start: Start, play: Callable[[Start, int], Episode], seed: int) -> Episode:
    """What somebody does from a start; the seed is of it and the start."""
    world.restore(start.state)
    return play(start, int(np.random.SeedSequence([seed, start.seed]).generate_state(1)[0]))


def judged(world: SteppedWorld, near: Near, start: Start, episode: Episode) -> dict[str, Any]:
    """Whether the goal was reached, behind which action, how near one came (1 is there), and what was planned for it;
    told by doing it once more."""
    world.restore(start.state)
    distances = [away(world.truth, start.truth, near)]
    for action in episode.seen.actions:
        carried_out(world, np.array([action]))
        distances.append(away(world.truth, start.truth, near))
    there = next((step for step, distance in enumerate(distances) if distance <= 1), None)
    return {
        "clip": start.seed, "policy": start.policy, "reached": there is not None, "steps": there,
        "nearest": min(distances), "actions": episode.seen.actions.tolist(), "ended": episode.ended,
        "searches": len(episode.searches),
    }  # fmt: skip


def clip_start(seed: int, frame: Frames, told: dict[str, Any], goal: Frames, text: str = "") -> Start:
    """The start of clip number ``seed`` from its first frame and its json. DataError: the json does not say what is
    needed."""
    try:
        state, policy, truth = bytes.fromhex(told["state"]), str(told["policy"]), told_at(told["truth"], -1)
    except (KeyError, TypeError):
        raise DataError(
            f"{told.get('source')}: it says no state, or not what is where; world:playground does"
        ) from None
    caption = told["caption"]
    return Start(seed, policy, caption if isinstance(caption, str) else caption[0], state, frame, goal, truth, text)


def away(truth: Mapping[str, Any], goal: Mapping[str, Any], near: Near) -> float:
    """How far a frame is from a goal, of what counts as there: 1 or less is there."""
    return max(measure.apart(goal, truth) / most for measure, most in near)


def told_at(truth: Mapping[str, Any], frame: int) -> dict[str, Any]:
    """Of one frame, from what a clip's json says of all: lists of what changes, and what stays."""
    return {name: value[frame] if isinstance(value, list) else value for name, value in truth.items()}
