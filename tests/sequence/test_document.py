"""Building and parsing are exact inverses; positions and targets by hand; breaches of the grammar are located."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ShapeError
from vpoet.sequence.document import KINDS, STRUCTURE, Document, Part, Sequence, Span, build, parse
from vpoet.sequence.vocabulary import Modality, Vocabulary, condition_names, task_names

TEXT, IMAGE, VIDEO = (KINDS.index(name) for name in ("text", "image", "video"))

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")
PLAYED = replace(VOCABULARY, appended=(("actions", 5), ("outcomes", 8)))


def codes(t: int, h: int, w: int) -> np.ndarray:
    return (np.arange(t * h * w, dtype=np.int32) % 12).reshape(t, h, w)


def masked(*shape: int, at: tuple[int, ...], fps: int = 0, time: int = 0) -> Span:
    """A context with one hidden cell."""
    hidden = np.zeros(shape, dtype=bool)
    hidden[at] = True
    modality = Modality.VIDEO if fps else Modality.IMAGE
    return Span(modality, np.where(hidden, 0, codes(*shape)).astype(np.int32), fps=fps, time=time, hidden=hidden)


def span(modality: Modality, *shape: int, target: bool = False, fps: int = 0, time: int = 0) -> Span:
    values = np.arange(shape[0], dtype=np.int32) if modality is Modality.TEXT else codes(*shape)
    return Span(modality, values, target, fps=fps, time=time)


I2V = Document(
    "i2v",
    (
        span(Modality.TEXT, 2),
        span(Modality.IMAGE, 1, 2, 2),
        span(Modality.VIDEO, 2, 2, 2, target=True, fps=8, time=1),
    ),
)


@st.composite
def spans(draw: st.DrawFn) -> Span:
    modality = draw(st.sampled_from(Modality))
    target = draw(st.booleans())
    if modality is Modality.TEXT:
        return Span(modality, np.array(draw(st.lists(st.integers(0, 19), max_size=6)), dtype=np.int32), target)
    if modality is Modality.PLAY:
        arity, t, *grid = (draw(st.integers(0, most)) for most in (2, 4, 2, 2))
        row = st.tuples(*[st.integers(0, 4)] * arity, st.integers(0, 7), *[st.integers(0, 11)] * (grid[0] * grid[1]))
        rows = np.array(draw(st.lists(row, min_size=t, max_size=t)), dtype=np.int32)
        return Span(
            modality, rows.reshape(t, arity + 1 + grid[0] * grid[1]), target, grid=(grid[0], grid[1]),
            fps=draw(st.integers(0, 255)), time=draw(st.integers(0, 65_535)),
            produced=Part(draw(st.integers(1, 7))) if target else Part.NOTHING,
        )  # fmt: skip
    shape = (
        1 if modality is Modality.IMAGE else draw(st.integers(0, 3)),
        draw(st.integers(0, 3)),
        draw(st.integers(0, 3)),
    )
    n = int(np.prod(shape))
    values = np.array(draw(st.lists(st.integers(0, 11), min_size=n, max_size=n)), dtype=np.int32).reshape(shape)
    hidden = None
    if not target and n and draw(st.booleans()):
        hidden = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(any))).reshape(shape)
        values[hidden] = 0
    fps = draw(st.integers(0, 255)) if modality is Modality.VIDEO else 0
    return Span(modality, values, target, fps=fps, time=draw(st.integers(0, 255)), hidden=hidden)


@st.composite
def lists_of_spans(draw: st.DrawFn) -> tuple[Span, ...]:
    """Any spans, and behind some with hidden cells the target that shows them."""
    found: list[Span] = []
    for one in draw(st.lists(spans(), max_size=4)):
        found.append(one)
        if one.hidden is not None and draw(st.booleans()):
            shown = np.where(one.hidden, draw(st.integers(0, 11)), one.values).astype(np.int32)
            found.append(Span(one.modality, shown, True, fps=one.fps, time=one.time))
    return tuple(found)


conditions = st.tuples(*(st.none() | st.integers(0, 255) for _ in condition_names())).map(
    lambda numbers: tuple((name, n) for name, n in zip(condition_names(), numbers, strict=True) if n is not None)
)
documents = st.builds(Document, st.sampled_from(task_names()), lists_of_spans(), conditions)


@given(documents)
def test_parse_is_the_exact_inverse_of_build(document: Document) -> None:
    sequence = build(document, PLAYED)
    assert parse(sequence.ids, PLAYED).equals(document)


@given(documents, st.data())
def test_what_parses_is_what_builds_the_same_tokens(document: Document, data: st.DataObject) -> None:
    """One token changed, dropped or put in: a ShapeError, or a document that builds exactly these tokens."""
    ids = build(document, PLAYED).ids.tolist()
    at, token = data.draw(st.integers(0, len(ids) - 1)), data.draw(st.integers(-1, PLAYED.size))
    ids[at : at + data.draw(st.integers(0, 1))] = data.draw(st.sampled_from([[], [token]]))
    try:
        found = parse(ids, PLAYED)
    except ShapeError:
        return
    assert build(found, PLAYED).ids.tolist() == ids


@given(documents)
def test_every_field_has_one_entry_a_token(document: Document) -> None:
    sequence = build(document, PLAYED)
    n = len(sequence)
    shapes = [part.shape for part in (sequence.ids, sequence.positions, sequence.kinds, sequence.targets)]
    assert shapes == [(n,), (n, 3), (n,), (n,)]
    dtypes = [part.dtype for part in (sequence.ids, sequence.positions, sequence.kinds, sequence.targets)]
    assert dtypes == [np.int32, np.int32, np.uint8, np.bool_]


@given(documents)
def test_targets_are_unseen_codes_of_visual_targets_and_text_targets_with_their_end(document: Document) -> None:
    sequence = build(document, PLAYED)
    expected: list[int] = []
    begun = False
    masks: dict[tuple[Modality, int, tuple[int, ...]], np.ndarray] = {}
    for span in document.spans:
        grid = (span.modality, span.time, span.values.shape)
        if span.hidden is not None:
            masks[grid] = span.hidden
        if span.target and span.modality is Modality.TEXT:
            expected += [*VOCABULARY.ids(span.values, "text"), VOCABULARY.special("<close:text>")]
        elif span.modality is Modality.PLAY:
            for row in span.values:
                parts = (
                    (Part.ACTIONS, "actions", row[: span.arity]),
                    (Part.OUTCOMES, "outcomes", row[span.arity : span.arity + 1]),
                    (Part.FRAMES, "codes", row[span.arity + 1 :]),
                )
                for part, payload, values in parts:
                    if part in span.produced and (begun or part is Part.FRAMES):
                        expected += PLAYED.ids(values, payload).tolist()
                begun = True
            begun = True
        elif span.target:
            unseen = masks.get(grid, np.ones(span.values.shape, dtype=bool))
            expected += VOCABULARY.ids(span.values, "codes")[unseen].tolist()
    assert sequence.ids[sequence.targets].tolist() == expected
    assert not (sequence.targets & (sequence.kinds == STRUCTURE)).any()


@given(documents, st.integers(0, 4))
def test_what_a_target_holds_changes_nothing_else(document: Document, code: int) -> None:
    """The layout is known before any target is: same positions, kinds and targets, and ids that differ only there."""
    spans = (
        replace(s, values=np.where(unseen, np.int32(code), s.values)) if s.target else s
        for s, unseen in zip(document.spans, document.predicted(), strict=True)
    )
    blank = replace(document, spans=tuple(spans))
    one, other = build(document, PLAYED), build(blank, PLAYED)
    assert np.array_equal(one.positions, other.positions)
    assert np.array_equal(one.kinds, other.kinds)
    assert np.array_equal(one.targets, other.targets)
    assert np.array_equal(one.ids[~one.targets], other.ids[~other.targets])


def test_tokens_of_an_image_to_video_document() -> None:
    sequence = build(I2V, VOCABULARY)
    assert [VOCABULARY.name(int(token)) for token in sequence.ids] == [
        *("<bos>", "<task:i2v>"),
        *("<context:text>", "text:0", "text:1", "<close:text>"),
        *("<context:image>", "0", "2", "2", "code:0", "code:1", "code:2", "code:3", "<close:image>"),
        *("<target:video>", "8", "1", "2", "2", "2", *(f"code:{i}" for i in range(8)), "<close:video>"),
        "<eos>",
    ]
    assert sequence.targets.nonzero()[0].tolist() == list(range(21, 29))
    assert (
        sequence.kinds.tolist()
        == [STRUCTURE] * 3
        + [TEXT] * 2
        + [STRUCTURE] * 5
        + [IMAGE] * 4
        + [STRUCTURE] * 7
        + [VIDEO] * 8
        + [STRUCTURE] * 2
    )
    assert sequence.prefix == 21


def test_positions_of_an_image_to_video_document() -> None:
    """The image is cell 0 of the clip whose cells 1 and 2 are the target; text and structure stand on the diagonal."""
    positions = build(I2V, VOCABULARY).positions.tolist()
    diagonal = [[i, i, i] for i in range(30)]
    assert positions[:10] == diagonal[:10]
    assert positions[10:14] == [[10, 10, 10], [10, 10, 11], [10, 11, 10], [10, 11, 11]]
    assert positions[14:21] == diagonal[12:19]  # behind the furthest coordinate of the image, 11
    assert positions[21:29] == [[10 + t, 10 + h, 10 + w] for t in (1, 2) for h in (0, 1) for w in (0, 1)]
    assert positions[29:] == diagonal[19:21]  # the clip reaches to 12, the header already stands behind it


@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 3), st.data())
def test_cells_keep_their_distances_wherever_the_clip_is_cut(t: int, h: int, w: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, t - 1))
    halves = (
        Span(Modality.VIDEO, codes(t, h, w)[:cut], False, fps=8, time=0),
        Span(Modality.VIDEO, codes(t, h, w)[cut:], True, fps=8, time=cut),
    )
    whole = (Span(Modality.VIDEO, codes(t, h, w), True, fps=8),)
    split, joined = (build(Document("continuation", parts), VOCABULARY) for parts in (halves, whole))
    assert np.array_equal(split.positions[split.kinds == VIDEO], joined.positions[joined.kinds == VIDEO])


def test_guides_and_holes_stand_where_the_cells_of_the_clip_do() -> None:
    """A guide at cell 2, and a context with a hole, have the positions of the target's cells."""
    guide = Span(Modality.IMAGE, codes(1, 2, 2), time=2)
    video = span(Modality.VIDEO, 3, 2, 2, target=True, fps=8)
    sequence = build(Document("backward", (guide, video)), VOCABULARY)
    places = sequence.positions[sequence.kinds == VIDEO]
    assert np.array_equal(sequence.positions[sequence.kinds == IMAGE], places[8:])
    holed = Document("inpainting", (masked(3, 2, 2, at=(1, 0, 1), fps=8), video))
    twice = build(holed, VOCABULARY).positions[build(holed, VOCABULARY).kinds == VIDEO]
    assert np.array_equal(twice[:12], twice[12:])


def test_only_holes_of_the_same_grid_are_filled() -> None:
    hole = masked(1, 2, 2, at=(0, 0, 1))
    fitting = span(Modality.IMAGE, 1, 2, 2, target=True)
    others = (
        span(Modality.IMAGE, 1, 2, 1, target=True),
        Span(Modality.IMAGE, codes(1, 2, 2), True, time=1),
        span(Modality.VIDEO, 1, 2, 2, target=True, fps=8),
    )
    for other in others:
        assert Document("inpainting", (hole, other)).predicted()[1].all()
    assert Document("inpainting", (fitting, hole)).predicted()[0].all(), "holes come first"
    assert Document("inpainting", (hole, fitting)).predicted()[1].tolist() == [[[False, True], [False, False]]]
    ids = build(Document("inpainting", (hole, fitting)), VOCABULARY).ids
    names = [VOCABULARY.name(int(token)) for token in ids]
    assert names[6:10] == ["code:0", "<hidden>", "code:2", "code:3"]


def test_guides_and_contexts_with_holes_are_no_cells_of_the_clip() -> None:
    guide = Span(Modality.IMAGE, codes(1, 2, 2), time=2)
    hole = masked(3, 2, 2, at=(1, 0, 1), fps=8)
    video = span(Modality.VIDEO, 3, 2, 2, target=True, fps=8)
    assert np.array_equal(Document("backward", (guide, video)).codes(), video.values)
    assert np.array_equal(Document("inpainting", (hole, video)).codes(), video.values)
    with pytest.raises(ShapeError, match="without visual spans"):
        Document("backward", (guide,)).codes()


def test_clip_of_a_document_is_its_spans_joined() -> None:
    assert np.array_equal(I2V.codes(), np.concatenate([codes(1, 2, 2), codes(2, 2, 2)]))
    shuffled = Document("i2v", I2V.spans[::-1])
    assert np.array_equal(shuffled.codes(), I2V.codes())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((span(Modality.TEXT, 2),), "without visual spans"),
        ((span(Modality.VIDEO, 2, 2, 2, time=1),), "starts at cell 1, expected 0"),
        ((span(Modality.VIDEO, 2, 2, 2), span(Modality.VIDEO, 2, 2, 2, time=1)), "starts at cell 1, expected 2"),
        ((span(Modality.IMAGE, 1, 2, 2), span(Modality.VIDEO, 1, 2, 3, time=1)), "differ in height and width"),
    ],
)
def test_spans_that_make_no_clip_are_refused(parts: tuple[Span, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        Document("i2v", parts).codes()


HOLE = np.arange(8).reshape(2, 2, 2) == 0


@pytest.mark.parametrize(
    ("field", "value"), [("target", True), ("fps", 9), ("time", 2), ("values", codes(2, 2, 1)), ("hidden", HOLE)]
)
def test_equality_sees_every_field(field: str, value: object) -> None:
    fields = {"values": codes(2, 2, 2), "target": False, "fps": 8, "time": 1}
    one, other = Span(Modality.VIDEO, **fields), Span(Modality.VIDEO, **{**fields, field: value})
    assert one.equals(Span(Modality.VIDEO, **fields))
    assert not one.equals(other)
    assert not Document("t2v", (one,)).equals(Document("t2v", (other,)))
    assert not Document("t2v", (one,)).equals(Document("i2v", (one,)))
    assert not Document("t2v", (one,)).equals(Document("t2v", (one, one)))


def test_grid_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(ShapeError, match="width = 256 does not fit"):
        build(Document("t2v", (span(Modality.VIDEO, 1, 1, 256),)), VOCABULARY)


def edited(**change: str) -> list[int]:
    """Tokens of I2V with tokens replaced: ``at3="<eos>"``; an empty name ends the sequence there."""
    names = {VOCABULARY.name(token): token for token in range(VOCABULARY.size)}
    ids = build(I2V, VOCABULARY).ids.tolist()
    for at, name in change.items():
        index = int(at.removeprefix("at"))
        ids = ids[:index] if not name else [*ids[:index], names[name], *ids[index + 1 :]]
    return ids


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "token 0: expected <bos>, found the end"),
        (edited(at0="<eos>"), "token 0: expected <bos>, found <eos>"),
        (edited(at1="text:1"), "token 1: expected <task:unconditional> or .*, found text:1"),
        (edited(at2="<close:text>"), "token 2: expected <eos> or <context:text> or .*, found <close:text>"),
        (edited(at4="code:3"), "tokens 3 to 4: expected text tokens, found code:3"),
        (edited(at5=""), "token 5: expected <close:text>, found the end"),
        (edited(at7="text:2"), "tokens 7 to 9: expected a number in the header of a span, found text:2"),
        (edited(at9="3"), "tokens 10 to 15: expected visual tokens, found <close:image>"),
        (edited(at9="1"), "token 12: expected <close:image>, found code:2"),
        (edited(at22="text:2"), "tokens 21 to 28: expected visual tokens, found text:2"),
        (edited(at22="<hidden>"), "tokens 21 to 28: expected visual tokens, found <hidden>"),
        (edited(at23=""), "token 21: expected 8 more tokens, found 2"),
        (edited(at17=""), "token 16: expected 5 more tokens, found 1"),
        (edited(at30=""), "token 30: expected <eos> or .*, found the end"),
        ([*edited(), 1], "token 31: 1 tokens after <eos>"),
    ],
)
def test_breach_of_the_grammar_is_located(ids: list[int], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        parse(ids, VOCABULARY)


def test_prefix_without_targets_is_everything() -> None:
    sequence = build(Document("t2v", (span(Modality.TEXT, 3),)), VOCABULARY)
    assert sequence.prefix == len(sequence)


def test_text_target_is_predicted_with_its_closing_token() -> None:
    sequence = build(Document("t2v", (span(Modality.IMAGE, 1, 1, 1), span(Modality.TEXT, 2, target=True))), VOCABULARY)
    assert sequence.targets.nonzero()[0].tolist() == [8 + 1, 8 + 2, 8 + 3]
    assert sequence.kinds[sequence.targets].tolist() == [TEXT] * 3


@given(documents)
def test_axes_advance_together_outside_of_grids(document: Document) -> None:
    sequence: Sequence = build(document, PLAYED)
    outside = sequence.positions[(sequence.kinds == STRUCTURE) | (sequence.kinds == TEXT)]
    assert (outside == outside[:, :1]).all()
    assert all(b > a for a, b in pairwise(outside[:, 0].tolist()))
