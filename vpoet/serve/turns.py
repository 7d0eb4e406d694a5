"""Whose turn it is: threads use a model one after the other, in the order in which they came."""

import threading
from collections import deque
from types import TracebackType
from typing import Self


class Turns:
    """A lock that is fair: who lets go and asks again stands at the end of the line. Use it as a context."""

    def __init__(self) -> None:
        self._line: deque[int] = deque()
        self._moved = threading.Condition()
        self._numbers = 0

    def __enter__(self) -> Self:
        with self._moved:
            mine, self._numbers = self._numbers, self._numbers + 1
            self._line.append(mine)
            self._moved.wait_for(lambda: self._line[0] == mine)
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        with self._moved:
            self._line.popleft()
            self._moved.notify_all()
