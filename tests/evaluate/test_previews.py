"""Samples of a run, and the real clips beside them: the nearest caption's, decoded, looked for once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.data.shards import ShardWriter
from vpoet.data.token_stream import Source, StreamConfig
from vpoet.errors import VpoetWarning
from vpoet.evaluate.previews import REAL_LIST, likeness, read_real, reconstruct_clips, sample_prompts
from vpoet.media.video import Video
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.processes import Processes
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.recipe import PretrainConfig, SampleConfig
from vpoet.training.run.tracking import Sampled

CAPTIONS = ["a red ball rolls", ["a blue ball falls", "a ball that is blue falls down"], ""]
PROMPTS = ["a ball that falls down", "the red ball rolls"]


@pytest.mark.parametrize("world", [2, 3, 7])
def test_processes_share_the_clips_of_an_evaluation_and_have_the_scores_of_all(
    world: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    small = AutoencoderConfig(widths=[4, 4, 4], encoder_blocks=[0, 0, 0], decoder_blocks=[0, 0, 0])
    tokenizer = VideoTokenizer(Autoencoder(small))
    clips = np.random.default_rng(0).integers(0, 256, (5, 5, 16, 16, 3), dtype=np.uint8)
    alone = reconstruct_clips(tokenizer, clips, tmp_path / "alone.png", "x", Processes())
    shares: list[list[Any]] = []
    encoded = []
    original = VideoTokenizer.encode
    monkeypatch.setattr(VideoTokenizer, "encode", lambda self, clip: encoded.append(clip) or original(self, clip))

    class Others(Processes):
        """Notes what each process has; once all have been there, tells it."""

        def gather(self, value: Any) -> list[Any]:
            if len(shares) < self.world:
                shares.append(value)
                return [alone_has]
            return shares

    alone_has = [(0, np.zeros((2, 2, 2), np.int32), 1.0, 1.0, clips[0])]
    for rank in (*range(world), *range(world)):
        told = len(shares) == world
        encoded.clear()
        result = reconstruct_clips(tokenizer, clips, tmp_path / f"{rank}.png", "x", Others(rank, world))
        assert len(encoded) == len(range(rank, 5, world))
        assert result == alone or not told
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "alone.png").read_bytes()
    assert not (tmp_path / "1.png").exists()


def test_words_shared_of_all_words() -> None:
    assert likeness("a red fox", "Red fox, a!") == 1
    assert likeness("a red fox", "a blue dog") == pytest.approx(1 / 5)
    assert likeness("", "") == 0


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """All that `sample_prompts` takes: random weights, and held-out clips of which one has two captions, one none."""
    torch.manual_seed(0)
    small = AutoencoderConfig(
        quantiser=QuantiserConfig(levels=[4, 3]), widths=[4, 4, 4], encoder_blocks=[0, 0, 1], decoder_blocks=[0, 0, 1]
    )
    video = VideoTokenizer(Autoencoder(small))
    text = TextTokenizer.train(["a red ball rolls", "a blue ball falls"], tmp_path / "text.model", 300)
    with ShardWriter(tmp_path / "heldout", kind="tokens", samples_per_shard=1, tokenizer=video.hash) as writer:
        for i, caption in enumerate(CAPTIONS):
            about = {"caption": caption, "fps": 4, "tokenizer": video.hash}
            writer.write(f"s{i}", {"codes.npy": np.full((2, 2, 2), 3 * i, np.int32), "json": about})
    writer.manifest().save(tmp_path / "heldout")
    model = TransformerConfig(width=16, depth=1, heads=2, kv_heads=1, hidden=24)
    config = PretrainConfig(
        run=str(tmp_path / "run"), text="", video="", model=model,
        data=StreamConfig(sources=[Source(path="x")], tasks={"t2v": 1.0}, length=128),
        heldout=[Source(path=str(tmp_path / "heldout"))],
        samples=SampleConfig(every=1, prompts=PROMPTS, frames=5, height=16, width=16),
    )  # fmt: skip
    (tmp_path / "run").mkdir()
    vocabulary = Vocabulary(text.size, grouped(video.levels, model.visual_groups), text.hash, video.hash)
    weights = Transformer(model, vocabulary).state_dict()
    return {"config": config, "weights": weights, "vocabulary": vocabulary, "text": text, "video": video}


def test_samples_come_with_the_nearest_held_out_clips(parts: dict[str, Any], tmp_path: Path) -> None:
    shown = sample_prompts(**parts, step=3)
    assert [(each.prompt, each.path.name, each.caption) for each in shown] == [
        (PROMPTS[0], "step-3-0.mp4", "a ball that is blue falls down"),
        (PROMPTS[1], "step-3-1.mp4", "a red ball rolls"),
    ]
    assert all(Video.read(each.path).frames.shape == (5, 16, 16, 3) for each in shown)
    clip = Video(parts["video"].decode(np.full((2, 2, 2), 3, np.int32)), 4.0)
    assert shown[0].real is not None
    assert shown[0].real.read_bytes() == clip.encode(".mp4"), "the second clip, through the tokenizer, at its own rate"

    # Later samplings read the list; another prompt is looked for anew.
    (tmp_path / "heldout").rename(tmp_path / "gone")
    assert [each.real for each in sample_prompts(**parts, step=4)] == [each.real for each in shown]
    (tmp_path / "gone").rename(tmp_path / "heldout")
    parts["config"].samples.prompts = ["blue ball"]
    assert [each.caption for each in sample_prompts(**parts, step=5)] == ["a blue ball falls"]


def test_a_run_without_held_out_clips_has_samples_alone(parts: dict[str, Any]) -> None:
    parts["config"].heldout = []
    assert [(each.real, each.caption) for each in sample_prompts(**parts, step=1)] == [(None, ""), (None, "")]


def test_a_disk_that_takes_no_clip_stops_nothing(parts: dict[str, Any], tmp_path: Path) -> None:
    """A file lies where the folder should; then a folder where the second clip should."""
    folder = tmp_path / "run" / "samples"
    folder.write_text("")
    with pytest.warns(VpoetWarning, match="not all samples written: .*training goes on"):
        assert sample_prompts(**parts, step=1) == []
    folder.unlink()
    (folder / "step-1-1.mp4").mkdir(parents=True)
    with pytest.warns(VpoetWarning, match="training goes on"):
        assert [each.path.name for each in sample_prompts(**parts, step=1)] == ["step-1-0.mp4"]
    (tmp_path / "heldout" / "manifest.json").unlink()
    with pytest.warns(VpoetWarning, match=r"manifest\.json.*training goes on"):
        assert len(sample_prompts(**parts, step=2)) == 2


def test_a_list_that_is_damaged_counts_as_none(tmp_path: Path) -> None:
    sampled = Sampled("a", tmp_path / "step-1-0.mp4")
    for content in ("{", "[1]", json.dumps([{"prompt": "a"}])):
        (tmp_path / REAL_LIST).write_text(content)
        assert read_real(sampled.path.parent) == {}
