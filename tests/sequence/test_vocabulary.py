"""The id space: frozen ids, disjoint ranges, a hash that tells vocabularies apart, grouping of FSQ digits."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ShapeError
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary, grouped, task_names

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")

FROZEN = {
    "<pad>": 0,
    "<bos>": 1,
    "<eos>": 2,
    "<context:text>": 3,
    "<target:text>": 4,
    "<context:image>": 5,
    "<target:image>": 6,
    "<context:video>": 7,
    "<target:video>": 8,
    "<close:text>": 9,
    "<close:image>": 10,
    "<close:video>": 11,
    "<task:unconditional>": 12,
    "<task:t2i>": 13,
    "<task:t2v>": 14,
    "<task:i2v>": 15,
    "<task:continuation>": 16,
    "<task:backward>": 17,
    "<task:interpolation>": 18,
    "<task:inpainting>": 19,
    "<task:outpainting>": 20,
    "<hidden>": 21,
    "<context:play>": 22,
    "<target:play>": 23,
    "<close:play>": 24,
    "<task:play>": 25,
    "<task:inverse>": 26,
    "<task:policy>": 27,
    "<task:timeline>": 28,
    "<task:interleaved>": 29,
    "<task:sr>": 30,
}
"""Trained models know these ids: new names go behind them, and this table only grows."""


def test_ids_of_special_tokens_never_move() -> None:
    assert {name: VOCABULARY.special(name) for name in FROZEN} == FROZEN
    assert (
        {name.removeprefix("<task:").removesuffix(">") for name in FROZEN if "task:" in name}
        == set(TABLE)
        == set(task_names())
    )
    assert (VOCABULARY.number(0, "x"), VOCABULARY.ids([0], "text")[0], VOCABULARY.ids([0], "codes")[0]) == (
        64,
        320,
        340,
    )


def test_hash_is_frozen() -> None:
    assert VOCABULARY.hash == "083b8158fcda1ce3"


def test_ranges_follow_each_other_without_gap_or_overlap() -> None:
    assert VOCABULARY.codes == 12
    assert VOCABULARY.language == 64 + 256 + 20
    assert VOCABULARY.size == VOCABULARY.language + 12
    ids = np.concatenate(
        [
            [VOCABULARY.special(name) for name in FROZEN],
            [VOCABULARY.number(value, "x") for value in range(256)],
            VOCABULARY.ids(np.arange(20), "text"),
            VOCABULARY.ids(np.arange(12), "codes"),
        ]
    )
    assert np.array_equal(ids, [*range(len(FROZEN)), *range(64, VOCABULARY.size)])


def test_every_id_has_a_name_of_its_own() -> None:
    names = [VOCABULARY.name(token) for token in range(VOCABULARY.size)]
    assert len(set(names)) == VOCABULARY.size
    assert (names[14], names[50], names[63], names[64], names[320], names[340]) == (
        "<task:t2v>", "<reserved:50>", "<condition:motion>", "0", "text:0", "code:0",
    )  # fmt: skip


def test_ids_and_values_are_inverse_in_any_shape() -> None:
    pieces, codes = np.arange(20).reshape(4, 5), np.arange(12).reshape(3, 2, 2)
    assert np.array_equal(VOCABULARY.values(VOCABULARY.ids(pieces, "text"), "text"), pieces)
    assert np.array_equal(VOCABULARY.values(VOCABULARY.ids(codes, "codes"), "codes"), codes)
    assert [VOCABULARY.to_number(VOCABULARY.number(value, "x")) for value in range(256)] == list(range(256))
    assert VOCABULARY.ids(pieces, "text").dtype == VOCABULARY.ids(codes, "codes").dtype == np.int32


@pytest.mark.parametrize(
    ("read", "token", "message"),
    [
        (VOCABULARY.to_number, 63, "expected a number in the header of a span, found <condition:motion>"),
        (VOCABULARY.to_number, 320, "found text:0"),
        (lambda token: VOCABULARY.values([325, token], "text"), 319, "expected text tokens, found 255"),
        (lambda token: VOCABULARY.values([325, token], "text"), 340, "expected text tokens, found code:0"),
        (lambda token: VOCABULARY.values([340, token], "codes"), 339, "expected visual tokens, found text:19"),
        (lambda token: VOCABULARY.values([340, token], "codes"), 352, "expected visual tokens, found code:12"),
        (lambda token: VOCABULARY.number(token, "height"), 256, "height = 256 does not fit .* 0 to 255"),
        (lambda token: VOCABULARY.number(token, "fps"), -1, "fps = -1 does not fit"),
    ],
)
def test_ids_of_another_range_are_refused_by_name(read, token: int, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        read(token)


def test_hash_changes_with_every_field_that_the_tokenizers_hash_does_not_tell() -> None:
    changes = {"text": 21, "visual": (4, 3), "text_hash": "other", "visual_hash": "other"}
    changes["appended"] = (("actions", 6),)
    assert {*changes, "levels"} == {field.name for field in dataclasses.fields(Vocabulary)}
    assert dataclasses.replace(VOCABULARY, levels=(3, 4)).hash == VOCABULARY.hash
    changed = [dataclasses.replace(VOCABULARY, **{name: value}) for name, value in changes.items()]
    assert len({VOCABULARY.hash, *(vocabulary.hash for vocabulary in changed)}) == 6
    assert dataclasses.replace(VOCABULARY).hash == VOCABULARY.hash


def test_an_appended_range_moves_nothing_and_an_absent_one_leaves_the_hash_that_models_were_trained_with() -> None:
    assert VOCABULARY.hash == "083b8158fcda1ce3"
    longer = dataclasses.replace(VOCABULARY, appended=(("actions", 6), ("outcomes", 3)))
    assert {name: longer.ranges[name] for name in VOCABULARY.ranges} == VOCABULARY.ranges
    assert [*longer.ranges][-2:] == ["actions", "outcomes"]
    assert longer.ranges["actions"] == (VOCABULARY.size, VOCABULARY.size + 6)
    assert longer.values(longer.ids([0, 5], "actions"), "actions").tolist() == [0, 5]
    assert longer.name(VOCABULARY.size + 6) == "outcomes:0"
    with pytest.raises(ShapeError, match="expected actions tokens, found code:11"):
        longer.values([VOCABULARY.size, VOCABULARY.size - 1], "actions")
    for read in (VOCABULARY.ids, VOCABULARY.values):
        with pytest.raises(ShapeError, match="the vocabulary has no actions: its model was not trained for play"):
            read([0], "actions")


@given(st.lists(st.integers(2, 9), min_size=1, max_size=7), st.data())
def test_grouping_merges_neighbours_into_the_smallest_largest_radix(levels: list[int], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(levels)))
    radices = grouped(tuple(levels), groups)
    every = []
    for inner in itertools.combinations(range(1, len(levels)), groups - 1):
        cuts = [0, *inner, len(levels)]
        every.append(tuple(math.prod(levels[a:b]) for a, b in itertools.pairwise(cuts)))
    assert radices in every
    assert max(radices) == min(map(max, every))


def test_grouping_of_the_large_codebook() -> None:
    assert grouped((8, 8, 8, 5, 5, 5), 2) == (512, 125)
    assert grouped((8, 8, 8, 5, 5, 5), 1) == (64_000,)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_the_codes_cannot_have_are_refused(groups: int) -> None:
    with pytest.raises(ShapeError, match=f"{groups} visual groups: .* 1 to 2 digits"):
        grouped((8, 8), groups)
