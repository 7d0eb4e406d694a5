"""Play, timelines and interleaved samples: what is given and wanted, round trips, positions, stretches and times."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ShapeError
from vpoet.sequence.actions import NONE, START, UNKNOWN
from vpoet.sequence.arrangements import LATEST, Given, Sample, Segment
from vpoet.sequence.document import KINDS, Document, Part, Span, build, parse
from vpoet.sequence.tasks import TABLE, Mixture
from vpoet.sequence.vocabulary import Modality, Vocabulary

VOCABULARY = Vocabulary(20, (3, 4), "text", "visual", appended=(("actions", 5), ("outcomes", 8)))
ACTION, OUTCOME, PLAY, VIDEO = (KINDS.index(name) for name in ("action", "outcome", "play", "video"))
PLAYED = ("play", "inverse", "policy")


def recording(
    t: int, arity: int = 1, words: int = 3, changes: tuple[int, ...] = (), outcomes: bool = True, seed: int = 0
) -> Sample:
    """Its prompt is another from each of the frames ``changes`` on."""
    random = np.random.default_rng(seed)
    prompts = [random.integers(0, 20, words + n, dtype=np.int32) for n in range(len(changes) + 1)]
    return Sample(
        np.full(words, 19, np.int32),
        random.integers(0, 12, (t, 2, 3), dtype=np.int32),
        8,
        actions=random.integers(1, 5, (t - 1, arity), dtype=np.int32),
        outcomes=random.integers(2, 8, t - 1, dtype=np.int32) if outcomes else None,
        timeline=tuple(zip((0, *changes), prompts, strict=True)) if changes else None,
    )


def story(seed: int = 0) -> Sample:
    """A text, an image, a video, a text, a smaller image."""
    random = np.random.default_rng(seed)

    def codes(t: int, h: int, w: int) -> np.ndarray:
        return random.integers(0, 12, (t, h, w), dtype=np.int32)

    parts = (
        Segment(np.array([1, 2], dtype=np.int32)), Segment(codes(1, 2, 3)), Segment(codes(3, 2, 3), 8),
        Segment(np.array([3], dtype=np.int32)), Segment(codes(1, 1, 2)),
    )  # fmt: skip
    return Sample(np.zeros(0, np.int32), np.zeros((0, 0, 0), np.int32), 0, segments=parts)


def names(document: Document) -> list[str]:
    return [VOCABULARY.name(int(token)) for token in build(document, VOCABULARY).ids]


SHORT = Sample(
    np.array([7], np.int32),
    np.array([[[0, 1]], [[2, 3]], [[4, 5]]], np.int32),
    8,
    actions=np.array([[2], [4]], np.int32),
    outcomes=np.array([3, 7], np.int32),
)


def test_tokens_of_play() -> None:
    document = TABLE["play"].document(SHORT, Given(time=600))
    assert names(document) == [
        *("<bos>", "<task:play>", "<context:text>", "text:7", "<close:text>"),
        *("<target:play>", "8", "2", "88", "1", "1", "2", "6"),
        *("actions:0", "outcomes:0", "code:0", "code:1"),
        *("actions:2", "outcomes:3", "code:2", "code:3"),
        *("actions:4", "outcomes:7", "code:4", "code:5"),
        *("<close:play>", "<eos>"),
    ]
    sequence = build(document, VOCABULARY)
    assert sequence.targets.nonzero()[0].tolist() == [15, 16, 18, 19, 20, 22, 23, 24]
    assert sequence.kinds[13:25].tolist() == [ACTION, OUTCOME, PLAY, PLAY] * 3
    # the column left of each frame: its action, its outcome below; the clip's origin is 13, its first frame is 600
    assert sequence.positions[13:21].tolist() == [
        [613, 13, 12], [613, 14, 12], [613, 13, 13], [613, 13, 14],
        [614, 13, 12], [614, 14, 12], [614, 13, 13], [614, 13, 14],
    ]  # fmt: skip
    assert sequence.positions[25:].tolist() == [[616] * 3, [617] * 3]


def predicted(task: str, sample: Sample = SHORT) -> list[str]:
    document = TABLE[task].document(sample, Given())
    return [
        VOCABULARY.name(int(token)) for token in build(document, VOCABULARY).ids[build(document, VOCABULARY).targets]
    ]


def test_roles_make_the_tasks() -> None:
    frames = ["code:0", "code:1", "code:2", "code:3", "code:4", "code:5"]
    assert predicted("play") == [*frames[:2], "outcomes:3", *frames[2:4], "outcomes:7", *frames[4:]]
    assert predicted("inverse") == ["actions:2", "actions:4"]
    assert predicted("policy") == [
        *frames[:2], "actions:2", "outcomes:3", *frames[2:4], "actions:4", "outcomes:7", *frames[4:],
    ]  # fmt: skip
    silent = replace(SHORT, outcomes=None)
    assert predicted("play", silent) == frames
    assert predicted("policy", silent) == [*frames[:2], "actions:2", *frames[2:4], "actions:4", *frames[4:]]


def test_an_action_is_inferred_from_the_frame_that_it_led_to() -> None:
    """All frames stand before the first predicted action, each where play would have it."""
    document = TABLE["inverse"].document(SHORT)
    assert names(document)[5:] == [
        *("<context:video>", "8", "0", "3", "1", "2", *(f"code:{i}" for i in range(6)), "<close:video>"),
        *("<target:play>", "8", "0", "0", "1", "0", "0", "1"),
        *("actions:0", "outcomes:0", "actions:2", "outcomes:1", "actions:4", "outcomes:1", "<close:play>", "<eos>"),
    ]
    sequence = build(document, VOCABULARY)
    times = sequence.positions[sequence.kinds == VIDEO][::2, 0]
    assert np.array_equal(sequence.positions[sequence.kinds == ACTION][:, 0], times)
    assert np.array_equal(document.codes(), SHORT.codes)


@given(
    st.sampled_from(PLAYED), st.integers(2, 9), st.integers(1, 3), st.sets(st.integers(1, 8), max_size=3),
    st.booleans(), st.integers(60, 200), st.integers(0, 2**32),
)  # fmt: skip
def test_recordings_survive_their_tokens_in_stretches_that_fit(
    task: str, t: int, arity: int, changes: set[int], outcomes: bool, room: int, seed: int
) -> None:
    known = recording(t, arity, changes=tuple(sorted(n for n in changes if n < t)), outcomes=outcomes, seed=seed)
    sample = replace(known, room=room)
    document = Mixture.of({task: 1}).draw(sample, np.random.default_rng(seed))
    assert document is not None
    sequence = build(document, VOCABULARY)
    assert parse(sequence.ids, VOCABULARY).equals(document)
    assert len(sequence) <= max(room, 70), "a short one is always as long as two frames"
    assert sequence.targets.any()

    plays = [span for span in document.spans if span.modality is Modality.PLAY]
    rows = np.concatenate([span.values for span in plays])
    codes = document.codes()
    starts = [n for n in range(t - len(codes) + 1) if np.array_equal(sample.codes[n : n + len(codes)], codes)]
    start = next(n for n in starts if sample.actions is not None and np.array_equal(
        sample.actions[n : n + len(codes) - 1], rows[1:, :arity]))  # fmt: skip
    assert rows[0, : arity + 1].tolist() == [NONE] * arity + [START], "nothing led to the first frame of a stretch"
    told = rows[1:, arity]
    if sample.outcomes is None or task == "inverse":
        assert (told == UNKNOWN).all()
    else:
        assert np.array_equal(told, sample.outcomes[start : start + len(codes) - 1])
    if task != "inverse":
        texts = [span.values.tolist() for span in document.spans if span.modality is Modality.TEXT]
        firsts = [start + span.time - plays[0].time for span in plays]
        for text, first in zip(texts, firsts, strict=True):
            said = [pieces for cell, pieces in sample.timeline or () if cell <= first][-1:]
            assert [text] in ([pieces.tolist() for pieces in said], [sample.text.tolist()] * (len(texts) == 1))


def test_stretches_are_as_long_as_fits_and_from_anywhere() -> None:
    sample = replace(recording(12), room=3 + 14 + 5 * 8)  # five frames of 8 tokens
    for task in ("play", "policy"):
        drawn = [TABLE[task].draw(sample, np.random.default_rng(seed)) for seed in range(200)]
        assert {given.stretch for given in drawn} == {(n, n + 5) for n in range(8)}
        assert {len(build(TABLE[task].document(sample, given), VOCABULARY)) for given in drawn} == {sample.room}
    whole = TABLE["play"].draw(recording(12), np.random.default_rng(0))
    assert whole.stretch == (0, 12)


def test_play_begins_at_time_0_or_at_any_that_its_header_holds() -> None:
    sample = recording(3)
    times = np.array([TABLE["play"].draw(sample, np.random.default_rng(seed)).time for seed in range(2000)])
    assert 900 < (times == 0).sum() < 1100
    assert (times <= LATEST - 3).all()
    quarters = np.histogram(times[times > 0], 4, (0, LATEST))[0]
    assert (np.abs(quarters - 250) < 60).all()  # 4 standard deviations
    last = build(TABLE["play"].document(sample, Given(time=LATEST - 3)), VOCABULARY)
    assert parse(last.ids, VOCABULARY).spans[1].time == LATEST - 3
    with pytest.raises(ShapeError, match="time // 256 = 256 does not fit"):
        build(TABLE["play"].document(sample, Given(time=LATEST)), VOCABULARY)


def test_half_of_the_time_the_caption_is_all_that_is_said_of_play() -> None:
    """800 draws: within 4 standard deviations."""
    sample = recording(6, changes=(2, 5))
    drawn = [TABLE["play"].draw(sample, np.random.default_rng(seed)) for seed in range(800)]
    assert abs(sum(given.changing for given in drawn) - 400) < 57
    for changing, texts in ((True, 3), (False, 1)):
        document = TABLE["play"].document(sample, next(given for given in drawn if given.changing == changing))
        assert len(document.spans) == 2 * texts
    assert document.spans[0].values.tolist() == sample.text.tolist()


def test_frames_keep_their_distances_where_the_prompt_changes() -> None:
    sample = recording(6, changes=(2, 5))
    parts, whole = (
        build(TABLE["play"].document(one, Given(time=9)), VOCABULARY)
        for one in (sample, replace(sample, timeline=None))
    )
    for kind in (ACTION, OUTCOME, PLAY):
        assert np.array_equal(parts.positions[parts.kinds == kind], whole.positions[whole.kinds == kind])
    targets = [row.ids[row.targets].tolist() for row in (parts, whole)]
    assert targets[0] == targets[1], "what leads over a change of the prompt is predicted, as everywhere"


def test_a_timeline_is_texts_and_videos_in_turn() -> None:
    sample = replace(recording(5, changes=(2, 4)), actions=None)
    document = TABLE["timeline"].document(sample)
    told = [(str(span.modality), span.target, span.time, len(span.values)) for span in document.spans]
    assert told == [
        ("text", False, 0, 3), ("video", True, 0, 2), ("text", False, 0, 4), ("video", True, 2, 2),
        ("text", False, 0, 5), ("video", True, 4, 1),
    ]  # fmt: skip
    sequence = build(document, VOCABULARY)
    assert parse(sequence.ids, VOCABULARY).equals(document)
    assert np.array_equal(document.codes(), sample.codes)
    one = build(TABLE["t2v"].document(sample), VOCABULARY)
    assert np.array_equal(sequence.positions[sequence.kinds == VIDEO], one.positions[one.kinds == VIDEO])


@given(st.integers(0, 2**32))
def test_an_interleaved_sample_survives_its_tokens_with_any_targets(seed: int) -> None:
    document = Mixture.of({"interleaved": 1}).draw(story(seed), np.random.default_rng(seed))
    assert document is not None
    sequence = build(document, VOCABULARY)
    assert parse(sequence.ids, VOCABULARY).equals(document)
    roles = [span.target for span in document.spans]
    assert roles == sorted(roles)
    assert roles[-1]


def test_chosen_segments_are_the_targets_texts_with_their_end() -> None:
    sample = story()
    assert sample.segments is not None
    chosen = (
        sample.segments[0],
        *(part._replace(target=number > 1) for number, part in enumerate(sample.segments[1:])),
    )
    sample = replace(sample, segments=chosen)
    document = TABLE["interleaved"].document(sample, TABLE["interleaved"].draw(sample, np.random.default_rng(0)))
    assert [span.target for span in document.spans] == [False, False, False, True, True]
    sequence = build(document, VOCABULARY)
    wanted = sequence.ids[sequence.targets]
    assert VOCABULARY.name(int(wanted[0])) == "text:3"
    assert VOCABULARY.name(int(wanted[1])) == "<close:text>"
    assert len(wanted) == 2 + 2


def test_each_image_and_video_of_an_interleaved_sample_is_a_clip_of_its_own() -> None:
    """No two of them share a position, and each lies on its grid."""
    document = TABLE["interleaved"].document(story(), Given(produced=(True,) * 5))
    sequence = build(document, VOCABULARY)
    cells = sequence.positions[sequence.visual]
    assert len(np.unique(cells, axis=0)) == len(cells) == 6 + 18 + 2
    video = sequence.positions[sequence.kinds == VIDEO]
    assert np.array_equal(video - video[0], np.indices((3, 2, 3)).reshape(3, -1).T)
    with pytest.raises(ShapeError, match="starts at cell 0, expected 1"):
        document.codes()


def test_what_has_no_actions_no_timeline_or_no_segments_draws_no_such_task() -> None:
    random = np.random.default_rng(0)
    mixture = Mixture.of(dict.fromkeys(("t2v", *PLAYED, "timeline", "interleaved"), 1.0))

    def found(sample: Sample) -> set[str]:
        drawn = [mixture.draw(sample, random) for _ in range(60)]
        return {document.task for document in drawn if document is not None}

    plain = Sample(np.zeros(1, np.int32), np.zeros((3, 2, 2), np.int32), 8)
    assert found(plain) == {"t2v"}
    assert found(recording(3)) == {"t2v", *PLAYED}
    assert found(recording(3, changes=(1,))) == {"t2v", *PLAYED, "timeline"}
    assert found(story()) == {"interleaved"}
    assert found(recording(300)) == {*PLAYED}, "no header of a video holds so many"


def test_words_that_are_given_can_be_dropped_and_no_others() -> None:
    document = TABLE["interleaved"].document(story(), Given(produced=(False, False, True, True, True)))
    lengths = [len(span.values) for span in document.unprompted().spans if span.modality is Modality.TEXT]
    assert lengths == [0, 1]


@pytest.mark.parametrize(
    ("at", "name", "message"),
    [
        (12, "0", "token 12: produced = 0, where a target says 1 to 7 and a context 0"),
        (12, "8", "token 12: produced = 8, where"),
        (5, "<context:play>", "token 12: produced = 6, where"),
        (14, "actions:1", "tokens 13 to 24: expected outcomes tokens, found actions:1"),
        (17, "code:1", "tokens 13 to 24: expected actions tokens, found code:1"),
        (20, "<close:play>", "tokens 13 to 24: expected visual tokens, found <close:play>"),
        (25, "<eos>", "expected actions tokens, found <eos>|expected 16 more"),
    ],
)
def test_breach_of_the_grammar_of_play_is_located(at: int, name: str, message: str) -> None:
    known = {VOCABULARY.name(token): token for token in range(VOCABULARY.size)}
    ids = build(TABLE["play"].document(SHORT), VOCABULARY).ids.tolist()
    ids[at] = known[name]
    with pytest.raises(ShapeError, match=message):
        parse(ids, VOCABULARY)


def test_play_is_no_matter_of_a_vocabulary_without_actions() -> None:
    plain = replace(VOCABULARY, appended=())
    with pytest.raises(ShapeError, match="the vocabulary has no actions: its model was not trained for play"):
        build(TABLE["play"].document(SHORT), plain)
    with pytest.raises(ShapeError, match="the vocabulary has no actions"):
        parse(build(TABLE["play"].document(SHORT), VOCABULARY).ids, plain)


@pytest.mark.parametrize("change", [{"grid": (2, 1)}, {"produced": Part.FRAMES}])
def test_equality_sees_the_fields_of_play(change: dict[str, object]) -> None:
    span = TABLE["play"].document(SHORT).spans[1]
    assert span.equals(replace(span))
    assert not span.equals(replace(span, **change))
    assert isinstance(span, Span)
