"""Damage to clips, each kind in four rungs, to see which measures notice it.

    blur             Gaussian, its deviation in 1/128 of the shorter side
    shuffled frames  the share of frames that have changed places, each with another
    frozen frames    the share of frames, the last ones, that repeat the one before them
    compression      H.264 at a quantiser (crf)
    colour shift     steps of 255 that red gains and blue loses

A rung's damage contains that of the rung below: the frames that are shuffled at one half are shuffled at three
quarters, too.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from vpoet.arrays import Frames
from vpoet.media.video import Video

RATE = 8.0
"""Frames per second to compress at: crf does not heed it."""


@dataclass(frozen=True)
class Corruption:
    """A kind of damage. ``apply(frames, level, random)`` leaves size and length as they are."""

    name: str
    levels: tuple[float, ...]
    """Of the rungs, from the least on."""
    apply: Callable[[Frames, float, np.random.Generator], Frames]

    def damaged(self, frames: Frames, level: float, seed: int) -> Frames:
        """A clip uint8 [T, H, W, 3] with this damage; the same seed damages it in the same places at each level."""
        return self.apply(frames, level, np.random.default_rng(seed))


def blurred(frames: Frames, level: float, _: np.random.Generator) -> Frames:
    filter = ImageFilter.GaussianBlur(level * min(frames.shape[1:3]) / 128)
    return np.stack([np.asarray(Image.fromarray(frame).filter(filter)) for frame in frames])


def shuffled(frames: Frames, share: float, random: np.random.Generator) -> Frames:
    chosen = random.permutation(len(frames))[: round(share * len(frames))]
    found = frames.copy()
    found[chosen] = frames[np.roll(chosen, 1)]  # round in a circle, so that none stays
    return found


def frozen(frames: Frames, share: float, _: np.random.Generator) -> Frames:
    found = frames.copy()
    stop = max(1, len(frames) - round(share * len(frames)))
    found[stop:] = frames[stop - 1]
    return found


def compressed(frames: Frames, crf: float, _: np.random.Generator) -> Frames:
    return Video.read(Video(frames, RATE).encode(".mp4", crf=int(crf))).frames


def shifted(frames: Frames, steps: float, _: np.random.Generator) -> Frames:
    moved = frames.astype(np.int16) + (np.array([1, 0, -1]) * int(steps)).astype(np.int16)
    return moved.clip(0, 255).astype(np.uint8)


CORRUPTIONS = (
    Corruption("blur", (0.5, 1, 2, 4), blurred),
    Corruption("shuffled frames", (0.25, 0.5, 0.75, 1), shuffled),
    Corruption("frozen frames", (0.25, 0.5, 0.75, 1), frozen),
    Corruption("compression", (30, 37, 44, 51), compressed),
    Corruption("colour shift", (8, 16, 32, 64), shifted),
)
