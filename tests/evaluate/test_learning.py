"""The curves of a run are drawn from its metrics, and a run without any says so."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vpoet.errors import DataError
from vpoet.evaluate.learning import draw_learning


def test_curves_are_those_of_losses_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"step": step, "train/loss": 5 / step, "speed/mfu": 0.3} | ({"heldout/bits": 4.0} if step == 2 else {})
        for step in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn = {}
    monkeypatch.setattr("vpoet.evaluate.learning.curves", lambda series, path: drawn.update(series))
    assert draw_learning(tmp_path / "metrics.jsonl", tmp_path / "x.png") == 3
    assert drawn == {"train/loss": ([1.0, 2.0, 3.0], [5.0, 2.5, 5 / 3]), "heldout/bits": ([2.0], [4.0])}
    monkeypatch.undo()
    draw_learning(tmp_path / "metrics.jsonl", tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > picture.height > 100


def test_a_run_without_curves_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metrics\.jsonl: not readable"):
        draw_learning(tmp_path / "metrics.jsonl", tmp_path / "x.png")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "speed/mfu": 0.1}\n')
    with pytest.raises(DataError, match="no curves yet"):
        draw_learning(tmp_path / "metrics.jsonl", tmp_path / "x.png")
