"""Packing: nothing lost, cut or duplicated; rows within capacity and as full as best fit makes them; nobody waits for
ever; and a pack unpacks to its sequences."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ShapeError
from vpoet.sequence.document import STRUCTURE, Sequence
from vpoet.sequence.packing import BestFit, pack, unpack

CAPACITY = 20


def rows_of(sizes: list[int], lookahead: int) -> tuple[list[list[int]], dict[int, int]]:
    """Indices of ``sizes`` row by row, and for each index the number of rows taken while it waited beyond its due.

    Its due: an item that joins behind k others opens the (k+1)-th row from then on, if nothing took it before.
    """
    packer: BestFit[int] = BestFit(CAPACITY, lookahead)
    left = list(enumerate(sizes))
    due: dict[int, int] = {}
    late: dict[int, int] = {}
    rows: list[list[int]] = []
    while left or packer.buffer:
        while left and not packer.full:
            index, size = left.pop(0)
            due[index] = len(rows) + len(packer.buffer)
            packer.add(size, index)
        waiting = [index for _, index in packer.buffer]
        row = packer.take()
        assert row[0] == waiting[0], "the oldest opens the row"
        late |= {index: len(rows) - due[index] for index in row}
        room = CAPACITY - sum(sizes[index] for index in row)
        assert all(size > room for size, _ in packer.buffer), "what still fits is not left behind"
        assert [index for _, index in packer.buffer] == [index for index in waiting if index not in row], "in order"
        rows.append(row)
    return rows, late


sizes = st.lists(st.integers(1, CAPACITY), max_size=60)


@given(sizes, st.integers(1, 10))
def test_every_item_comes_once_in_rows_within_capacity(sizes: list[int], lookahead: int) -> None:
    rows, late = rows_of(sizes, lookahead)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    assert all(sum(sizes[index] for index in row) <= CAPACITY for row in rows)
    assert all(rows_waited <= 0 for rows_waited in late.values()), "nobody waits longer than the queue before him"


@given(sizes, st.integers(1, 10))
def test_rows_are_a_function_of_the_input(sizes: list[int], lookahead: int) -> None:
    assert rows_of(sizes, lookahead) == rows_of(sizes, lookahead)


def test_best_fit_takes_the_largest_and_among_equals_the_oldest() -> None:
    packer: BestFit[str] = BestFit(10, 5)
    for size, name in [(5, "a"), (2, "b"), (3, "c"), (3, "d"), (6, "e")]:
        assert not packer.full
        packer.add(size, name)
    assert packer.full
    assert packer.take() == ["a", "c", "b"]
    assert packer.take() == ["d", "e"]
    assert packer.take() == []


def test_item_larger_than_a_row_is_refused_and_not_kept() -> None:
    packer: BestFit[str] = BestFit(10, 5)
    with pytest.raises(ShapeError, match="a document of 11 tokens does not fit a pack of 10; raise the pack length"):
        packer.add(11, "a")
    assert packer.buffer == []


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    n = draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    targets = random.random(n) < 0.5
    targets[0] = False
    return Sequence(
        ids=random.integers(1, 1000, n, dtype=np.int32),
        positions=random.integers(0, 1000, (n, 3), dtype=np.int32),
        kinds=random.integers(0, 4, n, dtype=np.uint8),
        targets=targets,
        until=1 + np.arange(n, dtype=np.int32) + random.integers(0, 5, n, np.int32) if random.random() < 0.5 else None,
    )


@given(st.lists(sequences(), max_size=5), st.integers(0, 4), st.booleans())
def test_unpack_is_the_exact_inverse_of_pack(parts: list[Sequence], spare: int, bidirectional: bool) -> None:
    used = sum(len(part) for part in parts)
    length = max(used + spare, 1)
    row = pack(parts, length, bidirectional=bidirectional, pad=7)
    found = unpack(row)
    assert len(found) == len(parts)
    for one, other in zip(parts, found, strict=True):
        for field in ("ids", "positions", "kinds", "targets"):
            assert np.array_equal(getattr(one, field), getattr(other, field))
            assert getattr(row, field).dtype == getattr(one, field).dtype
        assert (one.until is None) == (other.until is None)
        assert one.until is None or np.array_equal(one.until, other.until)
    assert len(row) == sum(row.lengths) == length
    assert row.padding == length - used
    assert (row.ids[used:] == 7).all()
    assert not row.targets[used:].any()
    assert (row.kinds[used:] == STRUCTURE).all()
    assert len(row.prefixes) == len(row.lengths)


def test_prefixes_reach_to_the_first_target() -> None:
    def sequence(*targets: bool) -> Sequence:
        n = len(targets)
        zeros = np.zeros(n, dtype=np.int32)
        return Sequence(zeros, np.zeros((n, 3), dtype=np.int32), zeros.astype(np.uint8), np.array(targets))

    parts = [sequence(False, False, True, False), sequence(False, True), sequence(False, False)]
    assert pack(parts, 10).prefixes == (0, 0, 0, 0)
    assert pack(parts, 10, bidirectional=True).prefixes == (2, 1, 0, 0)  # without targets, and padding: causal
    assert pack(parts, 8, bidirectional=True).lengths == (4, 2, 2)


def test_sequences_longer_than_the_pack_are_refused() -> None:
    one = Sequence(
        np.zeros(3, dtype=np.int32),
        np.zeros((3, 3), dtype=np.int32),
        np.zeros(3, dtype=np.uint8),
        np.zeros(3, dtype=bool),
    )
    with pytest.raises(ShapeError, match="6 tokens do not fit a pack of 5"):
        pack([one, one], 5)
