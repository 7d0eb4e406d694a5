"""Packing: many documents end to end in one row of fixed length, by best fit over a look-ahead buffer.

    row        | document 0      | document 1   | document 2          | padding |
    lengths    | 14              | 11           | 17                  | 6       |   sum = row length
    prefixes   | 5               | 4            | 9                   | 0       |

`lengths` is all that a block-diagonal mask needs; `prefixes` says how much of each document is read both ways (0:
plain causal). Padding is one more document, of pad tokens, that no other sees and that has no targets.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints
from vpoet.errors import ShapeError
from vpoet.sequence.controls import ControlCells, join
from vpoet.sequence.document import STRUCTURE, Sequence
from vpoet.sequence.layout import Layout, lay_out

Item = TypeVar("Item")


class BestFit(Generic[Item]):
    """Fills rows of ``capacity`` tokens from a buffer of at most ``lookahead`` items.

    The oldest item opens each row, so none waits for ever; then the largest that still fits is added, until none
    fits. The buffer is all the state there is, and it is public: a stream saves it in its own terms.
    """

    def __init__(self, capacity: int, lookahead: int) -> None:
        assert capacity > 0
        assert lookahead > 0
        self.capacity = capacity
        self.lookahead = lookahead
        self.buffer: list[tuple[int, Item]] = []

    @property
    def full(self) -> bool:
        return len(self.buffer) >= self.lookahead

    def add(self, size: int, item: Item) -> None:
        """Put an item into the buffer; ShapeError if it fits no row (it is never cut)."""
        if size > self.capacity:
            raise ShapeError(
                f"a document of {size} tokens does not fit a pack of {self.capacity}; raise the pack length"
            )
        self.buffer.append((size, item))

    def take(self) -> list[Item]:
        """The next row; empty when the buffer is."""
        row: list[Item] = []
        room = self.capacity
        index: int | None = 0 if self.buffer else None
        while index is not None:
            size, item = self.buffer.pop(index)
            row.append(item)
            room -= size
            fits = [i for i, (size, _) in enumerate(self.buffer) if size <= room]
            # ties go to the oldest, so that the order is a function of the input alone
            index = max(fits, key=lambda i: (self.buffer[i][0], -i), default=None)
        return row


@dataclass(frozen=True, eq=False, slots=True)
class Pack:
    """One row of documents; T is the row length."""

    ids: Ints
    """[T]"""
    positions: Ints
    """[T, 3]"""
    kinds: npt.NDArray[np.uint8]
    """[T]: indices of `vpoet.sequence.document.KINDS`."""
    targets: npt.NDArray[np.bool_]
    """[T]"""
    lengths: tuple[int, ...]
    """Tokens of each document, in order, padding last; the sum is T."""
    prefixes: tuple[int, ...]
    """Tokens at the start of each document that see each other both ways; 0 is plain causal."""
    padding: int
    """Pad tokens at the end."""
    layout: Layout
    """What a network reads of it."""
    until: tuple[Ints | None, ...] | None = None
    """`Sequence.until` of each document; None: no document has any."""
    read: tuple[Ints | None, ...] | None = None
    """`Sequence.read` of each document; None: no document has any."""
    controls: tuple[ControlCells | None, ...] | None = None
    """`Sequence.controls` of each document; None: no document has any."""

    def __len__(self) -> int:
        return len(self.ids)


def pack(sequences: Items[Sequence], length: int, *, bidirectional: bool = False, pad: int = 0) -> Pack:
    """Lay sequences end to end and pad to ``length``; ``bidirectional`` makes documents prefix-LMs (VideoPoet, 3.2)."""
    used = sum(len(s) for s in sequences)
    if used > length:
        raise ShapeError(f"{used} tokens do not fit a pack of {length}")
    rest = length - used
    filler = [
        Sequence(
            ids=np.full(rest, pad, dtype=np.int32),
            positions=np.repeat(np.arange(rest, dtype=np.int32)[:, None], 3, axis=1),
            kinds=np.full(rest, STRUCTURE, dtype=np.uint8),
            targets=np.zeros(rest, dtype=np.bool_),
        )
    ]
    parts = [*sequences, *(filler if rest else [])]
    ids, positions = np.concatenate([s.ids for s in parts]), np.concatenate([s.positions for s in parts])
    kinds, targets = np.concatenate([s.kinds for s in parts]), np.concatenate([s.targets for s in parts])
    lengths = tuple(len(s) for s in parts)
    prefixes = tuple(s.prefix if bidirectional and s.targets.any() else 0 for s in parts)
    until = tuple(s.until for s in parts) if any(s.until is not None for s in parts) else None
    read = tuple(s.read for s in parts) if any(s.read is not None for s in parts) else None
    read_T = np.concatenate([s.ids if s.read is None else s.read for s in parts])
    layout = lay_out(ids, positions, kinds, targets, lengths, prefixes, until, read_T)
    controls = tuple(s.controls for s in parts)
    cells = join(controls, lengths)
    if cells is None:
        return Pack(ids, positions, kinds, targets, lengths, prefixes, rest, layout, until, read)
    layout = layout.including(cells)
    return Pack(ids, positions, kinds, targets, lengths, prefixes, rest, layout, until, read, controls)


def unpack(row: Pack) -> list[Sequence]:
    """The sequences of a pack: the exact inverse of `pack`."""
    bounds = np.cumsum((0, *row.lengths))
    documents = len(row.lengths) - (1 if row.padding else 0)
    cuts = [slice(bounds[i], bounds[i + 1]) for i in range(documents)]
    each: list[tuple[Any, ...]] = [given or (None,) * documents for given in (row.until, row.read, row.controls)]
    return [
        Sequence(row.ids[cut], row.positions[cut], row.kinds[cut], row.targets[cut], *more)
        for cut, *more in zip(cuts, *each, strict=False)
    ]
