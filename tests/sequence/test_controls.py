"""Controls beside the tokens: each cell where it is predicted, with its neighbours, alone and in packs."""

import numpy as np
import pytest

from vpoet.arrays import Ints
from vpoet.errors import ShapeError
from vpoet.sequence import controls
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.controls import KINDS, NONE, Control, ControlCells
from vpoet.sequence.document import Document, Sequence, build
from vpoet.sequence.packing import pack, unpack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
GRID = (3, 2, 3)
TASKS = {
    "t2v": Given(),
    "t2i": Given(),
    "i2v": Given(1),
    "continuation": Given(2),
    "backward": Given(1),
    "interpolation": Given(times=(0, 2)),
    "unconditional": Given(),
}


def grid(seed: int) -> Ints:
    return np.random.default_rng(seed).integers(0, 24, GRID, dtype=np.int32)


def controlled(task: str, *kinds: str) -> Document:
    sample = Sample(np.arange(4, dtype=np.int32), grid(0), 8, keyframes=grid(1))
    given = tuple(Control(kind, grid(2 + i), 0.25 * (i + 1)) for i, kind in enumerate(kinds))
    plain = TABLE[task].document(sample, TASKS[task])
    return Document(plain.task, plain.spans, controls=given)


def same(one: ControlCells | None, other: ControlCells | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("codes", "strengths", "near", "at")
    )


@pytest.mark.parametrize("task", TASKS)
def test_each_cell_is_told_where_it_is_predicted(task: str) -> None:
    """The token before the predicted one is told the control's code of that very cell; tokens stay as they are."""
    document = controlled(task, "edges", "depth")
    sequence, plain = build(document, VOCABULARY), build(Document(document.task, document.spans), VOCABULARY)
    for name in ("ids", "positions", "kinds", "targets"):
        assert np.array_equal(getattr(sequence, name), getattr(plain, name))
    cells = sequence.controls
    assert plain.controls is None
    assert cells is not None
    (predicted,) = np.nonzero(sequence.targets & sequence.visual)
    assert np.array_equal(cells.at, predicted - 1)
    origin = sequence.positions[sequence.visual].min(0)
    for c, at in enumerate(predicted):
        cell = tuple(sequence.positions[at] - origin)
        middle = cells.near[c, 13]
        assert cells.codes[KINDS.index("edges"), middle] == document.controls[0].codes[cell]
        assert cells.codes[KINDS.index("depth"), middle] == document.controls[1].codes[cell]
        for offset, near in zip(np.ndindex(3, 3, 3), cells.near[c], strict=True):
            beside = np.array(cell) + offset - 1
            there = bool(((beside >= 0) & (beside < GRID)).all())
            assert (near != NONE) == there
            assert not there or cells.codes[KINDS.index("edges"), near] == document.controls[0].codes[tuple(beside)]
    assert (cells.strengths[KINDS.index("depth")] == 0.5).all()
    assert (cells.strengths[KINDS.index("flow")] == 0).all()
    assert (cells.codes[KINDS.index("flow")] == NONE).all()


def test_a_pack_has_those_of_its_documents_and_gives_them_back() -> None:
    documents = [controlled("t2v", "edges"), controlled("t2i"), controlled("i2v", "flow", "edges")]
    sequences = [build(document, VOCABULARY) for document in documents]
    row = pack(sequences, 200)
    for sequence, again in zip(sequences, unpack(row), strict=True):
        assert same(sequence.controls, again.controls)
    whole = controls.join([s.controls for s in sequences], [len(s) for s in sequences])
    assert whole is not None
    laid = {name: row.layout[f"control_{name}"] for name in ("codes", "near", "at")}
    assert all(np.array_equal(laid[name], getattr(whole, name)) for name in laid)
    assert np.array_equal(row.layout["control_strengths"].view(np.float32), whole.strengths)
    last = sequences[2].controls
    assert last is not None
    start, cells = len(sequences[0]) + len(sequences[1]), np.prod(GRID)
    assert np.array_equal(whole.at[-len(last.at) :], last.at + start)
    assert np.array_equal(whole.codes[:, -cells:], last.codes)
    plain = pack([sequences[1]], 100)
    assert plain.controls is None
    assert "control_at" not in plain.layout.places


def test_without_words_it_is_without_controls_and_documents_differ_by_them() -> None:
    document = controlled("t2v", "edges")
    assert document.unprompted().controls == ()
    assert document.equals(controlled("t2v", "edges"))
    assert not document.equals(controlled("t2v", "depth"))
    assert not document.equals(controlled("t2v"))


def test_controls_that_do_not_fit_are_an_error() -> None:
    cells, at = np.array([[0, 0, 0], [2, 1, 2]], np.int32), np.array([3, 4], np.int32)
    assert len(controls.lay([Control("edges", grid(0))], cells, at).at) == 2
    with pytest.raises(ShapeError, match="controls of 2x2x3 cells, and the clip has 3x2x3"):
        controls.lay([Control("edges", grid(0)[:2])], cells, at)
    with pytest.raises(ShapeError, match="each kind once"):
        controls.lay([Control("edges", grid(0)), Control("edges", grid(1))], cells, at)
    with pytest.raises(ShapeError, match="of one size"):
        controls.lay([Control("edges", grid(0)), Control("depth", grid(1)[:2])], cells, at)


def test_training_draws_kinds_strengths_and_none() -> None:
    random = np.random.default_rng(0)
    codes, chances = {"edges": grid(0), "depth": grid(1)}, {"edges": 0.8, "depth": 0.4, "pose": 1.0}
    drawn = [controls.draw(codes, chances, 0.25, random) for _ in range(4000)]
    share = {kind: np.mean([any(c.kind == kind for c in each) for each in drawn]) for kind in KINDS}
    assert share["edges"] == pytest.approx(0.75 * 0.8, abs=0.03)
    assert share["depth"] == pytest.approx(0.75 * 0.4, abs=0.03)
    assert share["pose"] == 0
    strengths = np.array([c.strength for each in drawn for c in each])
    assert (strengths == 1).mean() == pytest.approx(0.5, abs=0.03)
    assert np.quantile(strengths[strengths < 1], [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.05)
    whole = [c for each in drawn for c in each if c.strength == 1]
    assert all(np.array_equal(c.codes, codes[c.kind]) for c in whole)
    large = {"edges": np.arange(30 * 40 * 40, dtype=np.int32).reshape(30, 40, 40)}
    for control in [c for _ in range(8) for c in controls.draw(large, {"edges": 1.0}, 0.0, random)]:
        kept = (control.codes == large["edges"]).mean()
        assert kept == pytest.approx(control.strength, abs=0.02)
        assert np.array_equal(np.sort(control.codes, axis=None), large["edges"].reshape(-1))


def test_a_document_says_how_far_its_clip_reaches() -> None:
    assert {task: controlled(task).cells for task in TASKS} == dict.fromkeys(TASKS, 3) | {"t2i": 1}


def test_those_of_the_first_tokens() -> None:
    sequence: Sequence = build(controlled("t2v", "edges"), VOCABULARY)
    assert sequence.controls is not None
    first = sequence.controls.up_to(sequence.prefix)
    assert first.at.tolist() == [sequence.prefix - 1]
    assert first.strengths.shape == (len(KINDS), 1)
