"""A decoder that draws more pixels than the encoder sees: the same codes, and at first the same picture, larger."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vpoet.errors import ConfigError
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.pixels import to_float
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.recipe import TokenizerOptimizerConfig, VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining

SMALL = AutoencoderConfig(
    widths=[8, 8, 8], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1], quantiser=QuantiserConfig(levels=[4, 3, 3])
)
SMOOTH = np.random.default_rng(0).integers(0, 256, (1, 9, 4, 6, 3), np.uint8).repeat(8, axis=2).repeat(8, axis=3)


@pytest.fixture
def base() -> VideoTokenizer:
    torch.manual_seed(0)
    network = Autoencoder(SMALL)
    for name, parameter in network.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    return VideoTokenizer(network)


def larger(base: VideoTokenizer, upscale: int) -> Autoencoder:
    assert isinstance(base.model, Autoencoder)
    network = Autoencoder(replace(SMALL, upscale=upscale))
    network.begin_with(base.model)
    return network


@pytest.mark.parametrize("upscale", [2, 4])
def test_it_begins_with_the_codes_and_the_picture_of_the_smaller_one(base: VideoTokenizer, upscale: int) -> None:
    """The codes are those of means of its pixels, and a smaller picture each of whose pixels became a square has just
    those; the first picture is made of squares, too. An image and a clip in chunks, as ever."""
    tokenizer = VideoTokenizer(larger(base, upscale), base.codes)
    assert tokenizer.stride == (4, 8 * upscale, 8 * upscale)
    (frames,) = SMOOTH
    squares = frames.repeat(upscale, axis=1).repeat(upscale, axis=2)
    codes = tokenizer.encode(squares)
    assert np.array_equal(codes, base.encode(frames))
    assert np.array_equal(codes, tokenizer.encode(squares, chunk_cells=1))
    assert np.array_equal(codes[:1], tokenizer.encode(squares[:1]))
    drawn = base.decode(codes).repeat(upscale, axis=1).repeat(upscale, axis=2)
    assert int(np.abs(tokenizer.decode(codes).astype(int) - drawn).max()) <= 1
    assert (tokenizer.codes, base.codes) == (base.hash, base.hash)
    assert tokenizer.hash != base.hash


def test_a_config_without_it_has_the_hash_it_had(base: VideoTokenizer, tmp_path: Path) -> None:
    base.save(tmp_path)
    text = (tmp_path / "config.yaml").read_text()
    assert "upscale: 1\n" in text
    (tmp_path / "config.yaml").write_text(text.replace("upscale: 1\n", ""))
    assert VideoTokenizer.load(tmp_path).hash == base.hash


@pytest.mark.parametrize("changes", [{"upscale": 1}, {"upscale": 4, "widths": [8, 8, 16]}])
def test_it_begins_with_no_other_network(base: VideoTokenizer, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="another config"):
        Autoencoder(replace(SMALL, **changes)).begin_with(larger(base, 2))  # type: ignore[arg-type]


def test_an_upscale_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="upscale is 3; choose one of 1, 2, 4"):
        AutoencoderConfig(upscale=3)


def test_its_decoder_learns_and_its_codes_stay(base: VideoTokenizer, tmp_path: Path) -> None:
    """`train: decoder` from a tokenizer of smaller pictures: the loss falls, all but the decoder is as it was bit for
    bit, and token shards of the smaller one go with what is exported."""
    base.save(tmp_path / "base")
    recipe = VideoTokenizerRecipe(
        run=str(tmp_path / "run"), data=[], begin=str(tmp_path / "base"), train="decoder", steps=30, dtype="fp32",
        model=replace(SMALL, upscale=2), device="cpu", optimizer=TokenizerOptimizerConfig(warmup=1), ema=0.0,
    )  # fmt: skip
    training = TokenizerTraining(recipe)
    clips = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, None, None, :, None], 3, axis=-1)
    clips = np.broadcast_to(clips, (2, 5, 64, 64, 3)).copy()
    losses = [training.update(clips)["loss"] for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]
    made = training.exported()
    assert made.codes == base.hash
    assert torch.equal(made.model.encode(to_float(clips)), larger(base, 2).encode(to_float(clips)))
    recipe = replace(recipe, model=replace(SMALL, upscale=2, widths=[8, 8, 16]))
    with pytest.raises(ConfigError, match=r"begin: .* has another network \(model.upscale: 1, now 2; model.widths"):
        TokenizerTraining(recipe)
