"""How far the judges of PushT and Breakout are off on real frames, by the size of the frames: nobody who learns them
can be measured more finely than that. Needs `pip install "vpoet[gym,atari]"`.
"""

from typing import Any

import numpy as np

from vpoet.evaluate.courses import UNSEEN
from vpoet.worlds.environments import MODULES
from vpoet.worlds.gym import GymWorld

SIZES = (64, 96, 128)
FIRST, RECORDINGS, FRAMES = UNSEEN + 1_000_000, 4, 33
"""Recordings that nobody looked at when the judges were made."""


def environment_judges(budget: float) -> dict[str, Any]:
    """Of each environment, size and thing: median and 95th percentile of what the judge is off, in the thing's units,
    and in how many frames it sees none where there is one."""
    return {f"{name} at {size}": judged(GymWorld(name, size, size)) for name in MODULES for size in SIZES}


def judged(world: GymWorld) -> dict[str, dict[str, float | str]]:
    assert world.known
    off: dict[str, list[float]] = {measure.name: [] for measure in world.known.measures}
    for number in range(FIRST, FIRST + RECORDINGS):
        frames, facts = world.clip(number, FRAMES)
        truths = [{key: told[at] for key, told in facts["truth"].items()} for at in range(len(frames))]
        for truth, seen in zip(truths, world.see(frames), strict=True):
            for measure in world.known.measures:
                off[measure.name].append(measure.apart(truth, seen))
    told: dict[str, dict[str, float | str]] = {}
    for measure in world.known.measures:
        values = np.array(off[measure.name])
        values = values[~np.isnan(values)]
        half, most = np.percentile(values, (50, 95), method="higher")
        told[measure.name] = {
            "median": round(half, 2), "95%": round(most, 2), "unseen": int(np.isinf(values).sum()),
            "of": len(values), "unit": measure.unit,
        }  # fmt: skip
    return told
