"""The video tokenizer on a card: training steps, and the speed of encoding."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining


def network(card: Any) -> AutoencoderConfig:
    if card.real:
        return AutoencoderConfig(size="base")
    return AutoencoderConfig(widths=[8, 8, 8], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1])


def test_training_steps(card: Any, tmp_path: Path) -> None:
    """Losses of the first steps in fp32 on the card and on the CPU; then clips a second in the recipe's bf16."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 32, 32, 3), np.uint8)
    losses = []
    for device in ("cpu", card.device.type):
        small = AutoencoderConfig(widths=[8, 8, 8], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1])
        torch.manual_seed(0)
        recipe = VideoTokenizerRecipe(
            run=str(tmp_path / device), data=["-"], model=small, steps=3, batch=2, frames=5, height=32, width=32,
            dtype="fp32", device=device,
        )  # fmt: skip
        training = TokenizerTraining(recipe)
        losses.append([float(training.update(frames)["loss"]) for _ in range(3)])
    apart = float(np.abs(np.subtract(*losses)).max())
    card.row(
        "losses of the tokenizer's first steps in fp32, card against CPU", f"{apart:.1e}", "at most 1e-3", apart <= 1e-3
    )
    size, batch = card.pick((64, 8), (16, 2))
    recipe = VideoTokenizerRecipe(
        run=str(tmp_path / "speed"), data=["-"], model=network(card), steps=10, batch=batch, frames=card.pick(17, 5),
        height=size, width=size, device=card.device.type,
    )  # fmt: skip
    training = TokenizerTraining(recipe)
    frames = np.random.default_rng(0).integers(0, 256, (batch, recipe.frames, size, size, 3), np.uint8)
    training.update(frames)
    rate = batch / card.seconds(lambda: training.update(frames))
    card.measured("training of the base tokenizer, clips of 17x64x64", rate, "clips/s", 40)


def test_encoding(card: Any) -> None:
    """The base tokenizer in tf32."""
    torch.manual_seed(0)
    coder = VideoTokenizer(Autoencoder(network(card)).eval()).to(card.device, card.pick("tf32", "fp32"))
    count, frames, size = card.pick((64, 17, 64), (2, 5, 16))
    clips = np.random.default_rng(0).integers(0, 256, (count, frames, size, size, 3), np.uint8)
    coder.encode_batch(clips)
    rate = count / card.seconds(lambda: coder.encode_batch(clips))
    card.measured("encoding by the base tokenizer, clips of 17x64x64", rate, "clips/s", 600)
