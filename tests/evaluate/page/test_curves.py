"""The curves of a run are drawn from its metrics, and a run without any says so."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vpoet.errors import DataError
from vpoet.evaluate.page.curves import draw_learning, learning_panels, speed_panels
from vpoet.evaluate.plots import Panel


def test_curves_are_those_of_losses_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"step": step, "train/loss": 5 / step, "speed/mfu": 0.3} | ({"heldout/bits": 4.0} if step == 2 else {})
        for step in (1, 2, 3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    drawn: list[Panel] = []
    monkeypatch.setattr("vpoet.evaluate.page.curves.panels_figure", drawn.extend)
    monkeypatch.setattr("vpoet.evaluate.page.curves.save", lambda figure, path: None)
    assert draw_learning(tmp_path / "metrics.jsonl", tmp_path / "x.png") == 3
    assert drawn == [
        Panel("heldout/bits", {"": ([2.0], [4.0])}),
        Panel("train/loss", {"": ([1.0, 2.0, 3.0], [5.0, 2.5, 5 / 3])}),
    ]
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


def test_panels_put_training_and_held_out_together_and_kinds_apart() -> None:
    rows = [
        {
            "step": 1,
            "time": 1.0,
            "train/loss": 8.0,
            "train/bits": 11.5,
            "train/video_nats": 8.0,
            "train/video_bits": 11.5,
        },
        {"step": 2, "train/loss": 2.0, "train/bits": 2.9, "train/grad_norm": None, "train/skipped": 1.0},
        {"step": 3, "heldout/loss": 2.5, "heldout/bits": 3.6, "heldout/image_bits": 3.6, "train/grad_norm": 0.5},
        {"step": 3, "speed/mfu": 0.4, "speed/padding": 0.1, "speed/data_wait": 0.0, "speed/tokens_per_second": 9.0},
    ]
    shown = {panel.title: (panel.scale, panel.curves) for panel in learning_panels(rows)}
    assert shown == {
        "loss, nats per token": ("log", {"training": ([1.0, 2.0], [8.0, 2.0]), "held out": ([3.0], [2.5])}),
        "bits per token by kind, training": ("plain", {"video": ([1.0], [11.5])}),
        "bits per token by kind, held out": ("plain", {"image": ([3.0], [3.6])}),
        "gradient norm, before clipping": ("plain", {"": ([3.0], [0.5])}),
        "steps left out so far": ("plain", {"": ([2.0], [1.0])}),
    }
    speeds = {panel.title: list(panel.curves) for panel in speed_panels(rows)}
    assert speeds == {
        "tokens per second": [""],
        "MFU": [""],
        "time spent waiting, tokens spent on padding": ["waiting for data", "padding"],
    }


def test_panels_of_a_tokenizers_run_are_its_own_scores() -> None:
    rows = [{"step": 1, "train/loss": 1.0, "train/l1": 0.0, "heldout/psnr": 20.0, "speed/clips_per_second": 3.0}]
    assert {panel.title: list(panel.curves) for panel in [*learning_panels(rows), *speed_panels(rows)]} == {
        "loss": ["training"],
        "l1": ["training"],
        "psnr": ["held out"],
        "clips per second": [""],
    }
