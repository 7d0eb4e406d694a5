"""What a network reads of a pack, against loops over its tokens and documents."""

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vpoet.arrays import Ints
from vpoet.sequence.document import FORMS, KINDS, Sequence
from vpoet.sequence.layout import PAYLOADS, Layout, offsets
from vpoet.sequence.packing import Pack, pack


@st.composite
def packs(draw: st.DrawFn) -> Pack:
    documents = []
    for length in draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)):
        random = np.random.default_rng(draw(st.integers(0, 99)))
        targets = random.random(length) < 0.5
        targets[0] = False
        documents.append(
            Sequence(
                random.integers(1000, size=length, dtype=np.int32),
                random.integers(1000, size=(length, 3), dtype=np.int32),
                random.integers(len(KINDS), size=length, dtype=np.uint8),
                targets,
            )
        )
    room = sum(map(len, documents)) + draw(st.integers(0, 3))
    return pack(documents, room, bidirectional=draw(st.booleans()))


@given(packs())
def test_a_layout_says_what_is_predicted_from_where_and_by_which_head(row: Pack) -> None:
    predicted = [at for at in range(len(row)) if row.targets[at]]
    assert np.array_equal(row.layout["ids"], row.ids)
    assert np.array_equal(row.layout["positions"], row.positions)
    assert row.layout["before"].tolist() == [at - 1 for at in predicted]
    assert row.layout["after"].tolist() == [row.ids[at] for at in predicted]
    assert row.layout["kinds"].tolist() == [row.kinds[at] for at in predicted]
    payloads = {KINDS.index(modality): form.payload for modality, form in FORMS.items()}
    for payload in PAYLOADS:
        mine = [number for number, at in enumerate(predicted) if payloads.get(row.kinds[at]) == payload]
        assert row.layout[f"head:{payload}"].tolist() == mine


@given(packs())
def test_offsets_say_where_documents_and_prefixes_lie(row: Pack) -> None:
    bounds, prefix_bounds, inside = [0], [0], []
    for length, prefix in zip(row.lengths, row.prefixes, strict=True):
        inside += range(bounds[-1], bounds[-1] + prefix)
        bounds.append(bounds[-1] + length)
        prefix_bounds += [prefix_bounds[-1] + prefix] * (prefix > 0)
    wanted = {
        "cu_seqlens": bounds, "prefixes": list(row.prefixes), "prefix_cu_seqlens": prefix_bounds, "in_prefix": inside
    }  # fmt: skip
    assert {name: array.tolist() for name, array in offsets(row.lengths, row.prefixes).items()} == wanted
    assert {name: row.layout[name].tolist() for name in wanted} == wanted
    assert (row.layout.longest, row.layout.longest_prefix) == (max(row.lengths), max(row.prefixes))


@given(packs())
def test_a_layout_is_one_array_of_which_any_copy_has_the_parts(row: Pack) -> None:
    layout: Layout = pickle.loads(pickle.dumps(row)).layout
    copy: Ints = layout.flat.astype(np.int64)
    assert layout.flat.dtype == np.int32
    assert np.array_equal(layout.part("positions", copy), row.positions)
    assert sum(layout[name].size for name in layout.places) == layout.flat.size
