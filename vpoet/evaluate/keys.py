"""Whether the keys can be read off the frames: those of the simulator, and those that a learned world dreamt.

A key can be told where the simulator's next frame under it is another than under every other key: nobody can tell who
presses left against a wall from who presses nothing. What reads it is the model itself
(`vpoet.play.reading`).
"""

from collections.abc import Sequence

import numpy as np

from vpoet.arrays import Frames, Mask
from vpoet.generate.model import Model
from vpoet.play.reading import WAYS, infer
from vpoet.worlds.world import SteppedWorld


def telling(simulator: SteppedWorld, state: bytes, keys: Sequence[int]) -> Mask:
    """[n]: whether each of the keys, pressed one after the other from a state on, can be told by what it led to."""
    found = np.zeros(len(keys), bool)
    for step, pressed in enumerate(keys):
        frames = []
        for key in [other for other in range(len(simulator.actions)) if other != pressed] + [pressed]:
            simulator.restore(state)
            frame, _, ended = simulator.step(key)
            frames.append(frame)
        found[step] = not any(np.array_equal(frame, other) for other in frames[:-1])
        if ended:
            break
        state = simulator.save()
    return found


def keys_read(
    model: Model, seen: Frames, frames: Frames, text: str, keys: Sequence[int], told: Mask
) -> dict[str, tuple[int, int]]:
    """Of the keys that led to ``frames`` [n, H, W, 3], which follow those that were ``seen`` [s, H, W, 3], and that can
    be ``told`` [n]: how many the model reads as what they were, and how many they are, by each way that it has."""
    codes, found = model.bundle.video.encode(np.concatenate([seen, frames])), dict[str, tuple[int, int]]()
    for way in WAYS:
        if way in model.bundle.config.tasks:
            actions = infer(model, codes, text, way).actions[len(seen) - 1 :]
            hits = sum(told[step] and int(actions[step]) == keys[step] for step in range(len(frames)))
            found[way] = int(hits), int(told[: len(frames)].sum())
    return found
