"""Where a film's shots end, told while it is decoded: in frames as they are decoded, never in times to be rounded.

A detector sees each frame of a film as a thumbnail and gives it a mark, some frames later:

    shown    A A A A B B B B # # # C C C        #: black between two fades, or in a dissolve both shots at once
    mark     . . . . c . . . - - - . . .        .: `Mark.SAME`   c: `Mark.CUT`   -: `Mark.BETWEEN`
    shot     0 0 0 0 1 1 1 1       2 2 2

The detector of this module needs no package and no weights. It compares frames with their neighbours, and knows that
where all moves (a pan) a frame changes no more than those around it, that a flash goes back to what was there before
and only adds or takes light, that a jolt of the camera shows the same picture a little aside, and that a fade ends in a
frame that shows nothing. `vpoet.media.detectors` has those of others.
"""

from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.media.images import THUMB

AHEAD = 8
"""Frames before and after one that are looked at; a flash lasts as many at most."""
LEAST, TIMES, ABOVE = 4.5, 2.4, 2.0
"""A cut changes pixels by so many levels of 255 in the mean; by so many times what moves around it; by so much more."""
BACK = 0.5
"""Less than this share of a change is left when a flash is over."""
ONE_SIGN = 0.8
"""At least so much of a change is in one direction when a light goes on or off."""
JOLT = (3, 6)
"""Pixels of a thumbnail, down and across, by which a camera may jump between two frames."""
BLANK = 4.0
"""Levels of 255 by which a frame that shows nothing varies at most (a standard deviation)."""
SUDDEN = 0.6
"""Of the way to a frame of one colour, a flash goes at least this share in one frame."""


class Mark(Enum):
    """What a frame is to the one before it."""

    SAME = "of the same shot"
    CUT = "the first of a new shot"
    BETWEEN = "of no shot; the next that is of one begins a new one"


class Detector(Protocol):
    """The frames of one film in, one mark for each out: in order, and some frames later."""

    def add(self, thumb: Frames, /) -> list[Mark]:
        """``uint8 [27, 48, 3]``, RGB, of the next frame; the marks that are certain now."""

    def end(self) -> list[Mark]:
        """The film has ended: the marks of the frames that have none yet."""


class Shots:
    """The number of the shot that each frame of a film belongs to, by the marks of a detector."""

    def __init__(self, detector: Detector) -> None:
        self.decided = 0
        """Frames whose shot is known."""
        self._detector = detector
        self._shot, self._any, self._new = 0, False, False
        self._runs: list[tuple[int, int | None]] = []
        """First frame and shot of runs of frames, from that of the last one asked for on."""

    def add(self, thumb: Frames) -> None:
        """The next frame, as `Detector.add` takes it."""
        self._number(self._detector.add(thumb))

    def end(self) -> None:
        """There are no more frames; all are decided."""
        self._number(self._detector.end())

    def of(self, frame: int) -> int | None:
        """From 0 on; None for a frame between shots. Ask in order, and for frames that are decided."""
        while len(self._runs) > 1 and self._runs[1][0] <= frame:
            del self._runs[0]
        return self._runs[0][1]

    def _number(self, marks: Iterable[Mark]) -> None:
        for mark in marks:
            if mark is Mark.BETWEEN:
                shot, self._new = None, self._any
            else:
                self._shot += self._new or (mark is Mark.CUT and self._any)
                shot, self._any, self._new = self._shot, True, False
            if not self._runs or self._runs[-1][1] != shot:
                self._runs.append((self.decided, shot))
            self.decided += 1


class _Look(NamedTuple):
    """A frame as the detector holds it."""

    thumb: npt.NDArray[np.int16]
    change: float
    """Mean levels of 255 by which it differs from the frame before."""
    blank: bool


class CutDetector:
    """The detector of this module: hard cuts, and fades through a frame of one colour. Dissolves are not its matter."""

    def __init__(self) -> None:
        self._held: list[_Look] = []
        self._at = 0
        """Which of those held is marked next."""
        self._run: Mark | None = None
        """How the frames of the blank run that it is in are marked."""

    def add(self, thumb: Frames, /) -> list[Mark]:
        picture = thumb.astype(np.int16)
        change = _distance(self._held[-1].thumb, picture) if self._held else 0.0
        self._held.append(_Look(picture, change, float(picture.std(axis=(0, 1)).max()) < BLANK))
        return [self._mark()] if len(self._held) - self._at > AHEAD else []

    def end(self) -> list[Mark]:
        return [self._mark() for _ in range(self._at, len(self._held))]

    def _mark(self) -> Mark:
        at, look = self._at, self._held[self._at]
        if look.blank:
            mark = self._run = self._run or self._blank(at)
        else:
            mark = Mark.CUT if at and self._run is None and self._is_cut(at) else Mark.SAME
            self._run = None
        self._at += 1
        if self._at > AHEAD + 1:
            del self._held[0]
            self._at -= 1
        return mark

    def _is_cut(self, at: int) -> bool:
        change = self._held[at].change
        before = [look.change for look in self._held[max(0, at - AHEAD) : at]]
        after = [look.change for look in self._held[at + 1 : at + 1 + AHEAD]]
        # Of each side the second largest: the largest may be another cut. Where a rate was converted (3 frames shown
        # of each 4, or each 3 times), only every so many of them differ at all.
        around = max((sorted(side)[-2] for side in (before, after) if len(side) > 1), default=0.0)
        if change < max(LEAST, TIMES * around, ABOVE + around):
            return False
        return not (self._is_light(at, around) or self._is_jolt(at))

    def _is_light(self, at: int, around: float) -> bool:
        """Whether a light goes on or off here, and what was there before the flash is there after it, but for what
        moves."""
        new, old = self._held[at].thumb, self._held[at - 1].thumb
        added = (new - old).astype(np.float32)
        if abs(added.mean()) < ONE_SIGN * np.abs(added).mean():
            return False
        most = max(LEAST, BACK * self._held[at].change) + around
        before, after = self._held[max(0, at - AHEAD) : at], self._held[at : at + 1 + AHEAD]
        return any(_distance(one.thumb, other.thumb) < most for one in before for other in after)

    def _is_jolt(self, at: int) -> bool:
        """Whether the frame is the one before it, moved aside."""
        new, old = self._held[at].thumb, self._held[at - 1].thumb
        most, (height, width) = max(LEAST, BACK * self._held[at].change), THUMB
        for down in range(-JOLT[0], JOLT[0] + 1):
            for across in range(-JOLT[1], JOLT[1] + 1):
                there = new[max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
                here = old[max(0, -down) : height + min(0, -down), max(0, -across) : width + min(0, -across)]
                if _distance(there, here) < most:
                    return True
        return False

    def _blank(self, first: int) -> Mark:
        """How a run of blank frames that begins here is marked: as part of its shot if it is a flash in it, which comes
        at once, where a fade takes its time, and leaves what was there before."""
        if first == 0:
            return Mark.BETWEEN
        look, before = self._held[first], self._held[max(0, first - AHEAD) : first]
        sudden = look.change > SUDDEN * _distance(before[0].thumb, look.thumb)
        later = (each.thumb for each in self._held[first + 1 : first + 1 + AHEAD])
        back = any(_distance(before[-1].thumb, each) < BACK * look.change for each in later)
        return Mark.SAME if sudden and back else Mark.BETWEEN


def _distance(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())
