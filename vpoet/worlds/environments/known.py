"""The contract of what is known of an environment of gymnasium: names for its truth, a judge, and a player."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from vpoet.arrays import Doubles, Frames

Told = Mapping[str, Any]
"""What is where in a frame, by name; None for what is not there."""


@dataclass(frozen=True)
class Measure:
    """One thing that a truth tells and a judge sees, and how far apart they are."""

    name: str
    keys: tuple[str, ...]
    """Of a truth: the numbers that say where it is, or how many."""
    unit: str
    turn: float = 0
    """Of an angle: what comes round again; 0: it does not."""
    always: bool = True
    """Whether every sound frame shows it."""

    def at(self, told: Told) -> tuple[float, ...] | None:
        """The numbers; None where there is no such thing."""
        found = [told.get(key) for key in self.keys]
        return None if None in found else tuple(float(number) for number in found if number is not None)

    def apart(self, truth: Told, seen: Told) -> float:
        """Units between them; inf where the judge sees none, nan where there is none to be seen."""
        there, here = self.at(truth), self.at(seen)
        if there is None:
            return math.nan
        if here is None:
            return math.inf
        far = math.dist(there, here) % self.turn if self.turn else math.dist(there, here)
        return min(far, self.turn - far) if self.turn else far


class Environment(ABC):
    """What is known of one, at one size."""

    options: ClassVar[Mapping[str, Any]] = {}
    """What gymnasium is told beside its name."""
    measures: ClassVar[tuple[Measure, ...]]
    """The first one is of what the player moves."""
    left_out: ClassVar[str]
    """Which rows of a learned world's table have no meaning here, and why."""
    near: ClassVar[tuple[tuple[Measure, float], ...]] = ()
    """How far from a goal a frame may be, at most, to count as there: in all of these; empty: nobody says it."""
    scores: ClassVar[bool]
    """Whether a reward above 0 is something that happens, as a brick that is hit, and no height that one is at."""

    @abstractmethod
    def __init__(self, make: Callable[[], Any], squeeze: Callable[[Frames], Frames]) -> None:
        """``make`` gives the environment once more, to draw with, and ``squeeze`` brings a picture to the size of the
        frames that are judged."""

    @staticmethod
    @abstractmethod
    def truth(told: Told) -> dict[str, float | None]:
        """All that `measures` name, from what `vpoet.worlds.gym.GymWorld` tells."""

    @abstractmethod
    def see(self, frames: Frames) -> list[dict[str, float | None]]:
        """The same of each frame uint8 [T, H, W, 3], told by the pixels alone."""

    @staticmethod
    @abstractmethod
    def player(random: np.random.Generator) -> Callable[[Told], Any]:
        """Somebody who plays for something: from the truth of a frame, the next action."""


def densest(share_HW: Doubles, rows: int, columns: int) -> tuple[float, float]:
    """Row and column, from the upper left corner of a picture, of the middle of that window of so many rows and columns
    that holds most."""
    sums_HW = np.pad(share_HW, ((rows, rows), (columns, columns))).cumsum(0).cumsum(1)
    sums_HW = np.pad(sums_HW, ((1, 0), (1, 0)))
    window_HW = (
        sums_HW[rows:, columns:] - sums_HW[:-rows, columns:] - sums_HW[rows:, :-columns] + sums_HW[:-rows, :-columns]
    )
    row, column = np.unravel_index(window_HW.argmax(), window_HW.shape)
    return float(row) - rows / 2, float(column) - columns / 2
