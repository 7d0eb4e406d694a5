"""Codes of play that are read wrongly: how many and for how long, and that what is predicted stays."""

from dataclasses import replace

import numpy as np

from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import KINDS, build
from vpoet.sequence.misreading import LONGEST, misread
from vpoet.sequence.packing import pack, unpack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(20, (30, 30), "text", "visual", appended=(("actions", 5), ("outcomes", 8)))


def played(frames: int) -> Sample:
    codes = np.random.default_rng(0).integers(0, 900, (frames, 4, 4), dtype=np.int32)
    done = np.arange(frames - 1, dtype=np.int32)
    return Sample(np.array([7], np.int32), codes, 8, actions=done[:, None] % 4 + 1, outcomes=2 + done % 6)


def test_about_the_share_is_read_wrongly_each_for_a_few_frames_at_its_place() -> None:
    document = TABLE["play"].document(played(400), Given())
    wrong = misread(document, 0.05, np.random.default_rng(0))
    (before,), (after,) = ([span for span in one.spans if span.grid != (0, 0)] for one in (document, wrong))
    assert np.array_equal(before.values[:, :2], after.values[:, :2]), "actions and outcomes are as they were"
    changed = (before.codes != after.codes).reshape(400, -1)
    assert 0.04 < changed.mean() < 0.06
    assert set(np.unique(after.codes)) <= set(np.unique(before.codes))
    codes = after.codes.reshape(400, -1)
    stays = [
        len(run)
        for place in range(16)
        for run in np.split(codes[:, place], np.flatnonzero(np.diff(codes[:, place])) + 1)
        if len(run) > 1
    ]
    assert 3 < np.mean(stays) < LONGEST
    assert max(stays) == LONGEST
    again = misread(document, 0.05, np.random.default_rng(0))
    assert all(np.array_equal(one.values, two.values) for one, two in zip(wrong.spans, again.spans, strict=True))


def test_a_pack_reads_the_wrong_codes_and_predicts_the_right_ones() -> None:
    document = TABLE["play"].document(played(6), Given())
    right = build(document, VOCABULARY)
    read = build(misread(document, 0.9, np.random.default_rng(0)), VOCABULARY).ids
    row = pack([replace(right, read=read), right], 2 * len(right) + 3)
    assert np.array_equal(row.layout["ids"], np.concatenate([read, right.ids, [0, 0, 0]]))
    assert np.array_equal(row.layout["after"], np.tile(right.ids[right.targets], 2))
    assert (read != right.ids).sum() > 20
    assert set(right.kinds[read != right.ids]) == {KINDS.index("play")}
    one, two = unpack(row)
    assert one.read is not None
    assert np.array_equal(one.read, read)
    assert np.array_equal(one.ids, right.ids)
    assert two.read is None
