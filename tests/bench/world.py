"""The playground: how fast it is stepped and drawn, and how often its judge is right.

Speeds are frames a second of processor time, so that other work counts for little; ratios are medians over rounds that
take turns.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.evaluate.intervals import wilson
from vpoet.worlds.platformer.world import Platformer
from vpoet.worlds.playground.physics import ACTIONS
from vpoet.worlds.playground.recordings import Recordings
from vpoet.worlds.playground.stepped import Playground

ROUNDS = 9
STEPS = 2000
FRESH = 3_000_000_000
"""The first clip's number: no training, tuning or test set has any of these."""
CLIPS, FRAMES = 125, 17
NOISE = {"as drawn": 0.0, "noise of 36 dB": 4.04, "noise of 28 dB": 10.15}
"""Standard deviation in 8-bit steps."""
NEAR = 0.5
"""Pixels at 64x64."""


def playground(budget: float) -> dict[str, Any]:
    """Random keys at 64x64, frames drawn. ``copies`` are what a frame costs at least, the background's copy; ``clips``
    are frames of what `vpoet ingest` records, before it is encoded; ``platformer`` is the world whose clips are drawn
    whole."""
    world, recordings, drawn = Playground(), Recordings(frames=33), Platformer(frames=33)
    stage = world.reset(0)

    def stepped() -> int:
        world.reset(0)
        for at, action in enumerate(np.random.default_rng(0).integers(len(ACTIONS), size=STEPS).tolist()):
            if world.step(action)[2]:
                world.reset(at)
        return STEPS

    work: dict[str, Callable[[], int]] = {
        "steps": stepped,
        "copies": lambda: len([stage.copy() for _ in range(STEPS)]),
        "clips": lambda: sum(len(recordings.clip(seed)[0]) for seed in range(20)),
        "platformer": lambda: sum(len(drawn.clip(seed)[0]) for seed in range(10)),
    }
    rates: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, each in work.items():
            began = time.process_time()
            frames = each()
            rates[name].append(frames / (time.process_time() - began))
    found = {f"{name}_frames_per_cpu_second": round(max(rate)) for name, rate in rates.items()}
    ratios = [mine / theirs for mine, theirs in zip(rates["steps"], rates["platformer"], strict=True)]
    return {**found, "steps_to_platformer": round(median(ratios), 1)}


def playground_judge(budget: float) -> dict[str, Any]:
    """Of each attribute: on how many of the held-out frames the judge is right, of how many; of the place, within half
    a pixel. ``all`` is all of them at once, with the ends of the share's 95% interval (Wilson)."""
    recordings, judge, result = Recordings(frames=FRAMES), Playground(), dict[str, Any]()
    clips = [recordings.clip(seed) for seed in range(FRESH, FRESH + CLIPS)]
    random = np.random.default_rng(0)
    for name, noise in NOISE.items():
        right: dict[str, int] = {}
        count = 0
        for frames, facts in clips:
            for seen, truth in zip(judge.see(_noisy(frames, noise, random)), _truths(facts), strict=True):
                marks = {key: _right(value, truth[key]) for key, value in seen.items()}
                for key, mark in (marks | {"all": all(marks.values())}).items():
                    right[key] = right.get(key, 0) + mark
                count += 1
        share, (low, high) = right["all"] / count, wilson(right["all"], count)
        result[name] = {**right, "of": count, "percent": [round(100 * x, 2) for x in (share, low, high)]}
    return result


def _noisy(frames: Frames, noise: float, random: np.random.Generator) -> Frames:
    return np.rint(random.normal(frames, noise)).clip(0, 255).astype(np.uint8) if noise else frames


def _truths(facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each frame of a clip."""
    moving = {key: value for key, value in facts["truth"].items() if isinstance(value, list)}
    still = {key: value for key, value in facts["truth"].items() if key not in moving}
    return [still | {key: value[t] for key, value in moving.items()} for t in range(facts["frames"])]


def _right(seen: Any, true: Any) -> bool:
    if isinstance(true, int | float) and isinstance(seen, int | float):
        return abs(seen - true) <= NEAR
    return bool(seen == true)
