"""Tokenizers beside each other and beside codecs: the same clips for all, and what is told of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vpoet.data.shards import Problems, Sample
from vpoet.evaluate.codecs import Codec, RateDistortion
from vpoet.evaluate.comparison import Comparison, absolute_error, in_words, peers
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.media.video import Video
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer


def coder(*widths: int) -> VideoTokenizer:
    """Untrained, of 125 codes."""
    torch.manual_seed(0)
    blocks = [0] * len(widths)
    sizes = {"widths": list(widths), "encoder_blocks": blocks, "decoder_blocks": blocks}
    return VideoTokenizer(Autoencoder(AutoencoderConfig(**sizes, quantiser=QuantiserConfig(levels=[5, 5, 5]))))


def clip(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def test_a_clip_that_one_tokenizer_cannot_take_is_left_out_for_all() -> None:
    problems = Problems()
    scored = [ReconstructionScores(coder(8, 8, 8)), ReconstructionScores(coder(8, 8, 8), pad=True)]
    comparison = Comparison(scored, [], problems)
    for name, frames in (("a", clip(0, 5, 16, 16)), ("odd", clip(1, 6, 16, 16)), ("b", clip(2, 9, 16, 24))):
        comparison.add(Sample(name, {}, {}), Video(frames, 8))
    assert comparison.names == ["a", "b"]
    assert [len(scores.scores) for scores in scored] == [2, 2]
    assert problems.total == 1
    assert [label for label, _ in comparison.rows][::3] == ["a", "b"]
    assert comparison.title == "2 clips of 5x16x16, 8 fps; 9x16x24, 8 fps"
    protocol = comparison.protocol([Path("raw")])
    assert (protocol["data"], protocol["clips"], protocol["frames"]) == (["raw"], 2, [5, 9])
    assert (protocol["height"], protocol["width"], protocol["fps"]) == ([16], [16, 24], [8])
    first, second = comparison.results()
    assert [each["clip"] for each in first["per_clip"]] == ["a", "b"]
    assert first["psnr"] == second["psnr"]
    line, changes = in_words(Path("x"), first, 2)
    assert line.startswith(f"x: 2 clips of 2 sources: PSNR {first['psnr']:.2f} ± ")
    assert changes == f"  {first['codes_changed_a_step']:.2f} of 5.2 codes change a step"  # noise: no pixel holds still


def test_errors_are_four_times_as_bright_and_do_not_wrap_around() -> None:
    a, b = np.zeros((1, 1, 4, 3), np.uint8), np.zeros((1, 1, 4, 3), np.uint8)
    a[0, 0, :, 0], b[0, 0, :, 0] = [10, 0, 255, 64], [0, 10, 0, 0]
    assert absolute_error(a, b)[0, 0, :, 0].tolist() == [40, 40, 255, 255]
    assert absolute_error(a, b)[..., 1:].max() == 0


def test_peers_have_scores_only_at_rates_that_were_measured() -> None:
    curve = RateDistortion(Codec("H.264", "ultrafast"), crfs=(20, 40))
    curve.add(clip(0, 3, 32, 32), 8.0)
    high, low = curve.points
    found = peers([curve], low.bits_per_pixel)
    assert found == {"H.264 ultrafast": {"psnr": pytest.approx(low.psnr), "ssim": pytest.approx(low.ssim)}}
    assert peers([curve], 2 * high.bits_per_pixel) == {"H.264 ultrafast": None}
