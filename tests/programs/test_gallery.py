"""`vpoet gallery`: a row a control, an edit and a painting, on one page; and the words that a model has to know."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.errors import ConfigError
from vpoet.evaluate.controls import OTHERWISE, clips
from vpoet.evaluate.gallery import rows
from vpoet.generate.model import load
from vpoet.sequence.tasks import PAINTED

Program = Callable[..., tuple[int, str, str]]
SIZES = {"frames": 5, "height": 32, "width": 32, "length": 400}


def test_all_that_a_bundle_can_is_on_the_page(
    tmp_path: Path, make_bundle: Callable[..., Path], program: Program
) -> None:
    bundle, out = make_bundle(tmp_path / "model", depth=1, controls="edges depth", **SIZES), tmp_path / "gallery"
    status, _, err = program("sample/gallery.py", "--model", bundle, "--count", 1, "--out", out)
    assert status == 0, err
    page = (out / "gallery.html").read_text()
    made = rows(load(bundle, "cpu"), 1)
    assert [row.name for row in made if row.section == "Controls"] == ["depth", "edges"]
    assert len(made) == 2 + len(OTHERWISE) + len(PAINTED)
    assert page.count("<video") == sum(len(row.given) + len(row.requests) for row in made)
    assert all(f">{request.prompt}<" in page for row in made for request in row.requests)
    assert (out / "sheet.png").stat().st_size > 1000


def test_what_is_shown_of_a_painting_is_what_is_given(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    painter = load(make_bundle(tmp_path / "model", depth=1, **SIZES), "cpu")
    for row in rows(painter, 2):
        if row.section == "In- and outpainting":
            whole, shown = (frames for _, frames in row.given)
            white = (shown == 255).all(-1)
            assert 0 < white.mean() < 1
            assert np.array_equal(whole[~white], shown[~white])


def test_a_model_of_other_words_is_told_and_not_searched_for_ever(
    tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    stranger = load(make_bundle(tmp_path / "model", depth=1, words=["a", "red", "ball"], **SIZES), "cpu")
    with pytest.raises(ConfigError, match="does not know the words"):
        next(clips(stranger, [], 1))
