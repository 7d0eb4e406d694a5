"""The state between codes: causal, the same in chunks, bounded, and worth it: a still scene gets better with time."""

import numpy as np
import pytest
import torch

from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.fsq import FSQ, LEVELS
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.memory import Memory
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer


def config(memory: int, **changes: object) -> AutoencoderConfig:
    settings = {"widths": [16, 24, 32], "encoder_blocks": [0, 1, 1], "decoder_blocks": [1, 0, 1]}
    return AutoencoderConfig(memory=memory, quantiser=QuantiserConfig(levels=[8, 5, 5]), **(settings | changes))


def build() -> Autoencoder:
    torch.manual_seed(0)
    model = Autoencoder(config(memory=12))
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    return model.eval()


def clip(frames: int) -> torch.Tensor:
    return torch.rand(1, 3, frames, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_codes_are_causal_by_gradient_and_depend_on_all_that_came_before() -> None:
    model = build()
    video = clip(9).requires_grad_()
    points = model.quantise(video).points
    for cell in range(3):
        (gradient,) = torch.autograd.grad(points[:, cell].sum(), video, retain_graph=True)
        reach = gradient.abs().amax((0, 1, 3, 4))
        assert torch.count_nonzero(reach[4 * cell + 1 :]) == 0
        assert (reach[: 4 * cell + 1] > 0).all()


def test_frames_are_drawn_from_all_codes_up_to_theirs() -> None:
    model = build()
    points = torch.randn(1, 3, 2, 2, 3, requires_grad=True)
    drawn = model.draw(points)
    for frame in range(9):
        (gradient,) = torch.autograd.grad(drawn[:, :, frame].square().sum(), points, retain_graph=True)
        reach = gradient.abs().amax((0, 2, 3, 4))
        newest = -(-frame // 4)
        assert torch.count_nonzero(reach[newest + 1 :]) == 0
        assert (reach[: newest + 1] > 0).all()


def test_the_encoders_state_is_the_decoders() -> None:
    """What the encoder believes was told is what the decoder makes of the codes: else its questions would be wrong."""
    model = build()
    past: Past = {}
    codes = model.encode(clip(9), past)
    memory = model.memory
    assert memory is not None
    states = memory.recall(model.quantiser.codes_to_points(codes))
    torch.testing.assert_close(past[memory], states[:, -1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk_cells", [1, 2, 4])
def test_chunks_give_what_the_whole_gives_and_an_image_is_the_first_frame(chunk_cells: int) -> None:
    tokenizer = VideoTokenizer(build())
    frames = np.random.default_rng(0).integers(0, 256, (33, 16, 24, 3), dtype=np.uint8)
    codes = tokenizer.encode_batch(frames[None])[0]
    assert np.array_equal(tokenizer.encode(frames, chunk_cells), codes)
    assert np.abs(tokenizer.decode(codes, chunk_cells).astype(int) - tokenizer.decode_batch(codes[None])[0]).max() <= 1
    assert np.array_equal(tokenizer.encode(frames[:1]), codes[:1])


def test_the_state_stays_bounded_over_a_long_film() -> None:
    model = build()
    past: Past = {}
    model.draw(torch.randn(1, 1, 1, 1, 3), past)
    for _ in range(20):
        model.draw(10 * torch.randn(1, 20, 1, 1, 3), past)
        assert past[model.memory].abs().max() <= 1  # type: ignore[index]


def test_what_does_not_change_is_refined_from_code_to_code() -> None:
    """Vectors of 12 random numbers that stay for five codes of 64,000: the error falls to a small part of the first."""
    torch.manual_seed(0)
    quantiser = FSQ(LEVELS[2**16])
    memory, read = Memory(12, 6, 48), torch.nn.Linear(48, 12)
    matrices = [p for p in memory.parameters() if p.ndim == 2]
    rest = [*(p for p in memory.parameters() if p.ndim < 2), *read.parameters()]
    optimizers = [
        torch.optim.Muon(matrices, lr=2e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.Adam(rest, lr=5e-3),
    ]
    for _ in range(250):
        vectors = torch.randn(128, 1, 1, 1, 12).expand(-1, 5, -1, -1, -1)
        drawn = read(memory.recall(memory.quantise(vectors, quantiser).points))
        errors = (drawn - vectors).square().mean((0, 2, 3, 4))
        errors.mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert errors[0] > 0.3
    assert errors[-1] < 0.5 * errors[0]


def test_a_memory_is_a_size() -> None:
    with pytest.raises(ConfigError, match="memory is -1"):
        config(memory=-1)
