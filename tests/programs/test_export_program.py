"""`train/export.py` on bundles of random weights: another decoder takes the place of a bundle's."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.generate.model import load
from vpoet.generate.request import Request
from vpoet.tokenizer.autoencoder import Autoencoder
from vpoet.tokenizer.video import VideoTokenizer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("export"), depth=1, length=120, frames=5, height=16, width=24)


def test_a_decoder_of_larger_pictures_takes_the_place_of_a_bundles(
    base: Path, tmp_path: Path, program: Callable[..., Any]
) -> None:
    """The same codes, drawn larger; and codes that mean something else are refused."""
    small = load(base, device="cpu")
    own = small.bundle.video
    assert isinstance(own, VideoTokenizer)
    network = Autoencoder(replace(own.model.config, upscale=2))
    assert isinstance(own.model, Autoencoder)
    network.begin_with(own.model)
    VideoTokenizer(network, own.codes).save(tmp_path / "larger")
    status, _, told = program("train/export.py", base, "--video", tmp_path / "larger", "--out", tmp_path / "large")
    assert status == 0, told
    large = load(tmp_path / "large", device="cpu")
    assert (large.bundle.config.height, large.bundle.config.width) == (32, 48)
    request = Request(prompt="a robot walks", seed=3)
    a, b = (model.decode([model.document(request)], [3])[0].document for model in (small, large))
    assert np.array_equal(a.codes(), b.codes())
    video = large.render(b)
    assert video.frames.shape == (5, 32, 48, 3)
    assert np.abs(video.frames[:, ::2, ::2].astype(int) - small.render(a).frames).max() <= 1
    assert "of the same codes" in (tmp_path / "large" / "card.md").read_text()

    VideoTokenizer(network).save(tmp_path / "other")
    status, _, told = program("train/export.py", base, "--video", tmp_path / "other", "--out", tmp_path / "no")
    assert (status, "train its decoder alone" in " ".join(told.split())) == (2, True)
    assert not (tmp_path / "no").exists()
