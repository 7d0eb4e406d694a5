"""Fine-tuning, run as users run it: a tiny bundle, a few clips, all weights or an adapter."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import bundle, config
from vpoet.data.npy import codes_to_npy
from vpoet.data.painting import to_npz
from vpoet.data.shards import ShardWriter
from vpoet.errors import ConfigError, HashMismatch
from vpoet.media.video import Video
from vpoet.nn.initial import fill
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Painting
from vpoet.sequence.tasks import PAINTED
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.tracking import read_metrics

Program = Callable[..., tuple[int, str, str]]
CLIPS = 6


@pytest.fixture(scope="module")
def base(make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("finetune"), frames=5, height=16, width=16, length=96)


@pytest.fixture
def clips(base: Path, tmp_path: Path) -> Path:
    return write_clips(tmp_path / "tokens", base)


@pytest.mark.parametrize(
    ("override", "told"),
    [("steps", "write it as key=value"), ("stepz=3", "stepz"), ("steps=many", "steps"), ("optimizer.lr=[1]", "lr")],
)
def test_a_wrong_override_is_told_before_any_clip_is_encoded(
    base: Path, clips: Path, tmp_path: Path, program: Program, override: str, told: str
) -> None:
    status, _, err = program("train/finetune.py", base, clips, override, "--out", tmp_path / "tuned")
    assert status == 2
    assert f"override {override!r}" in err
    assert told in err
    assert not (tmp_path / "tuned-run").exists()


def test_a_refused_command_leaves_no_run_folder(base: Path, clips: Path, tmp_path: Path, program: Program) -> None:
    large = write_clips(tmp_path / "large", base, (2, 3, 3))
    for model, shards in ((tmp_path / "no-bundle", clips), (base, tmp_path / "no.csv"), (base, large)):
        status, _, err = program("train/finetune.py", model, shards, "--out", tmp_path / "new" / "tuned")
        assert (status, "error: " in err) == (2, True)
        assert not (tmp_path / "new").exists()


def write_clips(
    folder: Path, base: Path, size: tuple[int, int, int] = (2, 2, 2), painted: bool = True, **json_fields: Any
) -> Path:
    """Token shards whose codes count up from the clip's number, and if ``painted`` with paintings of the same codes."""
    tokenizer = bundle.load(base).video.hash
    hidden = np.indices(size)[1] > 0
    with ShardWriter(folder, kind="tokens", samples_per_shard=4, tokenizer=tokenizer) as writer:
        for i in range(CLIPS):
            codes = (i + np.arange(np.prod(size))).reshape(size).astype(np.int32)
            fields = {"caption": f"a dog {i}", "fps": 8, "grid": list(size), "tokenizer": tokenizer, **json_fields}
            parts: dict[str, Any] = {"codes.npy": codes_to_npy(codes), "json": fields}
            if painted:
                fields["paintings"] = list(PAINTED)
                for number, task in enumerate(PAINTED):
                    parts[f"painting-{number}.npz"] = to_npz(Painting(task, hidden, np.where(hidden, 0, codes)))
            writer.write(f"clip-{i}", parts)
    writer.manifest().save(folder)
    return folder


def weights(folder: Path, adapter: Path | None = None) -> dict[str, torch.Tensor]:
    return bundle.load(folder, adapter=adapter).transformer.state_dict()


def test_all_weights_learn_the_clips(base: Path, clips: Path, tmp_path: Path, program: Program) -> None:
    out = tmp_path / "dog"
    before = weights(base)
    command = ("train/finetune.py", base, clips, "steps=40", "optimizer.lr=1e-2", "--out", out, "--json")
    status, said, told = program(*command)
    assert status == 0, told
    result = json.loads(said)
    assert result["steps"] == 40
    assert result["loss"] < result["first_loss"] - 1.0
    assert "not trained, as the clips have no keyframes (`vpoet encode --keyframes`): backward, interpolation" in told
    assert "no paintings" not in told
    after = weights(out)
    # of the language table, rows that no document has read stay
    assert not [name for name, weight in after.items() if torch.equal(weight, before[name])]
    assert all(torch.equal(weight, before[name]) for name, weight in weights(base).items())
    tuned, own = bundle.load(out), bundle.load(base)
    assert set(tuned.config.tasks) == set(own.config.tasks) - {
        "backward",
        "interpolation",
        "timeline",
        "interleaved",
        "sr",
    }
    assert (tuned.config.model, tuned.config.length, tuned.config.frames) == (own.config.model, 96, 5)

    status, said, told = program(*command)  # nothing is left to do
    assert (status, json.loads(said)) == (0, result), told
    status, _, told = program(*command[:3], "steps=50", *command[4:])
    assert status == 2
    assert f"{out}-run: holds a run with other settings (steps: 40, now 50)" in told


def test_an_adapter_learns_beside_weights_that_stay(base: Path, clips: Path, tmp_path: Path, program: Program) -> None:
    out, again = tmp_path / "dog.safetensors", tmp_path / "again.safetensors"
    command = ("train/finetune.py", base, clips, "steps=40", "optimizer.lr=2e-2", "--lora", 4, "--json", "--out")
    status, said, told = program(*command, out)
    assert status == 0, told
    result = json.loads(said)
    assert result["loss"] < result["first_loss"] - 0.5
    assert "hold" not in told

    own, tuned = weights(base), weights(base, out)
    changed = {name for name, weight in tuned.items() if not torch.equal(weight, own[name])}
    assert changed == {name for name, weight in own.items() if name.startswith("blocks.") and weight.dim() == 2}
    held = checkpoint.read_weights(checkpoint.newest(tmp_path / "dog-run"))
    kept = {name.replace(".base_layer.", "."): weight for name, weight in held.items() if "lora_" not in name}
    assert kept.keys() == {f"transformer.{name}" for name in own}
    assert all(torch.equal(kept[f"transformer.{name}"], weight) for name, weight in own.items())

    # a bundle of the run, a bundle of base and adapter, and the adapter beside its base are one model
    assert program("train/export.py", tmp_path / "dog-run", "--out", tmp_path / "run")[0] == 0
    assert program("train/export.py", base, "--adapter", out, "--out", tmp_path / "merged")[0] == 0
    hashes = {bundle.load(tmp_path / name).hash for name in ("run", "merged")}
    assert hashes == {bundle.load(base, adapter=out).hash} != {bundle.load(base).hash}
    status, _, told = program("train/export.py", tmp_path / "run", "--adapter", out, "--out", tmp_path / "twice")
    assert status == 2
    assert all(name in told for name in (bundle.load(base).hash, *hashes))

    assert program(*command, again)[0] == 0
    assert bundle.load(base, adapter=again).hash == bundle.load(base, adapter=out).hash


def test_a_list_of_videos_is_enough_and_an_interruption_changes_nothing(
    base: Path, tmp_path: Path, root: Path, launched: Callable[..., Any]
) -> None:
    """From mp4 files to an adapter in processes of their own: one unbroken, one stopped by Ctrl-C and started again."""
    random = np.random.default_rng(0)
    with (tmp_path / "dog.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "caption"])
        for i in range(4):
            frames = random.integers(0, 255, (9, 24, 40, 3), dtype=np.uint8)
            Video(frames, 12.0).write(tmp_path / f"{i}.mp4")
            rows.writerow([f"{i}.mp4", f"my dog, {i}"])
    command = ["train/finetune.py", str(base), str(tmp_path / "dog.csv"), "--lora", "2", "steps=60", "--out"]
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    unbroken = launched(*command, whole, "--json")
    assert unbroken.wait() == 0, unbroken.err
    assert "4 clips, 0 without a caption" in unbroken.err
    assert json.loads(unbroken.out)["out"] == str(whole)

    job = subprocess.Popen(
        [sys.executable, *command, str(cut)], cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    log, deadline = tmp_path / "cut-run/metrics.jsonl", time.monotonic() + 120
    while not (log.exists() and len(read_metrics(log)) >= 5):
        assert time.monotonic() < deadline, "no step was taken"
        time.sleep(0.005)
    job.send_signal(signal.SIGINT)
    _, told = job.communicate(timeout=60)
    assert job.returncode == 130, told
    assert "run the same command again to resume" in told
    assert not cut.exists()
    assert checkpoint.newest(tmp_path / "cut-run").name != "step-60", "the interruption came too late to test anything"
    resumed = launched(*command, cut)
    assert resumed.wait() == 0, resumed.err
    assert bundle.load(base, adapter=cut).hash == bundle.load(base, adapter=whole).hash != bundle.load(base).hash


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"size": (2, 4, 2)}, "6 of 2x4x2 cells, and it knows 2x2x2; `vpoet ingest --frames 5 --height 16 --width 16"),
        ({"size": (3, 2, 2)}, "6 of 3x2x2 cells"),
        ({"caption": ""}, "no clip has a caption"),
        ({"fps": 0}, "not one clip is usable: 6 no fps"),
    ],
)
def test_clips_that_cannot_be_learned_from_are_refused(
    base: Path, tmp_path: Path, program: Program, made: dict[str, Any], told: str
) -> None:
    clips = write_clips(tmp_path / "tokens", base, **made)
    status, _, said = program("train/finetune.py", base, clips, "--out", tmp_path / "dog")
    assert (status, told in said) == (2, True), said
    assert not (tmp_path / "dog-run/checkpoints").exists()


def test_an_output_that_cannot_be_is_refused_before_training(
    base: Path, clips: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/diary.txt").write_text("mine")
    for out, told in (("taken", "exists and is no bundle"), ("dog.safetensors", "add --lora RANK")):
        status, _, said = program("train/finetune.py", base, clips, "--out", tmp_path / out)
        assert (status, told in said) == (2, True), said
    assert not list(tmp_path.glob("*-run"))


def test_a_run_whose_bundle_has_changed_is_not_resumed(
    make_bundle: Callable[..., Path], tmp_path: Path, program: Program
) -> None:
    base = make_bundle(tmp_path / "mine", depth=1, frames=5, height=16, width=16, length=96)
    clips = write_clips(tmp_path / "tokens", base, painted=False)
    command = ("train/finetune.py", base, clips, "steps=2", "--out", tmp_path / "dog")
    status, _, said = program(*command)
    assert status == 0, said
    assert "not trained, as the clips have no paintings (`vpoet encode --paintings 1`): inpainting, outpainting" in said
    held = bundle.load(base)
    was = held.hash
    held.transformer.norm.weight.mul_(2)
    bundle.save(base, held.transformer, held.config, held.text, held.video, "")
    status, _, said = program(*command)
    assert status == 2
    assert f"its begin has hash {was}, the configured one {bundle.load(base).hash}" in said


def test_a_run_begins_with_a_bundle_of_its_sizes_and_tokenizers(base: Path, tokens: Any) -> None:
    held = bundle.load(base)
    same = Transformer(held.config.model, held.transformer.vocabulary)
    found, given = bundle.begin(same, base)
    assert found == held.hash
    fill(same, given, torch.device("cpu"))
    assert all(torch.equal(weight, same.state_dict()[name]) for name, weight in weights(base).items())
    with pytest.raises(HashMismatch, match=f"its vocabulary is {held.transformer.vocabulary.hash}, .*text.model"):
        bundle.begin(Transformer(held.config.model, tokens.vocabulary), base)
    wider = config.from_dict({**config.to_dict(held.config.model), "hidden": 64}, type(held.config.model))
    with pytest.raises(ConfigError, match=r"hidden=48.*hidden=64"):
        bundle.begin(Transformer(wider, held.transformer.vocabulary), base)


def test_lora_needs_a_bundle_to_begin_with() -> None:
    recipe = {"run": "run", "text": "text.model", "video": "video", "data": {"sources": [], "tasks": {"t2v": 1.0}}}
    assert config.from_dict({**recipe, "lora": {"rank": 2}, "begin": "bundle"}, PretrainConfig).lora is not None
    with pytest.raises(ConfigError, match="add begin=BUNDLE"):
        config.from_dict({**recipe, "lora": {"rank": 2}}, PretrainConfig)
