"""Frames that are drawn while tokens come are the clip's own, and are drawn once, where the machine allows it."""

import numpy as np
import pytest
import torch

from vpoet.generate import view
from vpoet.generate.batching import OneByOne
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.model import Request, load
from vpoet.generate.view import same_by_cells
from vpoet.tokenizer.layers import SpaceConv
from vpoet.tokenizer.video import VideoTokenizer


@torch.no_grad()
@pytest.mark.parametrize(("channels", "side"), [(8, 8), (64, 16), (128, 8)])
def test_a_frame_is_convolved_the_same_alone_and_beside_others(channels: int, side: int) -> None:
    torch.manual_seed(0)
    layer, x = SpaceConv(channels, channels), torch.randn(1, 5, side, side, channels)
    together = layer(x)
    for i in range(5):
        assert torch.equal(layer(x[:, i : i + 1]), together[:, i : i + 1])
    with torch.enable_grad():  # as training does it, which needs gradients
        torch.testing.assert_close(layer(x[:, :1]), together[:, :1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("same", [True, False])
def test_a_clip_is_drawn_once_where_cells_give_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    model, drawn = load(device="cpu"), list[tuple[int, ...]]()
    if same and not same_by_cells(model.bundle.video, (2, 8, 8), torch.get_num_threads()):
        pytest.skip("kernels of this machine add in another order for fewer cells")
    monkeypatch.setattr(view, "same_by_cells", lambda *_: same)
    inner = VideoTokenizer._decode

    def counted(self: VideoTokenizer, codes: np.ndarray, *rest: object, **named: object) -> np.ndarray:
        drawn.append(codes.shape)
        frames: np.ndarray = inner(self, codes, *rest, **named)  # type: ignore[arg-type]
        return frames

    monkeypatch.setattr(VideoTokenizer, "_decode", counted)
    turns, request = OneByOne(), Request(prompt="a robot walks right on grass", frames=5, seed=1)
    turns.join(Growing(model, request, model.sampling()))
    found = []
    while len(turns):
        found += [part for _, part in turns.step()]
    (filled,) = [part for part in found if isinstance(part, Filled)]
    assert drawn == [(1, 1, 8, 8)] * 2 + [(1, 2, 8, 8)] * (not same)
    assert np.array_equal(filled.frames, model.sample_batch([request], model.sampling())[0].frames)
    if same:
        shown = np.concatenate([part.frames for part in found if isinstance(part, Seen)])
        assert np.array_equal(shown, filled.frames)


def test_a_grid_whose_sums_depend_on_how_many_cells_there_are_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load(device="cpu").bundle.video
    inner = SpaceConv.forward
    monkeypatch.setattr(SpaceConv, "forward", lambda self, x: inner(self, x) * (1 + 1e-6 * (x.shape[1] > 4)))
    assert not same_by_cells.__wrapped__(tokenizer, (5, 8, 8), 1)
