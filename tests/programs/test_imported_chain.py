"""From somebody else's tokenizer to samples, scores and an evaluation: the commands of tokenizers/README.md."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import bundle
from vpoet.evaluate.previews import reconstruct_clips
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.processes import Processes
from vpoet.tokenizer.contract import Tokenizer
from vpoet.tokenizer.imported.cosmos import Cosmos, CosmosConfig
from vpoet.tokenizer.imported.vidtok import VidTok, VidTokConfig
from vpoet.tokenizer.video import VideoTokenizer

Run = Callable[..., tuple[int, str, str]]


class Only:
    """A tokenizer of which nothing is to be had but what `Tokenizer` promises."""

    def __init__(self, whole: VideoTokenizer) -> None:
        self._whole = whole

    def __getattr__(self, name: str) -> Any:
        if name not in vars(Tokenizer) | Tokenizer.__annotations__:
            raise AttributeError(f"{name} is no part of the contract")
        return getattr(self._whole, name)


def test_whatever_meets_the_contract_is_sampled_scored_and_reconstructed_with(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    whole = bundle.load(make_bundle(tmp_path / "b", depth=1, length=120, frames=5, height=16, width=16))
    clip = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8), 8)
    ours, theirs = Model(whole), Model(replace(whole, video=Only(whole.video)))  # type: ignore[arg-type]
    samples = [
        model.sample("a robot walks", image=Video(clip.frames[:1], 8), seed=1).frames for model in (ours, theirs)
    ]
    assert np.array_equal(*samples)
    assert ours.score(clip, "a robot").total.nats == theirs.score(clip, "a robot").total.nats
    coders = whole.video, Only(whole.video)
    kept = [reconstruct_clips(coder, clip.frames[None], tmp_path / "s.png", "s", Processes()) for coder in coders]  # type: ignore[arg-type]
    assert kept[0] == kept[1]
    with pytest.raises(AttributeError, match="_encode is no part"):
        _ = coders[1]._encode


def cosmos(folder: Path) -> Path:
    """A folder as NVIDIA's, with random weights of small widths."""
    published = folder / "Cosmos-Tokenize1-DV4x8x8-360p"
    published.mkdir()
    small = CosmosConfig(time_stride=4, space_stride=8, patch=2, channels=4, widths=[8, 8, 8], blocks=1, latent=4)
    torch.save(Cosmos(small).state_dict(), published / "model.pt")
    return published


def vidtok(folder: Path) -> Path:
    """A checkpoint as Microsoft's, likewise; its decoder sees a cell ahead."""
    published = folder / "vidtok_fsq_causal_488_32768_v1_1.ckpt"
    small = VidTokConfig(version="1.1", digits=5, channels=4, widths=[4, 8, 8, 8], blocks=1)
    torch.save({"state_dict": VidTok(small).state_dict(), "epoch": 1}, published)
    return published


@pytest.mark.parametrize(("publish", "licence"), [(cosmos, "NVIDIA Open Model License"), (vidtok, "MIT")])
def test_the_chain_runs_on_an_imported_tokenizer(
    publish: Callable[[Path], Path], licence: str, program: Run, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    published, family = publish(tmp_path), publish.__name__

    def done(path: str, *arguments: object) -> dict[str, Any]:
        status, out, err = program(path, *arguments, "--json")
        assert status == 0, err
        said: dict[str, Any] = json.loads(out.splitlines()[-1])
        return said

    raw, tokens, ours = tmp_path / "raw", tmp_path / "tokens", tmp_path / "theirs"
    size = ("--frames", 5, "--height", 32, "--width", 32)
    done("train/ingest.py", "world:platformer", "--clips", 12, *size, "--holdout", 0.3, "--out", raw)
    imported = done("tokenizers/import_tokenizer.py", family, published, "--clips", raw / "heldout", "--out", ours)
    assert 0 < imported["round_trip"]["psnr"] < 60
    done("tokenizers/train_text.py", raw / "train", "--out", tmp_path / "text.model", "--size", 300)
    done("tokenizers/encode_shards.py", raw / "train", "--tokenizer", ours, "--out", tokens)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"run: {tmp_path / 'run'}\ntext: {tmp_path / 'text.model'}\nvideo: {ours}\n"
        f"data: {{sources: [{{path: {tokens}}}], length: 128, lookahead: 4, tasks: {{t2v: 1, i2v: 1}}}}\n"
        "model: {width: 32, depth: 1, heads: 2, kv_heads: 1, hidden: 48, visual_groups: 3}\n"
        "batch: 1\nsteps: 2\nsamples: {frames: 5, height: 32, width: 32}\n"
    )
    done("train/pretrain.py", recipe)
    done("train/export.py", tmp_path / "run", "--out", tmp_path / "bundle")
    inside = (tmp_path / "bundle" / "video_tokenizer" / "config.yaml").read_text()
    assert f"license: {licence}" in inside, "the licence goes with the weights"
    clip = tmp_path / "clip.mp4"
    done("sample/generate.py", "--model", tmp_path / "bundle", "--prompt", "a red robot", "--out", clip)
    assert Video.read(clip).frames.shape == (5, 32, 32, 3)
    (row,) = done("sample/score.py", clip, "--model", tmp_path / "bundle", "--prompt", "a robot")["rows"]
    assert row["nats"] > 0
    judged = done(
        "sample/evaluate.py", "--model", tmp_path / "bundle", "--prompts", raw / "heldout", "--count", 2,
        "--out", tmp_path / "judged",
    )  # fmt: skip
    assert judged["sets"]
    facts = done("train/describe.py", ours)
    assert (facts["hash"], facts["license"]) == (imported["hash"], licence)
    assert facts["stride"] == "4x8x8"
    assert min(facts["FLOPs per code"].values()) > 0
