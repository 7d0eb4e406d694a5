"""Figures hold what they are given, in one look."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vpoet.errors import ShapeError
from vpoet.evaluate.codecs import RatePoint, TokenizerPoint
from vpoet.evaluate.plots import POINTS, Panel, panels_figure, quantisers_figure, rates_figure, save, surprise_figure
from vpoet.generate.likelihood import Likelihood


def test_curves_are_drawn_with_gaps(tmp_path):
    path = tmp_path / "folder" / "curves.png"
    loss, bits = (range(4), [4.0, float("nan"), 2.0, 1.0]), ([1], [2.0])
    save(panels_figure([Panel("loss", {"": loss}), Panel("bits", {"": bits})]), path)
    with Image.open(path) as image:
        assert image.width > image.height
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    with pytest.raises(ShapeError, match="no curves"):
        panels_figure([])


def test_a_long_curve_is_drawn_as_means_within_their_range(tmp_path, monkeypatch):
    """A thousand steps of a wave of one step: the mean is flat, and the shade reaches from trough to crest."""
    drawn = {}
    monkeypatch.setattr("matplotlib.axes.Axes.fill_between", lambda _, *data, **__: drawn.update(shade=data))
    values = np.where(np.arange(3000) % 2, 1.0, 3.0)
    values[:10] = np.nan  # a whole stretch without a value
    save(panels_figure([Panel("loss", {"training": (range(3000), values)}, "log")]), tmp_path / "a.svg")
    steps, least, most = drawn["shade"]
    assert len(steps) == POINTS - 1
    assert set(least) == {1.0}
    assert set(most) == {3.0}
    assert (tmp_path / "a.svg").stat().st_size < 60_000


def test_percents_and_single_values_are_drawn(tmp_path):
    some = Panel("shares", {"waiting": ([5], [0.02]), "padding": ([5, 6], [0.1, float("inf")])}, "percent")
    save(panels_figure([some, Panel("empty", {"": ([1], [float("nan")])}, "log")]), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height


def test_quantisers_are_drawn_with_and_without_intervals(tmp_path):
    line = {"variant": "fsq", "held_out_codes": 1000, "use_interval": math.nan, "psnr_interval": 0.1}
    lines = [line | {"codes": codes, "use": 0.5, "psnr": 20.0} for codes in (4375, 240)]
    save(quantisers_figure(lines), tmp_path / "new" / "picture.png")
    shown = np.asarray(Image.open(tmp_path / "new" / "picture.png"))
    assert len(np.unique(shown.reshape(-1, shown.shape[-1]), axis=0)) > 20
    save(quantisers_figure([]), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").is_file()


def test_the_plot_shows_curves_and_tokenizers(tmp_path: Path) -> None:
    points = [RatePoint(20, 0.4, 40.0, 0.9), RatePoint(40, 0.1, 30.0, 0.7)]
    out = tmp_path / "new" / "rates.svg"
    save(rates_figure({"H.264 medium": points}, {"runs/a": TokenizerPoint(0.07, 0.05, 0.02, 25.0)}, "8 clips"), out)
    drawn = out.read_text()
    for text in ("H.264 medium", "runs/a", "runs/a, entropy-coded", "runs/a, by a model", "8 clips"):
        assert f"<!-- {text} -->" in drawn


def test_a_step_for_each_cell_in_time_over_its_frames(tmp_path):
    cells = np.arange(12, dtype=np.float64).reshape(3, 2, 2) * math.log(2)
    given = np.where(np.arange(3)[:, None, None] < 1, np.nan, cells)
    scores = [
        ("robot.mp4  $x_1$ costs 5$", Likelihood("t2v", cells, (4, 8, 8))),
        ("", Likelihood("i2v", given[:2], (4, 8, 8))),
    ]
    figure = surprise_figure(scores)
    (axes,) = figure.axes
    first, second = (step.get_data() for step in axes.patches)
    np.testing.assert_allclose(first.values, [1.5, 5.5, 9.5])
    assert first.edges.tolist() == [0, 1, 5, 9]
    np.testing.assert_allclose(second.values, [np.nan, 5.5])
    assert second.edges.tolist() == [0, 1, 5]
    assert axes.get_xlim() == (0, 9)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["robot.mp4  $x_1$ costs 5$", ""]
    figure.savefig(tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_a_picture_of_no_scores_is_refused():
    with pytest.raises(ShapeError, match="no scores to draw"):
        surprise_figure([])
