"""Tasks: what is given and what is wanted in each, round trips through tokens, and the weighted choice."""

import math
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ConfigError
from vpoet.sequence import tasks, vocabulary
from vpoet.sequence.arrangements import Given, Painting, Sample
from vpoet.sequence.document import Document, build, parse
from vpoet.sequence.tasks import COMPOSED, PAINTED, TABLE, Mixture
from vpoet.sequence.vocabulary import Modality, Vocabulary, task_names

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")


def sample(t: int, h: int = 2, w: int = 2, *, words: int = 3, keyframes: bool = True, painted: bool = True) -> Sample:
    """Two paintings for each task that has some; every code that one shows is another than the whole clip's."""
    codes = (np.arange(t * h * w, dtype=np.int32) % 12).reshape(t, h, w)
    pictures = np.concatenate([codes[:1], (codes[1:] + 5) % 12]) if keyframes else None
    holes = [np.indices(codes.shape).sum(axis=0) % 2 == parity for parity in (0, 1)] if codes.size > 1 else []
    paintings = [Painting(task, hole, np.where(hole, 0, (codes + 7) % 12)) for task in PAINTED for hole in holes]
    text, fps = np.arange(words, dtype=np.int32), 8 if t > 1 else 0
    return Sample(text, codes, fps, pictures, tuple(paintings) if painted else ())


def outline(document: Document) -> list[str]:
    """``text`` or ``[video 1:3 @8]``: brackets around what is to be produced, a video's cells and rate; ``guide 2``;
    ``video 0:2 @8 less 3``: with that many cells hidden."""
    parts = []
    for span in document.spans:
        part = str(span.modality)
        if span.modality == "video":
            part += f" {span.time}:{span.time + len(span.values)} @{span.fps}"
        elif not span.in_clip and span.modality == "image" and span.hidden is None:
            part = f"guide {span.time}"
        if span.hidden is not None:
            part += f" less {span.hidden.sum()}"
        parts.append(f"[{part}]" if span.target else part)
    return parts


CORNER = np.zeros((3, 2, 2), dtype=bool)
CORNER[1:, 0, 0] = True


@pytest.mark.parametrize(
    ("task", "cells", "given", "expected"),
    [
        ("unconditional", 1, Given(), ["[image]"]),
        ("unconditional", 3, Given(), ["[video 0:3 @8]"]),
        ("t2i", 1, Given(), ["text", "[image]"]),
        ("t2i", 3, Given(), ["text", "[image]"]),
        ("t2v", 3, Given(), ["text", "[video 0:3 @8]"]),
        ("i2v", 3, Given(1), ["text", "image", "[video 1:3 @8]"]),
        ("continuation", 3, Given(2), ["text", "video 0:2 @8", "[video 2:3 @8]"]),
        ("backward", 3, Given(1), ["text", "guide 2", "[video 0:3 @8]"]),
        ("backward", 3, Given(2), ["text", "guide 1", "guide 2", "[video 0:2 @8]"]),
        ("interpolation", 4, Given(times=(0, 3)), ["text", "image", "guide 3", "[video 1:4 @8]"]),
        ("interpolation", 4, Given(times=(0, 1, 3)), ["text", "image", "guide 1", "guide 3", "[video 1:4 @8]"]),
        ("inpainting", 3, Given(hidden=CORNER), ["text", "video 0:3 @8 less 2", "[video 0:3 @8]"]),
        ("inpainting", 1, Given(hidden=CORNER[1:2]), ["text", "image less 1", "[image]"]),
        ("outpainting", 3, Given(hidden=~CORNER), ["text", "video 0:3 @8 less 10", "[video 0:3 @8]"]),
    ],
)
def test_what_is_given_and_what_is_wanted(task: str, cells: int, given: Given, expected: list[str]) -> None:
    assert outline(TABLE[task].document(sample(cells), given)) == expected


def drawn(name: str, t: int, h: int, w: int, words: int, seed: int) -> tuple[Sample, Document]:
    """A sample that a task can take, nearly of this size, and a document as training draws it."""
    task = TABLE[name]
    made_from = sample(max(t, task.cells), max(h, 2 if name in PAINTED else 1), w, words=words)
    return made_from, task.document(made_from, task.draw(made_from, np.random.default_rng(seed)))


def whole(made_from: Sample, document: Document) -> np.ndarray:
    """The codes of the clip that a document of a sample is to give: of what is shown of a painting, those shown."""
    for span in document.spans:
        if span.hidden is not None:
            (shown,) = [p.shown for p in made_from.paintings if p[:1] == (document.task,) and p.hidden is span.hidden]
            return np.where(span.hidden, made_from.codes, shown)
    return made_from.codes


OF_A_CLIP = [name for name, task in TABLE.items() if not task.needs]
"""The tasks that need no more than a clip; tests/sequence/test_play.py has the others."""

sizes = given(
    st.sampled_from(OF_A_CLIP),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 2**32),
)


@sizes
def test_every_task_survives_its_tokens_and_gives_the_clip_back(
    name: str, t: int, h: int, w: int, words: int, seed: int
) -> None:
    made_from, document = drawn(name, t, h, w, words, seed)
    found = parse(build(document, VOCABULARY).ids, VOCABULARY)
    assert found.equals(document)
    guides = [span for span in found.spans if span.modality == "image" and span.time > 0]
    wanted = whole(made_from, document)
    if name == "t2i":
        wanted = wanted[:1]
    if name == "backward":  # the clip ends with the first of the frames that follow it
        wanted = wanted[: guides[0].time + 1]
        assert [guide.time for guide in guides] == [*range(guides[0].time, len(made_from.codes))]
    assert np.array_equal(found.codes(), wanted)
    assert sum(span.target for span in found.spans) == 1
    texts = [span.values for span in found.spans if span.modality == "text"]
    assert all(np.array_equal(text, made_from.text) for text in texts)
    assert len(texts) == (name != "unconditional")
    assert made_from.keyframes is not None
    assert all(np.array_equal(guide.values[0], made_from.keyframes[guide.time]) for guide in guides)
    assert bool(guides) == TABLE[name].keyframes


@sizes
def test_a_document_draws_itself_again_from_its_tokens(
    name: str, t: int, h: int, w: int, words: int, seed: int
) -> None:
    """Arranging is inverted too: what was given can be read off the document, and gives the same document."""
    made_from, document = drawn(name, t, h, w, words, seed)
    found = parse(build(document, VOCABULARY).ids, VOCABULARY)
    images = tuple(span.time for span in found.spans if span.modality == "image" and not span.target)
    videos = [len(span.values) for span in found.spans if span.modality == "video" and not span.target]
    cells = {"i2v": 1, "continuation": sum(videos), "backward": len(images)}.get(name, 0)
    (hidden,) = [span.hidden for span in found.spans if span.hidden is not None] or [None]
    times = images if name == "interpolation" else ()
    shown = None if hidden is None else found.codes()
    assert TABLE[name].document(made_from, Given(cells, times, hidden, shown)).equals(document)


@sizes
def test_something_is_always_left_to_produce_and_kept_cells_are_not_predicted(
    name: str, t: int, h: int, w: int, words: int, seed: int
) -> None:
    made_from, document = drawn(name, t, h, w, words, seed)
    assert build(document, VOCABULARY).targets.any()
    for span, predicted in zip(document.spans, document.predicted(), strict=True):
        hidden = [earlier.hidden for earlier in document.spans if earlier.hidden is not None]
        if span.target and hidden:
            assert np.array_equal(predicted, hidden[0])
            assert np.array_equal(span.values, whole(made_from, document))


def test_sample_draws_only_tasks_that_it_is_fit_for() -> None:
    random = np.random.default_rng(0)

    def names(made_from: Sample, *tasks: str) -> set[str]:
        mixture = Mixture.of(dict.fromkeys(tasks, 1.0))
        return {mixture.draw(made_from, random).task for _ in range(20)}  # type: ignore[union-attr]

    assert names(sample(1), "t2i", "t2v", "continuation") == {"t2i"}
    assert names(sample(3, keyframes=False), "t2v", "backward", "interpolation") == {"t2v"}
    assert names(sample(3, 1, 1), "t2v", "outpainting") == {"t2v"}
    assert names(sample(3, painted=False), "t2v", "inpainting", "outpainting") == {"t2v"}
    borders = replace(sample(3), paintings=sample(3).paintings[2:])
    assert names(borders, "t2v", "inpainting", "outpainting") == {"t2v", "outpainting"}
    assert Mixture.of({"t2v": 1}).draw(sample(1), random) is None
    assert Mixture.of({"backward": 1}).draw(sample(3, keyframes=False), random) is None
    assert Mixture.of({"inpainting": 1}).draw(sample(3, painted=False), random) is None


def given_times(document: Document) -> tuple[int, ...]:
    return tuple(span.time for span in document.spans if span.modality is Modality.IMAGE)


def test_keyframes_are_given_evenly_and_unevenly_first_and_last_always() -> None:
    mixture, random = Mixture.of({"interpolation": 1}), np.random.default_rng(0)
    found = {given_times(mixture.draw(sample(5), random)) for _ in range(400)}  # type: ignore[arg-type]
    assert {(times[0], times[-1]) for times in found} == {(0, 4)}
    assert len(found) == 8, "each of the three between is given or not"


@pytest.mark.parametrize("task", PAINTED)
def test_a_painting_shows_its_own_codes_and_wants_those_of_the_whole_clip(task: str) -> None:
    """Each of the task's paintings is drawn, and none of the other task's."""
    made_from = sample(3)
    others = [Painting(name, ~p.hidden, p.shown) for name in PAINTED if name != task for p in made_from.paintings[:1]]
    made_from = replace(made_from, paintings=(*others, *(p for p in made_from.paintings if p.task == task)))
    mixture, random = Mixture.of({task: 1}), np.random.default_rng(0)
    drawn = set()
    for _ in range(20):
        _, given, wanted = mixture.draw(made_from, random).spans  # type: ignore[union-attr]
        (number,) = [n for n, painting in enumerate(made_from.paintings) if painting.hidden is given.hidden]
        drawn.add(number)
        painting = made_from.paintings[number]
        assert np.array_equal(given.values, painting.shown)
        assert np.array_equal(wanted.values[painting.hidden], made_from.codes[painting.hidden])
        assert np.array_equal(wanted.values[~painting.hidden], painting.shown[~painting.hidden])
    assert drawn == {1, 2}


def test_every_row_of_the_table_says_what_it_is_and_how_to_ask_for_it() -> None:
    rows = [*TABLE.values(), *COMPOSED]
    assert len({row.name for row in rows}) == len(rows)
    assert all(row.meaning and row.drawing and (row.flag or row.needs) for row in TABLE.values())
    assert all(row.meaning and row.drawing and row.flag for row in COMPOSED)
    assert task_names() == list(TABLE)
    assert all(set(row.of) <= set(TABLE) for row in COMPOSED)


def test_tasks_are_drawn_by_weight() -> None:
    """4,000 draws: each share is within 4 standard deviations of its weight (two shares: wrong once in 8,000 seeds)."""
    mixture = Mixture.of({"t2v": 3, "i2v": 1, "t2i": 0})
    random = np.random.default_rng(0)
    n = 4000
    names = [mixture.draw(sample(3), random).task for _ in range(n)]  # type: ignore[union-attr]
    assert set(names) == {"t2v", "i2v"}
    assert abs(names.count("t2v") - 0.75 * n) < 4 * math.sqrt(n * 0.75 * 0.25)


def test_every_possible_context_length_is_drawn() -> None:
    mixture = Mixture.of({"continuation": 1})
    random = np.random.default_rng(0)
    lengths = {len(mixture.draw(sample(5), random).spans[1].values) for _ in range(200)}  # type: ignore[union-attr]
    assert lengths == {1, 2, 3, 4}


def test_draw_is_a_function_of_the_generator_and_not_of_the_order_of_the_weights() -> None:
    one, other = Mixture.of({"t2v": 1, "i2v": 2}), Mixture.of({"i2v": 2, "t2v": 1})
    for seed in range(20):
        a, b = (mixture.draw(sample(4), np.random.default_rng(seed)) for mixture in (one, other))
        assert a is not None
        assert b is not None
        assert a.equals(b)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"t2x": 1}, "tasks.t2x: no such task; there are unconditional, t2i, t2v, i2v, continuation"),
        ({"t2v": -1}, "tasks.t2v: a weight is at least 0, not -1"),
        ({"t2v": 0}, "at least one task needs a weight above 0"),
        ({}, "at least one task needs a weight above 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture.of(weights)


NEW_TASK = """
from vpoet.sequence.document import Span
from vpoet.sequence.arrangements import Given
from vpoet.sequence.tasks import Task, add
from vpoet.sequence.vocabulary import Modality

def captioning(sample, given):
    return Span(Modality.VIDEO, sample.codes, fps=sample.fps), Span(Modality.TEXT, sample.text, target=True)

add(Task("captioning", 31, "the caption of a video", "video -> [text]", "", captioning, lambda s, r: Given(), cells=2))
"""


def test_one_file_adds_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TABLE", table := dict(TABLE))
    monkeypatch.setattr(vocabulary, "_NAMES", list(vocabulary._NAMES))
    (tmp_path / "captioning.py").write_text(NEW_TASK)
    runpy.run_path(str(tmp_path / "captioning.py"))
    document = Mixture.of({"captioning": 1.0}).draw(sample(3), np.random.default_rng(0))
    assert document is not None
    assert outline(document) == ["video 0:3 @8", "[text]"]
    assert parse(build(document, VOCABULARY).ids, VOCABULARY).equals(document)
    assert VOCABULARY.special("<task:captioning>") == 31
    with pytest.raises(AssertionError, match="next free token is 32"):
        tasks.add(replace(table["captioning"], name="another", token=40))
