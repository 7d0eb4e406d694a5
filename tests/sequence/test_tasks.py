"""Tasks: what is given and what is wanted in each, round trips through tokens, and the weighted choice."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ConfigError
from vpoet.sequence.document import Document, build, parse
from vpoet.sequence.tasks import TABLE, Mixture, Sample
from vpoet.sequence.vocabulary import TASKS, Vocabulary

VOCABULARY = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")


def sample(t: int, h: int = 2, w: int = 2, *, words: int = 3) -> Sample:
    codes = (np.arange(t * h * w, dtype=np.int32) % 12).reshape(t, h, w)
    return Sample(np.arange(words, dtype=np.int32), codes, fps=8 if t > 1 else 0)


def outline(document: Document) -> list[str]:
    """``text`` or ``[video 1:3 @8]``: brackets around what is to be produced, a video's cells and rate."""
    parts = []
    for span in document.spans:
        part = str(span.modality)
        if span.modality == "video":
            part += f" {span.time}:{span.time + len(span.values)} @{span.fps}"
        parts.append(f"[{part}]" if span.target else part)
    return parts


@pytest.mark.parametrize(
    ("task", "cells", "given", "expected"),
    [
        ("unconditional", 1, 0, ["[image]"]),
        ("unconditional", 3, 0, ["[video 0:3 @8]"]),
        ("t2i", 1, 0, ["text", "[image]"]),
        ("t2i", 3, 0, ["text", "[image]"]),
        ("t2v", 3, 0, ["text", "[video 0:3 @8]"]),
        ("i2v", 3, 1, ["text", "image", "[video 1:3 @8]"]),
        ("continuation", 3, 2, ["text", "video 0:2 @8", "[video 2:3 @8]"]),
    ],
)
def test_what_is_given_and_what_is_wanted(task: str, cells: int, given: int, expected: list[str]) -> None:
    assert outline(TABLE[task].document(sample(cells), given)) == expected


@given(st.sampled_from(TASKS), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 4), st.data())
def test_every_task_survives_its_tokens_and_gives_the_clip_back(
    name: str, t: int, h: int, w: int, words: int, data: st.DataObject
) -> None:
    task = TABLE[name]
    made_from = sample(max(t, task.cells), h, w, words=words)
    cells = len(made_from.codes)
    document = task.document(made_from, data.draw(st.integers(*task.given(cells))))
    found = parse(build(document, VOCABULARY).ids, VOCABULARY)
    assert found.equals(document)
    wanted = made_from.codes[:1] if name == "t2i" else made_from.codes
    assert np.array_equal(found.codes(), wanted)
    assert sum(span.target for span in found.spans) == 1
    texts = [span.values for span in found.spans if span.modality == "text"]
    assert all(np.array_equal(text, made_from.text) for text in texts)
    assert len(texts) == (name != "unconditional")


@given(st.sampled_from(TASKS), st.integers(1, 6))
def test_something_is_always_left_to_produce(name: str, extra: int) -> None:
    task = TABLE[name]
    cells = task.cells + extra - 1
    least, most = task.given(cells)
    assert 0 <= least <= most < cells


def test_sample_draws_only_tasks_that_it_is_long_enough_for() -> None:
    mixture = Mixture.of({"t2i": 1, "t2v": 5, "continuation": 5})
    random = np.random.default_rng(0)
    assert {mixture.draw(sample(1), random).task for _ in range(20)} == {"t2i"}  # type: ignore[union-attr]
    assert Mixture.of({"t2v": 1}).draw(sample(1), random) is None


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
