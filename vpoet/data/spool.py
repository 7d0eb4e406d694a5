"""A list too long for memory: its entries lie in a file, and what is kept of each is where."""

import json
import tempfile
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")

IN_MEMORY = 1 << 24
"""Bytes of a list up to which there is no file."""


class Made(Sequence[T], Generic[T]):
    """A list whose entries are made when they are asked for, each time anew."""

    @abstractmethod
    def at(self, place: int) -> T:
        """The entry at a place, 0 to the length - 1."""

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self.at(place) for place in range(*at.indices(len(self)))]
        return self.at(range(len(self))[at])

    def __iter__(self) -> Iterator[T]:
        return (self.at(place) for place in range(len(self)))


class Spool(Made[T]):
    """Objects of a dataclass whose fields are what JSON knows, read from the file.

    Of each entry 8 bytes stay in memory. The file has no name and is gone with the list.
    """

    def __init__(self, kind: Callable[..., T]) -> None:
        self._kind = kind
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - open as long as the list lives
        self._starts = array("Q", [0])

    def extend(self, entries: Iterable[T]) -> None:
        self._file.seek(self._starts[-1])
        for entry in entries:
            size = self._file.write(json.dumps(vars(entry)).encode())
            self._starts.append(self._starts[-1] + size)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def at(self, place: int) -> T:
        self._file.seek(self._starts[place])
        return self._kind(**json.loads(self._file.read(self._starts[place + 1] - self._starts[place])))


class Some(Made[T]):
    """The entries of a list at given places."""

    def __init__(self, entries: Sequence[T], places: Iterable[int]) -> None:
        self._entries, self._places = entries, array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    def at(self, place: int) -> T:
        return self._entries[self._places[place]]
