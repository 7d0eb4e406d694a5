"""How often `vpoet evaluate`'s judge is right: fresh clips of the world accepted, clips with one fault refused.

Each clip is judged by its own caption, as drawn and through the shipped bundle's tokenizer, which repairs some faults:
a ghost can come out solid. A corruption that leaves a clip as it was is not counted.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

import vpoet
from vpoet.arrays import Frames
from vpoet.evaluate.adherence import wrong
from vpoet.evaluate.intervals import wilson
from vpoet.media.video import Video
from vpoet.worlds.platformer.corruptions import CORRUPTIONS
from vpoet.worlds.platformer.world import Platformer

FRESH = 3_000_000_000
"""The first clip's number: no training, tuning or test set has any of these."""
REAL, CORRUPTED = 500, 100
"""Clips as they are, and of each corruption."""


def judge_accuracy(budget: float) -> dict[str, Any]:
    """Of each kind of clip: [accepted or refused, of how many, and the ends of the share's 95% interval (Wilson)]."""
    world, coder = Platformer(), vpoet.load(device="cpu").bundle.video
    result: dict[str, Any] = {}
    for through in (False, True):
        for name, cases in kinds().items():
            right = count = 0
            for frames, asked in cases:
                seen = coder.decode(coder.encode(Video(frames, 8.0))) if through else frames
                right += bool(wrong(asked, world.see(seen))) == (name != "real clips")
                count += 1
            verdict = "accepted" if name == "real clips" else "refused"
            low, high = wilson(right, count)
            result[f"{name}{' through the tokenizer' if through else ''}"] = {
                verdict: right, "of": count, "percent": [round(100 * x, 1) for x in (right / count, low, high)]
            }  # fmt: skip
    return result


def kinds() -> dict[str, Iterator[tuple[Frames, dict[str, str]]]]:
    """Name -> clips with what their prompts state."""
    return {
        "real clips": ((frames, asked) for frames, asked in map(real, range(FRESH, FRESH + REAL))),
        "another clip's prompt": anothers(),
        **{name: corrupted(name) for name in CORRUPTIONS},
    }


def real(seed: int) -> tuple[Frames, dict[str, str]]:
    frames, facts = Platformer().clip(seed)
    return frames, Platformer.stated(facts, seed % Platformer.phrasings)


def anothers() -> Iterator[tuple[Frames, dict[str, str]]]:
    """Of prompts that do not happen to be true of the clip as well."""
    for seed in range(FRESH, FRESH + CORRUPTED):
        frames, asked = real(seed)
        other = real(seed + 1)[1]
        if any(asked.get(name, value) != value for name, value in other.items()):
            yield frames, other


def corrupted(name: str) -> Iterator[tuple[Frames, dict[str, str]]]:
    for seed in range(FRESH, FRESH + CORRUPTED):
        frames, asked = real(seed)
        faulty = CORRUPTIONS[name](seed)
        if not np.array_equal(faulty, frames):
            yield faulty, asked
