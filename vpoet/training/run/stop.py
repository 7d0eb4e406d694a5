"""Ctrl-C and SIGTERM: noted, so that a loop finishes its step, saves, and ends as a process does that they end."""

import signal
import sys
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Catches the signals from now on, in this process."""

    def __init__(self) -> None:
        self.signal = 0
        """Number of the signal that came last; 0 while none has."""
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number


def leave(number: int) -> NoReturn:
    """Exit as shells tell of a process that this signal ended: with 130 after Ctrl-C, 143 after SIGTERM."""
    sys.exit(128 + number)
