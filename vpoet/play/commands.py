"""A protocol: how many commands are carried out, texts that say what a figure is to do.

The starts are those of `vpoet.play.reaching`, and the command is the first other thing that the recording's player did
in `AHEAD` steps, in the words of its captions in time ("a robot walks left", "a robot is on the ladder"), for two
frames at least. It is carried out if the figure does so for two frames on end within as many steps.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.play.control import Episode
from vpoet.play.futures import carried_out
from vpoet.play.players import Player, by_chance, by_policy, followed
from vpoet.play.reaching import AHEAD, FIRST, Start, clip_start, told_at
from vpoet.play.reading import infer, space
from vpoet.worlds.world import SteppedWorld, World

HOLD = 2
"""Frames on end that something is to be done for."""
GUIDANCE = 8.0
"""Of a policy that is told a command: chosen of 1, 2, 4 and 8 on 40 starts from clip 500,000,000 on."""


def commands(clips: World, first: int = FIRST) -> Iterator[Start | None]:
    """Those of the clips, of `AHEAD` + 1 frames, from number ``first`` on, without end; None for one left out, whose
    player did nothing else. The start's goal shows the command carried out.

    DataError: the world's clips do not say what state they begin in, or have no words for what is done.
    """
    seed = first
    while True:
        frames, told = clips.clip(seed)
        doings = [clips.doing(told_at(told["truth"], at)) for at in range(len(frames))]
        held = [at for at in range(1, len(doings) - HOLD + 1) if len(set(doings[at : at + HOLD])) == 1]
        other = [at for at in held if doings[at] != doings[0] and not doings[at].endswith(" falls")]
        if other:
            goal = frames[other[0] + HOLD - 1]
            yield clip_start(seed, frames[0], told, goal, text=doings[other[0]])
        else:
            yield None
        seed += 1


def obeyed(
    world: SteppedWorld, doing: Callable[[dict[str, Any]], str], start: Start, episode: Episode
) -> dict[str, Any]:
    """Whether the command was carried out, and behind which action; told by doing it once more."""
    world.restore(start.state)
    done = 0
    there = None
    for step, action in enumerate(episode.seen.actions, start=1):
        carried_out(world, np.array([action]))
        done = done + 1 if doing(world.truth) == start.text else 0
        if done == HOLD:
            there = step
            break
    return {
        "clip": start.seed, "policy": start.policy, "command": start.text, "reached": there is not None, "steps": there,
        "actions": episode.seen.actions.tolist(), "ended": episode.ended, "searches": len(episode.searches),
    }  # fmt: skip


def obedient(world: SteppedWorld, model: Model | None) -> dict[str, Player]:
    """Who is told a command, by name; what the model was not trained for is left out."""
    found: dict[str, Player] = {"random keys": partial(by_chance, world, limit=AHEAD)}
    tasks = [] if model is None else model.bundle.config.tasks
    if model is not None and "policy" in tasks:
        found["model, policy, told nothing"] = lambda start, seed: by_policy(
            world, model, start, seed, start.caption, AHEAD
        )
        found["model, policy"] = lambda start, seed: by_policy(world, model, start, seed, start.text, AHEAD)
        found["model, policy, guided"] = lambda start, seed: by_policy(
            world, model, start, seed, start.text, AHEAD, GUIDANCE
        )
    if model is not None and {"i2v", "inverse"} <= set(tasks):
        found["model, actions of an imagined video"] = partial(_by_video, world, model)
    return found


def _by_video(world: SteppedWorld, model: Model, start: Start, seed: int) -> Episode:
    """A video of the command is imagined from the first frame, and its actions are read and carried out (UniPi: Du et
    al., arXiv:2302.00111)."""
    clip = model.sample(start.text, image=Video(start.frame[None], 0.0), frames=AHEAD + 1, seed=seed)
    read = infer(model, model.bundle.video.encode(clip.frames), start.text)
    return followed(world, start, np.asarray(space(model).actions(read.values)))
