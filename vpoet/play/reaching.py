"""A protocol: how many goal pictures are reached that somebody else reached in so many steps.

The starts are clips of a world (`vpoet.worlds.world.World`) whose recordings say where the figure is: of clip number s,
the first frame and its state are the start, and the last frame is the goal's picture. One has reached it if the figure
was within `NEAR` units (pixels, of a frame of 64) of its place in the goal's picture, in any frame, in twice the steps.
Clips that end early are left out, and those that end as near to where they began: nobody would have to do anything.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.play.control import Episode
from vpoet.play.futures import carried_out
from vpoet.worlds.world import SteppedWorld, World

AHEAD = 16
"""Steps from a start to its goal."""
NEAR = 3.0
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
    place: tuple[float, float]
    """Where the figure is in the last frame of the clip, in units."""
    text: str = ""
    """What is to be done (`vpoet.play.commands`); empty: to come to the goal's picture."""


def starts(clips: World, first: int = FIRST) -> Iterator[Start | None]:
    """Those of the clips, of `AHEAD` + 1 frames, from number ``first`` on, without end; None for one left out.

    DataError: the world's clips do not say what state they begin in and where the figure is.
    """
    seed = first
    while True:
        frames, told = clips.clip(seed)
        start = clip_start(seed, frames[0], told, frames[-1])
        begins = {axis: told["truth"][axis][0] for axis in "xy"}
        yield None if len(frames) < clips.frames or away(begins, start.place) <= NEAR else start
        seed += 1


def attempt(world: SteppedWorld, start: Start, play: Callable[[Start, int], Episode], seed: int) -> Episode:
    """What somebody does from a start; the seed is of it and the start."""
    world.restore(start.state)
    return play(start, int(np.random.SeedSequence([seed, start.seed]).generate_state(1)[0]))


def judged(world: SteppedWorld, start: Start, episode: Episode) -> dict[str, Any]:
    """Whether the goal was reached, behind which action, how near the figure came, and what was planned for it; told by
    doing it once more."""
    world.restore(start.state)
    distances = [away(world.truth, start.place)]
    for action in episode.seen.actions:
        carried_out(world, np.array([action]))
        distances.append(away(world.truth, start.place))
    there = next((step for step, distance in enumerate(distances) if distance <= NEAR), None)
    return {
        "clip": start.seed, "policy": start.policy, "reached": there is not None, "steps": there,
        "nearest": min(distances), "actions": episode.seen.actions.tolist(), "ended": episode.ended,
        "searches": len(episode.searches),
    }  # fmt: skip


def clip_start(seed: int, frame: Frames, told: dict[str, Any], goal: Frames, text: str = "") -> Start:
    """The start of clip number ``seed`` from its first frame and its json. DataError: the json does not say what is
    needed."""
    try:
        state, policy, truth = bytes.fromhex(told["state"]), str(told["policy"]), told["truth"]
        place = float(truth["x"][-1]), float(truth["y"][-1])
    except (KeyError, TypeError):
        raise DataError(
            f"{told.get('source')}: it says no state or no place of a figure (x, y); world:playground does"
        ) from None
    return Start(seed, policy, told["caption"][0], state, frame, goal, place, text)


def away(truth: dict[str, Any], place: tuple[float, float]) -> float:
    """How far a figure is from a place, in units."""
    return float(np.hypot(truth["x"] - place[0], truth["y"] - place[1]))
