"""A list too long for memory: its entries lie in a file, and what is kept of each is where."""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")

IN_MEMORY = 1 << 24
"""Bytes of a list up to which there is no file."""


class Spool(Sequence[T], Generic[T]):
    """Objects of a dataclass whose fields are what JSON knows; each is read anew when it is asked for.

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

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        first = range(len(self))[at]
        self._file.seek(self._starts[first])
        return self._kind(**json.loads(self._file.read(self._starts[first + 1] - self._starts[first])))

    def __iter__(self) -> Iterator[T]:
        return (self[at] for at in range(len(self)))


class Some(Sequence[T], Generic[T]):
    """The entries of a list at given places."""

    def __init__(self, entries: Sequence[T], places: Iterable[int]) -> None:
        self._entries, self._places = entries, array("Q", places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        if isinstance(at, slice):
            return [self._entries[place] for place in self._places[at]]
        return self._entries[self._places[at]]

    def __iter__(self) -> Iterator[T]:
        return (self._entries[place] for place in self._places)
