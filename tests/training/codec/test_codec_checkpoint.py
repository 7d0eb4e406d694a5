"""Checkpoints of a tokenizer's training: of the form that pretraining's have, and those of the form before."""

import errno
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.errors import CheckpointError, ConfigError, HashMismatch, VpoetWarning
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import Frames
from vpoet.training.codec.adversarial import AdversarialConfig
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import tensor_file
from vpoet.training.run.checkpoint import complete, resume
from vpoet.training.run.saver import Saver

BEFORE = Path(__file__).parent / "before"
"""A run of the recipe below after two steps, on clips 0 and 1, as version 0.1 saved it: one pickled file."""
PLACES = [{"epoch": 0, "group": 1, "sample": 2, "identity": 3}]


def training() -> TokenizerTraining:
    small = AutoencoderConfig(
        widths=[4, 4, 4],
        encoder_blocks=[0, 0, 0],
        decoder_blocks=[0, 0, 0],
        quantiser=QuantiserConfig(kind="vq", codebook=256),
    )
    adversarial = AdversarialConfig(weight=0.5, start=1, width=8, layers=1)
    return TokenizerTraining(
        VideoTokenizerRecipe(run="x", data=["x"], steps=50, model=small, dtype="fp32", adversarial=adversarial)
    )


def clips(seed: int) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (2, 5, 16, 16, 3), dtype=np.uint8)


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def saved(run: Path, steps: int) -> list[dict[str, float]]:
    """A run saved after each step, and what each step logged."""
    ours, logged = training(), []
    for step in range(steps):
        logged.append(ours.update(clips(step)))
        ours.save(run, [{"step": step}])
    return logged


def test_a_checkpoint_is_tensors_and_json(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    files = sorted(path.name for path in (tmp_path / "checkpoints/step-1").iterdir())
    assert files == [
        "adamw.safetensors", "average.safetensors", "discriminator-adamw.safetensors", "discriminator.safetensors",
        "manifest.json", "model.safetensors", "muon.safetensors", "random.safetensors", "state.json",
    ]  # fmt: skip


def test_a_run_goes_on_from_a_checkpoint_of_the_form_before(tmp_path: Path) -> None:
    run = shutil.copytree(BEFORE, tmp_path / "run")
    ours = training()
    assert ours.restore(run) == PLACES
    held = torch.load(BEFORE / "checkpoints/step-2.pt", weights_only=True)
    assert ours.step == held["step"] == 2
    assert ours.adversary is not None
    for module, part in (
        (ours.model, held["model"]),
        (ours.average, held["average"]),
        (ours.adversary.discriminator, held["adversary"]["discriminator"]),
    ):
        assert all(torch.equal(value, part[name]) for name, value in module.state_dict().items())
    optimizers = [*held["optimizers"], held["adversary"]["optimizer"]]
    for optimizer, part in zip([*ours.optimizers, ours.adversary.optimizer], optimizers, strict=True):
        found = optimizer.state_dict()["state"]
        assert found.keys() == part["state"].keys() != set()
        for index, state in part["state"].items():
            assert all(torch.equal(found[index][name], value) for name, value in state.items())
    assert torch.equal(torch.get_rng_state(), held["positions"][0]["random"])

    logged = ours.update(clips(2))
    assert logged["loss"] == pytest.approx(5.911983013153076, rel=1e-4)  # what the code of then had in this step
    assert logged["d_loss"] == pytest.approx(1.9993414878845215, rel=1e-4)
    ours.save(run, PLACES)
    assert names(run) == ["step-2.pt", "step-3"]
    again = training()
    assert again.restore(run) == PLACES
    assert ours.update(clips(3)) == again.update(clips(3))
    again.save(run, PLACES)
    assert names(run) == ["step-3", "step-4"]


def test_a_damaged_checkpoint_is_passed_over_and_told_of(tmp_path: Path) -> None:
    logged = saved(tmp_path, 2)
    file = tmp_path / "checkpoints/step-2/muon.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    ours = training()
    with pytest.warns(VpoetWarning, match=r"step-2 left out, kept as step-2.damaged: .*muon.safetensors"):
        assert ours.restore(tmp_path) == [{"step": 0}]
    assert ours.update(clips(1)) == logged[1]
    shutil.rmtree(tmp_path / "checkpoints/step-1")
    assert training().restore(tmp_path) is None


def test_a_disk_that_refuses_is_told_and_leaves_the_checkpoints_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    ours = training()
    ours.restore(tmp_path)
    ours.update(clips(1))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file.os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"step-2: not written, process 0 failed: .*No space left"):
            ours.save(tmp_path, PLACES)
    assert names(tmp_path) == ["step-1"]
    (tmp_path / "checkpoints/step-7.tmp").mkdir()
    (tmp_path / "checkpoints/step-2.tmp").write_text("of a save that was killed, in the form before")
    ours.save(tmp_path, PLACES)
    assert [path.name for path in complete(tmp_path)] == names(tmp_path) == ["step-1", "step-2"]


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (Path("trapped"), "x"))


def test_nothing_is_unpickled_from_a_file_of_the_form_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-x.pt", "step-.pt", "step-1 (copy).pt"):
        (tmp_path / "checkpoints" / name).write_text("")
    assert training().restore(tmp_path) is None
    for content in ({"step": Trap()}, {"step": 1}, 5):
        torch.save(content, tmp_path / "checkpoints/step-1.pt")
        with pytest.raises(CheckpointError, match=r"step-1.pt: damaged"):
            training().restore(tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_a_run_folder_of_pretraining_is_another_s_and_the_other_way_round(tmp_path: Path) -> None:
    engine = TorchEngine(torch.nn.Linear(2, 2), EngineConfig(), OptimizerConfig())
    Saver(tmp_path / "pretraining", engine, keep=1).save({"step": 1, "hashes": {"text": "t"}}, last=True)
    with pytest.raises(ConfigError, match=r"step-1: a run of another recipe \(adversarial: None, now"):
        training().restore(tmp_path / "pretraining")
    saved(tmp_path / "codec", 1)
    with pytest.raises(HashMismatch, match=r"step-1: its text has hash None, the configured one t"):
        resume(tmp_path / "codec", engine, {"text": "t"})
