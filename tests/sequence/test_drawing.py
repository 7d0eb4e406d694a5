"""Drawings: one exact example, and the picture of a pack against the definition of who sees whom."""

from dataclasses import replace

import numpy as np
import pytest

from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import build
from vpoet.sequence.drawing import draw_pack, draw_sequence
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.sequence.windows import windowed

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")


def rows(task: str, t: int, words: int, given: int, length: int, bidirectional: bool, window: int = 0) -> Pack:
    codes = (np.arange(t * 4, dtype=np.int32) % 12).reshape(t, 2, 2)
    document = TABLE[task].document(Sample(np.arange(words, dtype=np.int32), codes, 8), Given(given))
    sequence = windowed(build(document, VOCABULARY), document, window)
    return pack([sequence, sequence], length, bidirectional=bidirectional)


def test_drawing_of_a_sequence_says_what_stands_where() -> None:
    codes = (np.arange(12, dtype=np.int32) % 12).reshape(3, 2, 2)
    document = TABLE["i2v"].document(Sample(np.arange(7, dtype=np.int32), codes, 8), Given(1))
    drawn = draw_sequence(build(document, VOCABULARY), VOCABULARY)
    assert [line.split() for line in drawn.splitlines()] == [
        line.split()
        for line in """
        0..2    structure         <bos> <task:i2v> <context:text>                   (0,0,0)..(2,2,2)
        3..9    text              text:0 text:1 text:2 .. text:6                    (3,3,3)..(9,9,9)
        10..14  structure         <close:text> <context:image> 0 2 2                (10,10,10)..(14,14,14)
        15..18  image             code:0 code:1 code:2 code:3                       (15,15,15)..(15,16,16)
        19..25  structure         <close:image> <target:video> 8 1 2 2 2            (17,17,17)..(23,23,23)
        26..33  video     target  code:4 code:5 code:6 .. code:11                   (16,15,15)..(17,16,16)
        34..35  structure         <close:video> <eos>                               (24,24,24)..(25,25,25)
        """.strip().splitlines()
    ]


def test_drawing_of_a_target_shown_in_part_counts_what_is_predicted() -> None:
    hidden = np.zeros((1, 2, 2), dtype=bool)
    hidden[0, :, 1] = True
    sample = Sample(np.zeros(0, np.int32), np.arange(4, dtype=np.int32).reshape(1, 2, 2), 0)
    document = TABLE["inpainting"].document(sample, Given(hidden=hidden))
    drawn = [line.split() for line in draw_sequence(build(document, VOCABULARY), VOCABULARY).splitlines()]
    assert drawn[1] == ["8..11", "image", "code:0", "<hidden>", "code:2", "<hidden>", "(8,8,8)..(8,9,9)"]
    assert drawn[3] == ["17..20", "image", "2", "of", "code:0", "code:1", "code:2", "code:3", "(8,8,8)..(8,9,9)"]


def test_drawing_of_play_has_a_line_for_a_frame_and_folds_many() -> None:
    vocabulary = Vocabulary(20, (3, 4), "text", "visual", appended=(("actions", 5), ("outcomes", 8)))
    codes, done = np.arange(12, dtype=np.int32).reshape(6, 1, 2), np.arange(5, dtype=np.int32)
    sample = Sample(done[:1], codes, 8, actions=done[:, None] % 4 + 1, outcomes=done + 2)
    sample = replace(sample, timeline=((0, done[:1]), (4, done[:2])))
    drawn = draw_sequence(build(TABLE["play"].document(sample, Given(time=9)), vocabulary), vocabulary)
    assert [line.split() for line in drawn.splitlines()] == [
        line.split()
        for line in """
        0..2    structure         <bos> <task:play> <context:text>                  (0,0,0)..(2,2,2)
        3..3    text              text:0                                            (3,3,3)..(3,3,3)
        4..12   structure         <close:text> <target:play> 8 0 9 1 1 2 6          (4,4,4)..(12,12,12)
        13..16  play      2 of    actions:0 outcomes:0 code:0 code:1                (22,13,12)..(22,13,14)
        17..20  play      3 of    actions:1 outcomes:2 code:2 code:3                (23,13,12)..(23,13,14)
        21..24  play      3 of    actions:2 outcomes:3 code:4 code:5                (24,13,12)..(24,13,14)
        25..28  play      3 of    actions:3 outcomes:4 code:6 code:7                (25,13,12)..(25,13,14)
        29..30  structure         <close:play> <context:text>                       (26,26,26)..(27,27,27)
        31..32  text              text:0 text:1                                     (28,28,28)..(29,29,29)
        33..41  structure         <close:text> <target:play> 8 0 13 1 1 2 6         (30,30,30)..(38,38,38)
        42..45  play      3 of    actions:4 outcomes:5 code:8 code:9                (26,13,12)..(26,13,14)
        46..49  play      3 of    actions:1 outcomes:6 code:10 code:11              (27,13,12)..(27,13,14)
        50..51  structure         <close:play> <eos>                                (39,39,39)..(40,40,40)
        """.strip().splitlines()
    ]
    whole = draw_sequence(build(TABLE["play"].document(replace(sample, timeline=None)), vocabulary), vocabulary)
    frames = [line.split()[0] for line in whole.splitlines()[3:-1]]
    assert frames == ["13..16", "17..20", "..", "33..36"]
    assert whole.splitlines()[5].split() == ["..", "3", "frames"]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("length", "window"), [(44, 0), (50, 0), (50, 1)])
def test_drawing_of_a_pack_is_the_mask(bidirectional: bool, length: int, window: int) -> None:
    row = rows("t2v", 2, 2, 0, length, bidirectional, window)
    head, *lines = draw_pack(row, columns=length).splitlines()
    seen = Visibility.of(row).mask().numpy()
    seen[length - row.padding :] = False  # a drawing leaves padding blank
    drawn = np.array([list(line) for line in lines])
    assert np.array_equal(drawn != ".", seen)
    prefix = np.zeros(length, dtype=bool)
    starts = np.cumsum([0, *row.lengths])
    for start, p in zip(starts, row.prefixes, strict=False):
        prefix[start : start + p] = True
    assert np.array_equal(drawn == "+", seen & prefix[:, None] & prefix[None, :])
    assert head.startswith(f"{length} tokens, 2 documents of {row.lengths[0]}, {row.lengths[1]}; 16 predicted, ")


def test_drawing_is_scaled_to_its_columns() -> None:
    row = rows("t2v", 2, 2, 0, 50, bidirectional=False)
    _, *lines = draw_pack(row, columns=10).splitlines()
    full = draw_pack(row, columns=50).splitlines()[1:]
    assert lines == ["".join(full[5 * i][5 * j] for j in range(10)) for i in range(10)]
