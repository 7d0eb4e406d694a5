"""The scores of a tokenizer over clips, against each clip coded and scored by hand; padding; the bits that are told."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vpoet
from vpoet.errors import DataError, HashMismatch
from vpoet.evaluate import reconstruction
from vpoet.evaluate.intervals import clustered_interval, mean_interval
from vpoet.evaluate.pixels import flicker, psnr, ssim
from vpoet.evaluate.reconstruction import ReconstructionScores, StreamScores, clip_distance, reconstruct_stream
from vpoet.media.video import Video
from vpoet.nn.features import perceptual_distance
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer


@pytest.fixture(scope="module")
def coder() -> VideoTokenizer:
    """Untrained, of stride 4x8x8 and 125 codes."""
    torch.manual_seed(0)
    sizes = {"widths": [8, 12, 16], "encoder_blocks": [0, 1, 0], "decoder_blocks": [1, 0, 1]}
    return VideoTokenizer(Autoencoder(AutoencoderConfig(**sizes, quantiser=QuantiserConfig(levels=[5, 5, 5]))))


def clip(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def means(images: Tensor) -> list[Tensor]:
    return [images, nn.functional.avg_pool2d(images, 4)]


def test_scores_are_means_over_clips_of_what_each_gets_by_itself(coder: VideoTokenizer) -> None:
    clips = [clip(0, 5, 16, 16), clip(1, 9, 16, 24)]
    scores = ReconstructionScores(coder, features=means)
    drawn = [scores.add(frames, 8) for frames in clips]
    for frames, output in zip(clips, drawn, strict=True):
        assert np.array_equal(output, coder.decode(coder.encode(frames)))
    result = scores.result()
    pairs = list(zip(clips, drawn, strict=True))
    assert result["psnr"] == pytest.approx(np.mean([psnr(a, b) for a, b in pairs]))
    assert result["ssim"] == pytest.approx(np.mean([ssim(a, b) for a, b in pairs]))
    assert result["flicker"] == pytest.approx(np.mean([flicker(a, b) for a, b in pairs]))
    assert result["perceptual_distance"] == pytest.approx(
        np.mean([clip_distance(means, b, a, "cpu") for a, b in pairs])
    )


def test_intervals_are_over_sources_and_not_over_clips(coder: VideoTokenizer) -> None:
    one, other = ReconstructionScores(coder), ReconstructionScores(coder)
    for seed in range(3):
        one.add(clip(seed, 5, 16, 16), 8, {"source": "a film"})
        one.add(clip(seed, 5, 16, 16), 8, {"source": "a film"})
        other.add(clip(seed, 5, 16, 16), 8)
    assert (one.result()["sources"], one.result()["psnr_interval"]) == (1, None)
    one.add(clip(3, 5, 16, 16), 8, {"source": "another"})
    dB = [value for value, _ in one.scores]
    assert one.result()["psnr_interval"] == pytest.approx(
        clustered_interval(dB, ["a film"] * 6 + ["another"])[1], rel=1e-12
    )
    assert other.result()["sources"] == 3
    assert other.result()["psnr_interval"] == pytest.approx(mean_interval([value for value, _ in other.scores])[1])


def test_bits_as_codes_come_and_after_entropy_coding(coder: VideoTokenizer) -> None:
    clips = [clip(0, 5, 16, 16), clip(1, 9, 16, 24)]
    scores = ReconstructionScores(coder)
    for frames in clips:
        scores.add(frames, 8)
    codes = np.concatenate([coder.encode(frames).ravel() for frames in clips])
    pixels = 5 * 16 * 16 + 9 * 16 * 24
    assert len(codes) == 2 * 2 * 2 + 3 * 2 * 3
    assert scores.bits_per_pixel == pytest.approx(26 * math.log2(125) / pixels)
    counts = np.unique(codes, return_counts=True)[1]
    ideal = -sum(count * math.log2(count / 26) for count in counts)
    assert scores.entropy_coded_bits_per_pixel == pytest.approx(ideal / pixels)
    result = scores.result()
    assert result["bits_per_pixel"] == scores.bits_per_pixel
    assert result["bits_per_pixel_entropy_coded"] == scores.entropy_coded_bits_per_pixel < scores.bits_per_pixel
    assert "perceptual_distance" not in result


def test_the_bits_by_a_model_are_those_of_its_probabilities(
    tmp_path: Path, make_bundle: Callable[..., Path], coder: VideoTokenizer
) -> None:
    folder = make_bundle(tmp_path / "bundle", frames=5, height=16, width=16)
    model = vpoet.load(folder)
    theirs = VideoTokenizer.load(folder / "video_tokenizer")
    clips = [clip(0, 5, 16, 16), clip(1, 5, 16, 16)]
    scores = ReconstructionScores(theirs, model=model)
    for frames in clips:
        scores.add(frames, 8)
    expected = sum(model.score(Video(frames, 8)).total.bits for frames in clips)
    assert scores.result()["bits_per_pixel_by_model"] == pytest.approx(expected / (2 * 5 * 16 * 16))
    assert scores.result()["model_bits"] == pytest.approx(expected / (2 * 2 * 2 * 2))
    assert scores.point.by_model == scores.result()["bits_per_pixel_by_model"]

    for logits in model.bundle.transformer.visual.logits_of:
        nn.init.zeros_(logits.weight)  # all codes alike
    scores = ReconstructionScores(theirs, model=model)
    scores.add(clips[0], 8)
    assert scores.model_bits_per_pixel == pytest.approx(scores.bits_per_pixel)

    with pytest.raises(HashMismatch, match=theirs.codes):
        ReconstructionScores(coder, model=model)


def test_clips_off_the_grid_are_refused_or_padded_and_scored_cropped(coder: VideoTokenizer) -> None:
    frames = clip(0, 6, 17, 15)
    with pytest.raises(DataError, match="do not fit"):
        ReconstructionScores(coder).check(frames, 8)
    scores = ReconstructionScores(coder, pad=True)
    scores.check(frames, 8)
    drawn = scores.add(frames, 8)
    assert drawn.shape == frames.shape
    padded = np.pad(frames, ((0, 3), (0, 7), (0, 1), (0, 0)), mode="edge")
    codes = coder.encode(padded)
    assert np.array_equal(drawn, coder.decode(codes)[:6, :17, :15])
    assert scores.scores == [(psnr(frames, drawn), ssim(frames, drawn))]
    assert scores.bits_per_pixel == pytest.approx(codes.size * math.log2(125) / (6 * 17 * 15)), "padding is paid for"
    assert np.array_equal(scores.encode(frames), codes)


def test_images_have_no_flicker_and_nothing_has_no_result(coder: VideoTokenizer) -> None:
    scores = ReconstructionScores(coder)
    with pytest.raises(DataError, match="no clip"):
        scores.result()
    scores.add(clip(0, 1, 16, 16), 0)
    assert scores.result()["flicker"] is None


def test_the_distance_of_clips_does_not_depend_on_frames_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = clip(0, 7, 16, 12), clip(1, 7, 16, 12)
    as_images = [torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1 for frames in (a, b)]
    whole = float(perceptual_distance(means, *as_images).mean())
    for count in (1, 3, 7, 16):
        monkeypatch.setattr(reconstruction, "FRAMES_AT_ONCE", count)
        assert clip_distance(means, a, b, "cpu") == pytest.approx(whole, rel=1e-5)


def test_a_stream_is_scored_as_its_frames_are_together(coder: VideoTokenizer) -> None:
    frames = clip(0, 9, 16, 24)
    scores = StreamScores()
    both = np.stack(list(scores.side_by_side(reconstruct_stream(coder, iter(frames)))))
    drawn = coder.decode(codes := coder.encode(frames))
    assert np.array_equal(both, np.concatenate([frames, drawn], axis=2))
    assert (scores.frames, scores.codes, scores.used) == (9, codes.size, set(codes.ravel().tolist()))
    assert (scores.psnr, scores.ssim) == pytest.approx((psnr(frames, drawn), ssim(frames, drawn)))
    small = StreamScores()
    list(small.side_by_side(reconstruct_stream(coder, iter(clip(0, 5, 8, 8)))))
    assert math.isnan(small.ssim), "frames smaller than SSIM's window have none"
