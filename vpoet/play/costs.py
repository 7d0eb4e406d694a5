"""What a plan is to bring about, as a cost of its future: the lower, the better.

A cost is any function from a `Future` of L steps to float64 [L]: what it would be to stop behind each of them. A plan
is as good as its best step, and ends there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from vpoet.arrays import Doubles, Frames, Ints
from vpoet.errors import ShapeError
from vpoet.nn.features import FeatureNetwork, perceptual_distance
from vpoet.play.futures import Future

Cost = Callable[[Future], Doubles]
Distance = Callable[[Frames, Frames], Doubles]
"""Of frames uint8 [T, H, W, 3] from a picture uint8 [H, W, 3]: [T], 0 for its equals."""


@dataclass(frozen=True, eq=False)
class Goal:
    """To show a picture."""

    picture: Frames
    """uint8 [H, W, 3], of the world's size."""
    distance: Distance

    def __call__(self, future: Future) -> Doubles:
        return self.distance(future.frames, self.picture)

    def stay(self, frame: Frames) -> float:
        """What it costs to stop at once."""
        return float(self.distance(frame[None], self.picture)[0])


def reward(future: Future) -> Doubles:
    """Less for every reward; that of a learned world is its sign alone."""
    return -future.rewards.cumsum()


def pixels(frames: Frames, picture: Frames) -> Doubles:
    """How far the colours of a frame would have to be moved, about: 255 of one channel by a pixel is 1.

    Differences are summed over squares of 1, 2, 4 ... pixels a side, and those of larger squares, which only things
    that are further away leave, count more: the earth mover's distance in a quadtree (Indyk and Thaper, 2003, section
    3). So a figure that is nearer costs less, where a plain difference of pixels is the same anywhere but there.
    """
    _check(frames, picture)
    difference = frames.astype(np.int32) - picture
    total, side = np.zeros(len(frames)), 1
    while True:
        total += side * np.abs(difference).reshape(len(frames), -1).sum(1)
        if difference.shape[1:3] == (1, 1):
            return total / 255
        side, difference = 2 * side, _halved(difference)


def features(network: FeatureNetwork) -> Distance:
    """The distance by a trained network (`vpoet.nn.features`): of what frames show more than of where it is."""

    @torch.inference_mode()
    def distance(frames: Frames, picture: Frames) -> Doubles:
        _check(frames, picture)
        both = (torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1 for x in (frames, picture[None]))
        shown, wanted = both
        found: Doubles = perceptual_distance(network, shown, wanted.expand_as(shown)).double().numpy()
        return found

    return distance


def _halved(difference: Ints) -> Ints:
    """Sums over squares of two a side [T, H, W, 3]; what lies outside is 0."""
    height, width = difference.shape[1:3]
    if height % 2 or width % 2:
        difference = np.pad(difference, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    rows = difference[:, ::2] + difference[:, 1::2]
    return rows[:, :, ::2] + rows[:, :, 1::2]


def _check(frames: Frames, picture: Frames) -> None:
    if frames.shape[1:] != picture.shape:
        high, wide = frames.shape[1:3]
        raise ShapeError(f"the goal is a picture of {picture.shape}, and the world's frames are {(high, wide, 3)}")
