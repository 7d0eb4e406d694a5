"""The picture of surprise holds the figures of the scores, at the frames that they are about."""

import math

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.evaluate.surprise import surprise_figure
from vpoet.generate.likelihood import Likelihood


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
