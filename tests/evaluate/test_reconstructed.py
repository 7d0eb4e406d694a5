"""Reconstructions beside originals as sets: equal to a comparison of the same clips in files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.data.shards import Problems, Sample
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.evaluate.compare.report import of_sets
from vpoet.evaluate.comparison import Comparison, in_words
from vpoet.evaluate.reconstructed import TIMES, ReconstructionDistances
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.media.video import Video
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer


class Means:
    name, sha256, input = "means", "0" * 64, "mean of each channel"

    def __call__(self, clips: Tensor) -> Tensor:
        return clips.double().mean((1, 2, 3))


def clips(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256 - i, (5, 16, 16, 3), np.uint8) for i in range(count)]


def test_a_tokenizer_that_changes_nothing_is_at_no_distance_and_another_is_at_its_own() -> None:
    rules = Protocol(frames=4, fit="none", size=0)
    distances = ReconstructionDistances(rules, Means(), 2)
    originals = clips(11)
    for frames in originals:
        distances.check(Video(frames, 8.0))
        distances.add(Video(frames, 8.0), [frames, frames // 2])
    same, dull = distances.results()
    assert same[0].value == pytest.approx(0, abs=1e-6)
    assert dull[0].value > 1000
    means, halves = (
        np.stack([x[:4].mean((0, 1, 2)) for x in made]) for made in (originals, [x // 2 for x in originals])
    )
    told = distances.told()
    order = np.random.default_rng(0).permutation(11)
    whole = Protocol(**{name: value for name, value in told.items() if name not in ("id", "colour")})
    assert told["count"] == 11
    assert dull == of_sets(whole, means[order], halves[order], TIMES)[0]
    assert {row.protocol for row in dull} == {told["id"]}


def test_what_cannot_be_compared_is_refused() -> None:
    rules = Protocol(frames=4, fit="none", size=0, count=9)
    with pytest.raises(ConfigError, match="real_start=first"):
        ReconstructionDistances(Protocol(real_start="random"), Means(), 1)
    distances = ReconstructionDistances(rules, Means(), 1)
    with pytest.raises(DataError, match="3 frames, and the protocol takes 4"):
        distances.check(Video(np.zeros((3, 16, 16, 3), np.uint8), 8.0))
    with pytest.raises(DataError, match="8 clips to score, and the --protocol takes 9"):
        distances.expect(8)
    for frames in clips(8):
        distances.add(Video(frames, 8.0), [frames])
    with pytest.raises(DataError, match="8 clips to score"):
        distances.results()


def test_clips_that_are_too_short_for_the_protocol_are_left_out_of_all_scores() -> None:
    torch.manual_seed(0)
    sizes = AutoencoderConfig(
        widths=[8, 8, 8], encoder_blocks=[0] * 3, decoder_blocks=[0] * 3, quantiser=QuantiserConfig(levels=[5, 5, 5])
    )
    scored, problems = ReconstructionScores(VideoTokenizer(Autoencoder(sizes))), Problems()
    distances = ReconstructionDistances(Protocol(frames=4, fit="none", size=0), Means(), 1)
    comparison = Comparison([scored], [], problems, distances)
    for i, frames in enumerate(clips(9)):
        comparison.add(Sample(f"c{i}", {}, {}), Video(frames if i else frames[:1], 8.0))
    assert comparison.names == [f"c{i}" for i in range(1, 9)]
    assert problems.counts == {"1 frames, and the protocol takes 4": 1}
    (values,) = comparison.results()
    assert values["compared"][0]["clips"] == "8 + 8"
    told = comparison.protocol([Path("raw")])["compared"]
    assert any(f"protocol {told['id']}" in line for line in in_words(Path("x"), values, 8))
