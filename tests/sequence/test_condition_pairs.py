"""Conditions stand between task and spans, in one order, and only where they mean something; old ids stay."""

from dataclasses import replace

import numpy as np
import pytest

from vpoet.errors import ConfigError, ShapeError
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.conditions import TABLE, Condition, Learnt, complete
from vpoet.sequence.document import Document, build, parse
from vpoet.sequence.spans import Span
from vpoet.sequence.tasks import TABLE as TASKS
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")
PAIRS = (("motion", 7), ("quality", 4))


def sample(t: int, **more: object) -> Sample:
    cells = np.zeros((t, 2, 2), np.int32)
    return Sample(np.array([1, 2], np.int32), cells, 8 if t > 1 else 0, conditions=PAIRS, **more)  # type: ignore[arg-type]


def test_they_are_pairs_behind_the_task_at_ids_that_nothing_had() -> None:
    ids = build(TASKS["t2v"].document(sample(3)), VOCABULARY).ids.tolist()
    assert [VOCABULARY.name(token) for token in ids[:7]] == [
        "<bos>", "<task:t2v>", "<condition:motion>", "7", "<condition:quality>", "4", "<context:text>",
    ]  # fmt: skip
    assert [VOCABULARY.special(f"<condition:{name}>") for name in TABLE] == [63, 62]
    assert VOCABULARY.hash == "083b8158fcda1ce3"
    assert VOCABULARY.name(61) == "<reserved:61>"


def test_a_document_is_read_back_with_them_and_differs_from_one_without() -> None:
    document = TASKS["t2v"].document(sample(3))
    assert parse(build(document, VOCABULARY).ids, VOCABULARY).equals(document)
    assert not document.equals(replace(document, conditions=PAIRS[:1]))
    assert document.unprompted().conditions == PAIRS


@pytest.mark.parametrize("pairs", [(*PAIRS[::-1],), (PAIRS[0], PAIRS[0])])
def test_another_order_or_a_second_time_is_no_document(pairs: tuple[tuple[str, int], ...]) -> None:
    ids = build(Document("t2v", (), pairs), VOCABULARY).ids
    with pytest.raises(ShapeError, match="token 4: expected <eos>"):
        parse(ids, VOCABULARY)
    with pytest.raises(ShapeError, match="expected a number"):
        parse(np.delete(ids, 3), VOCABULARY)


def test_of_an_image_nothing_is_said_to_move_and_of_what_is_done_nothing_at_all() -> None:
    assert TASKS["t2v"].document(sample(3)).conditions == PAIRS
    assert TASKS["i2v"].document(sample(3), Given(1)).conditions == PAIRS
    assert TASKS["t2i"].document(sample(3)).conditions == PAIRS[1:]
    assert TASKS["unconditional"].document(sample(1)).conditions == PAIRS[1:]
    play = sample(3, actions=np.ones((2, 1), np.int32))
    assert TASKS["play"].document(play).conditions == ()


def test_windows_count_frames_behind_them() -> None:
    document = TASKS["unconditional"].document(sample(4))
    plain = replace(document, conditions=())
    told, untold = (windowed(build(one, VOCABULARY), one, 2).until for one in (document, plain))
    assert told is not None
    assert untold is not None
    assert np.array_equal(told[6:] - 4, untold[2:])
    assert (told[:6] == len(told)).all()


def test_a_value_falls_into_the_bucket_between_two_edges() -> None:
    condition = Condition(edges=[1.0, 2.0])
    assert [condition.bucket(value) for value in (0, 0.99, 1, 1.5, 2, 9)] == [0, 0, 1, 1, 2, 2]
    learnt = Learnt(edges=[1.0, 2.0, 3.0], met=[0, 2])
    assert [learnt.nearest(value) for value in (0.5, 1.5, 2.5, 9)] == [0, 0, 2, 2]
    assert Learnt(edges=[1.0]).nearest(9) == 1
    assert [learnt.about(bucket) for bucket in (0, 1, 3)] == ["below 1", "1 to 2", "3 or more"]


def test_the_table_says_what_a_recipe_leaves_out() -> None:
    conditions = {"motion": Condition(), "quality": Condition(measure="sharpness", edges=[10, 100])}
    complete(conditions)
    assert (conditions["motion"].measure, tuple(conditions["motion"].edges)) == ("motion", TABLE["motion"].edges)
    assert (conditions["quality"].measure, conditions["quality"].edges) == ("sharpness", [10, 100])


@pytest.mark.parametrize(
    ("name", "condition", "message"),
    [
        ("speed", Condition(), "conditions.speed: no such condition; there are motion, quality"),
        (
            "quality",
            Condition(measure="sharpness"),
            "conditions.quality.edges: the table's are those of aesthetic; say",
        ),
        ("motion", Condition(edges=[2.0, 1.0]), "conditions.motion.edges = .* that ascend"),
        ("motion", Condition(edges=[1.0, float("nan")]), "conditions.motion.edges = .* that ascend"),
        ("motion", Condition(edges=[float(n) for n in range(256)]), "at most 255 numbers"),
    ],
)
def test_what_cannot_be_told_is_refused(name: str, condition: Condition, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        complete({name: condition})


def test_a_number_is_one_of_a_header() -> None:
    with pytest.raises(ShapeError, match="motion = 256"):
        build(Document("t2v", (Span(Modality.TEXT, np.zeros(0, np.int32)),), (("motion", 256),)), VOCABULARY)
