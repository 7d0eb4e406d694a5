"""The exported programs give the tokenizer's codes and pixels, of sizes that they were not traced with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.imported.cosmos import Cosmos, CosmosConfig
from vpoet.tokenizer.network import Network
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer

NETWORKS: dict[str, Callable[[], Network]] = {
    "ours": lambda: Autoencoder(
        AutoencoderConfig(
            widths=[8, 8, 8],
            encoder_blocks=[0, 0, 1],
            decoder_blocks=[0, 0, 1],
            quantiser=QuantiserConfig(levels=[4, 3, 3]),
        )
    ),
    "cosmos": lambda: Cosmos(
        CosmosConfig(time_stride=4, space_stride=8, patch=2, channels=4, widths=[8, 8, 8], blocks=1, latent=4)
    ),
}


@pytest.mark.parametrize("kind", ["ours", pytest.param("cosmos", marks=pytest.mark.slow)])
def test_codes_and_pixels_are_the_tokenizers(kind: str, tmp_path: Path, program: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    network = NETWORKS[kind]()
    for name, parameter in network.named_parameters():  # so that different frames have different codes
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1)
    tokenizer = VideoTokenizer(network)
    tokenizer.save(tmp_path / "t")
    status, _, err = program(
        "tokenizers/export_tokenizer.py", "--tokenizer", tmp_path / "t", "--out", tmp_path / "out", "--json"
    )
    assert status == 0, err
    about = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert (about["hash"], about["stride"]) == (tokenizer.hash, [4, 8, 8])
    programs = [torch.export.load(tmp_path / "out" / f"{name}.pt2") for name in ("encoder", "decoder")]
    kept = [sum(weight.numel() for weight in each.parameters()) for each in programs]
    assert sum(kept) < 1.2 * sum(weight.numel() for weight in network.parameters())  # not each of them whole
    encode, decode = (each.module() for each in programs)
    random = np.random.default_rng(0)
    for frames, height, width in ((5, 16, 16), (13, 24, 40)):
        clip = random.integers(0, 256, (1, frames, height, width, 3), np.uint8)
        codes = encode(torch.from_numpy(clip))
        assert codes.dtype == torch.int32
        assert np.array_equal(codes.numpy(), tokenizer.encode_batch(clip))
        assert len(np.unique(codes)) > 3
        pixels = decode(codes)
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels.numpy(), tokenizer.decode_batch(codes.numpy()))
