"""Turns: whose vector is taken and whose points are seen, by a slow loop; what they keep of the promises."""

import numpy as np
import pytest
import torch

from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.turns import Turns
from vpoet.tokenizer.video import VideoTokenizer


@pytest.mark.parametrize("turns", [2, 4])
def test_both_directions_equal_a_loop(turns: int) -> None:
    """Seven cells of vectors of 3 numbers: B = 2, h = 2, w = 1."""
    vectors = torch.randn(2, 7, 2, 1, turns * 3)
    chosen = Turns(turns).choose(vectors)
    slots = torch.zeros(2, 2, 1, turns, 3)
    recalled = Turns(turns).recall(chosen)
    for cell in range(7):
        turn = cell % turns
        assert torch.equal(chosen[:, cell], vectors[:, cell].unflatten(-1, (turns, 3))[..., turn, :])
        slots[..., turn, :] = chosen[:, cell]
        assert torch.equal(recalled[:, cell, ..., : 3 * turns], slots.flatten(-2))
        whose = torch.eye(turns)[turn].expand(2, 2, 1, turns)
        assert torch.equal(recalled[:, cell, ..., 3 * turns :], whose)


def test_one_turn_changes_nothing() -> None:
    x = torch.randn(1, 3, 2, 2, 5)
    assert Turns(1).choose(x) is x
    assert Turns(1).recall(x) is x
    assert Turns(1).width(5) == 5


@pytest.mark.parametrize("sizes", [(1, 1, 5), (3, 4), (2, 2, 2, 1)])
def test_chunks_take_the_turns_of_the_whole(sizes: tuple[int, ...]) -> None:
    turns = Turns(3)
    vectors = torch.randn(1, 7, 1, 2, 6)
    past: Past = {}
    chosen = [turns.choose(chunk, past) for chunk in vectors.split(sizes, 1)]
    assert torch.equal(torch.cat(chosen, 1), turns.choose(vectors))
    past = {}
    recalled = [turns.recall(chunk, past) for chunk in torch.cat(chosen, 1).split(sizes, 1)]
    assert torch.equal(torch.cat(recalled, 1), turns.recall(torch.cat(chosen, 1)))


def build(turns: int) -> Autoencoder:
    torch.manual_seed(0)
    config = AutoencoderConfig(
        turns=turns,
        widths=[8, 12, 16],
        encoder_blocks=[0, 1, 0],
        decoder_blocks=[1, 0, 1],
        quantiser=QuantiserConfig(levels=[8, 5, 5]),
    )
    model = Autoencoder(config)
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return model.eval()


def test_frames_are_drawn_from_no_later_code() -> None:
    model = build(4)
    points = torch.randn(1, 6, 2, 2, 3, requires_grad=True)
    drawn = model.draw(points)
    for frame in range(21):
        (gradient,) = torch.autograd.grad(drawn[:, :, frame].square().sum(), points, retain_graph=True)
        reach = gradient.abs().amax((0, 2, 3, 4))
        newest = -(-frame // 4)
        assert torch.count_nonzero(reach[newest + 1 :]) == 0
        assert (reach[max(0, newest - 3) : newest + 1] > 0).all()


@pytest.mark.parametrize("chunk_cells", [1, 2, 4])
def test_chunks_give_what_the_whole_gives_and_an_image_is_the_first_frame(chunk_cells: int) -> None:
    tokenizer = VideoTokenizer(build(3))
    frames = np.random.default_rng(0).integers(0, 256, (33, 16, 24, 3), dtype=np.uint8)
    codes = tokenizer.encode_batch(frames[None])[0]
    assert np.array_equal(tokenizer.encode(frames, chunk_cells), codes)
    assert np.abs(tokenizer.decode(codes, chunk_cells).astype(int) - tokenizer.decode_batch(codes[None])[0]).max() <= 1
    assert np.array_equal(tokenizer.encode(frames[:1]), codes[:1])


def test_a_still_scene_gets_other_codes_in_turn_and_then_the_same_again() -> None:
    tokenizer = VideoTokenizer(build(2))
    frame = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    codes = tokenizer.encode(frame.repeat(33, 0))
    assert not np.array_equal(codes[4], codes[5])
    assert np.array_equal(codes[4], codes[6])
    assert np.array_equal(codes[5], codes[7])


def test_there_is_one_turn_at_least() -> None:
    with pytest.raises(ConfigError, match="turns is 0"):
        AutoencoderConfig(turns=0)
