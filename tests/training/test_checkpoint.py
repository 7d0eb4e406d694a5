import json
from pathlib import Path

import pytest
import torch
from torch import nn

from vpoet.errors import CheckpointError, HashMismatch
from vpoet.training import checkpoint
from vpoet.training.engine import EngineConfig
from vpoet.training.optim import OptimizerConfig
from vpoet.training.torch_engine import TorchEngine

HASHES = {"text": "a", "video": "b", "vocabulary": "c"}


def trainer(seed: int = 0) -> TorchEngine:
    torch.manual_seed(seed)
    return TorchEngine(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)), EngineConfig(), OptimizerConfig())


def train(engine: TorchEngine, steps: int) -> list[float]:
    return [
        engine.step([torch.ones(2, 3) * step], lambda output: output.square().sum(), 1e-2)[1] for step in range(steps)
    ]


def test_loading_continues_bit_for_bit(tmp_path: Path) -> None:
    first = trainer()
    train(first, 3)
    checkpoint.save(tmp_path, first, {"step": 3, "hashes": HASHES}, keep=2)
    expected = train(first, 4)
    second = trainer(seed=1)
    state = checkpoint.load(checkpoint.newest(tmp_path), second, HASHES)
    assert state["step"] == 3
    assert train(second, 4) == expected
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    engine = trainer()
    for step in (1, 2, 10):
        checkpoint.save(tmp_path, engine, {"step": step, "hashes": HASHES}, keep=2)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-2", "step-10"]
    newest = checkpoint.newest(tmp_path)
    (newest / "model.safetensors").write_bytes((newest / "model.safetensors").read_bytes()[:-1])
    (tmp_path / "checkpoints" / "step-99").mkdir()
    (tmp_path / "checkpoints" / "step-50.tmp").mkdir()
    assert checkpoint.newest(tmp_path).name == "step-2"


def test_a_failed_save_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = trainer()
    checkpoint.save(tmp_path, engine, {"step": 1, "hashes": HASHES}, keep=1)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            checkpoint.save(tmp_path, engine, {"step": 2, "hashes": HASHES}, keep=1)
    assert checkpoint.newest(tmp_path).name == "step-1"
    checkpoint.save(tmp_path, engine, {"step": 2, "hashes": HASHES}, keep=1)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-2"]


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    engine = trainer()
    folder = checkpoint.save(tmp_path, engine, {"step": 1, "hashes": HASHES}, keep=1)
    with pytest.raises(HashMismatch, match="video has hash b, the configured one other"):
        checkpoint.load(folder, engine, HASHES | {"video": "other"})
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | {"world": 2, "engine": "DeepSpeedEngine"}))
    with pytest.raises(CheckpointError, match="DeepSpeedEngine with 2 processes, this is TorchEngine with 1"):
        checkpoint.load(folder, engine, HASHES)


def test_folders_without_checkpoints_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        checkpoint.newest(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path)
