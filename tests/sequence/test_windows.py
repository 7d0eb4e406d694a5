"""Until when tokens of a document are seen: frames for a window, a text until the next one, the sink to the end."""

import numpy as np
import pytest

from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document, Span, build
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed

VOCABULARY = Vocabulary(20, (6, 4), "t", "v")


def text(*pieces: int) -> Span:
    return Span(Modality.TEXT, np.array(pieces, np.int32))


def video(cells: int, time: int, target: bool = True) -> Span:
    return Span(Modality.VIDEO, np.ones((cells, 1, 2), np.int32), target, fps=8, time=time)


def told(document: Document, frames: int) -> list[str]:
    """The tokens' names, each with where it ends to be seen, if that is before the document's end."""
    sequence = windowed(build(document, VOCABULARY), document, frames)
    assert sequence.until is not None
    names = [VOCABULARY.name(int(token)) for token in sequence.ids]
    return [
        name if until == len(sequence) else f"{name} until {until}:{names[until]}"
        for name, until in zip(names, sequence.until, strict=True)
    ]


def test_frames_are_seen_for_a_window_and_what_precedes_them_to_the_end() -> None:
    found = told(Document("t2v", (text(3), video(4, 0))), 2)
    assert found == [
        "<bos>", "<task:t2v>", "<context:text>", "text:3", "<close:text>", "<target:video>", "8", "0", "4", "1", "2",
        "code:1 until 15:code:1", "code:1 until 15:code:1", "code:1 until 17:code:1", "code:1 until 17:code:1",
        "code:1", "code:1", "code:1", "code:1", "<close:video>", "<eos>",
    ]  # fmt: skip


def test_a_text_between_frames_is_seen_until_the_next_one() -> None:
    spans = text(3), video(1, 0), text(4), text(5), video(2, 1), text(), video(1, 3), text(6), video(1, 4)
    found = told(Document("t2v", spans), 1)
    replaced = [name for name in found if "until" in name and "code" not in name]
    second = (
        "<close:video> <context:text> text:4 <close:text> <context:text> text:5 <close:text> <target:video> 8 1 2 1 2"
    )
    third = "<close:video> <context:text> <close:text> <target:video> 8 3 1 1 2"
    at = [i for i, name in enumerate(found) if name.startswith("<close:video>")]
    assert replaced == [f"{name} until {at[1]}:<close:video>" for name in second.split()] + [
        f"{name} until {at[2]}:<close:video>" for name in third.split()
    ]
    assert not any("until" in name for name in found[at[2] :])


def test_frames_go_on_from_span_to_span_and_guides_are_no_frames() -> None:
    codes = np.ones((4, 1, 2), np.int32)
    sample = Sample(np.zeros(1, np.int32), codes, 8, codes)
    names = told(TABLE["continuation"].document(sample, Given(2)), 2)
    ends = [name.split(" until ")[1].split(":")[0] for name in names if "until" in name]
    codes_at = [i for i, name in enumerate(names) if name.startswith("code")]
    assert ends == [str(codes_at[4])] * 2 + [str(codes_at[6])] * 2
    names = told(TABLE["interpolation"].document(sample, Given(times=(0, 2, 3))), 1)
    hidden = [i for i, name in enumerate(names) if "until" in name]
    codes_at = [i for i, name in enumerate(names) if name.startswith("code")]
    assert hidden == codes_at[:2] + codes_at[6:10]  # the first image, not the two guides, and two of three frames


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_frame_sees_the_window_before_it_whole_and_no_more(frames: int) -> None:
    document = Document("t2v", (text(3), video(3, 0), text(4), video(3, 3)))
    sequence = windowed(build(document, VOCABULARY), document, frames)
    assert sequence.until is not None
    codes_at = np.flatnonzero(sequence.visual).reshape(6, 2)
    for frame, mine in enumerate(codes_at):
        seen = [other for other, theirs in enumerate(codes_at[: frame + 1]) if sequence.until[theirs[0]] > mine[0]]
        assert seen == list(range(max(0, frame - frames + 1), frame + 1))
        assert all(sequence.until[theirs[0]] == sequence.until[theirs[-1]] for theirs in codes_at)


def test_a_span_without_frames_changes_nothing() -> None:
    none, some = video(0, 0), video(2, 0)
    with_none = told(Document("t2v", (text(1), none, some)), 1)
    assert with_none[-4:] == told(Document("t2v", (text(1), some)), 1)[-4:]


def test_without_a_window_the_sequence_is_as_it_was() -> None:
    document = Document("t2v", (text(3), video(4, 0)))
    sequence = build(document, VOCABULARY)
    assert windowed(sequence, document, 0) is sequence
    wide = windowed(sequence, document, 4)
    assert wide.until is not None
    assert (wide.until == len(sequence)).all()


def test_actions_that_are_read_off_frames_see_all_of_them_in_a_window_as_long() -> None:
    vocabulary = Vocabulary(20, (6, 4), "t", "v", appended=(("actions", 5), ("outcomes", 8)))
    sample = Sample(
        np.array([3], np.int32), np.ones((9, 1, 2), np.int32), 8, actions=np.ones((8, 1), np.int32), window=4
    )
    given = TABLE["inverse"].draw(sample, np.random.default_rng(0))
    assert given.stretch is not None
    assert given.stretch[1] - given.stretch[0] == 4, "no more frames than the window holds"
    document = TABLE["inverse"].document(sample, given)
    sequence = windowed(build(document, vocabulary), document, 4)
    assert sequence.until is not None
    assert (sequence.until == len(sequence)).all()
