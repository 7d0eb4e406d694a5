"""Frames handed out while the clip is made: those of the finished clip, cell by cell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vpoet
from vpoet.errors import PromptError
from vpoet.generate import live as module
from vpoet.generate.live import live
from vpoet.generate.model import Model, Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video

CLIP = Video(np.random.default_rng(0).integers(0, 256, (9, 24, 32, 3), np.uint8), 8.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    return vpoet.load(make_bundle(tmp_path_factory.mktemp("live"), length=100, frames=9, height=24, width=32), "cpu")


@pytest.mark.parametrize(
    ("given", "pieces"),
    [
        ({}, [1, 4, 4]),
        ({"image": CLIP}, [1, 4, 4]),
        ({"video": CLIP, "given_frames": 5}, [5, 4]),
        ({"last": CLIP, "image": CLIP}, [1, 4, 4]),
        ({"frames": 1}, [1]),
    ],
)
def test_the_pieces_are_the_clip(model: Model, given: dict[str, Any], pieces: list[int]) -> None:
    request, sampling = Request(prompt="a robot", seed=3, **given), Sampling(guidance=1.5)
    found = list(live(model, request, sampling))
    assert [len(piece) for piece in found] == pieces
    (whole,) = model.sample_batch([request], sampling)
    assert int(np.abs(np.concatenate(found).astype(int) - whole.frames).max()) <= 1


def test_a_piece_comes_before_the_next_cell_is_decoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, tokens = [], module.stream

    def counted(*args: Any, **settings: Any) -> Any:
        for token in tokens(*args, **settings):
            drawn.append(token)
            yield token

    monkeypatch.setattr(module, "stream", counted)
    done = [len(drawn) for _ in live(model, Request(prompt="a robot"))]
    assert done == [12, 24, 36]  # 3x4 codes a cell


def test_a_small_model_decodes_in_one_thread_and_leaves_the_others_to_the_watcher(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, tokens, before = [], module.stream, torch.get_num_threads()

    def counted(*args: Any, **settings: Any) -> Any:
        for token in tokens(*args, **settings):
            drawn.append(torch.get_num_threads())
            yield token

    monkeypatch.setattr(module, "stream", counted)
    torch.set_num_threads(2)
    try:
        watched = [torch.get_num_threads() for _ in live(model, Request(prompt="a robot"))]
    finally:
        torch.set_num_threads(before)
    assert set(drawn) == {1}
    assert watched == [2, 2, 2]


def test_what_is_not_made_in_order_cannot_be_watched(model: Model) -> None:
    mask = Video(np.zeros((1, 24, 32, 3), np.uint8), 0.0)
    mask.frames[:, :8] = 255
    with pytest.raises(PromptError, match="inpainting: only a clip that is made cell after cell"):
        list(live(model, Request(prompt="a robot", video=CLIP, mask=mask)))
