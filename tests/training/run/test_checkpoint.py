"""Checkpoints: exact, whole or not there, checked, and kept as long as was asked for."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from vpoet.errors import CheckpointError, HashMismatch, VpoetWarning
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import checkpoint, tensor_file
from vpoet.training.run.saver import Saver

HASHES = {"text": "a", "video": "b", "vocabulary": "c"}


def trainer(seed: int = 0, width: int = 3) -> TorchEngine:
    torch.manual_seed(seed)
    return TorchEngine(nn.Sequential(nn.Linear(3, width), nn.Dropout(0.5)), EngineConfig(), OptimizerConfig())


def train(engine: TorchEngine, first: int, last: int) -> list[float]:
    return [
        engine.step([torch.ones(2, 3) * step], lambda output: output.square().sum(), 1e-2, seeds=[step])[1]
        for step in range(first, last)
    ]


def save(run: Path, engine: TorchEngine, step: int, keep: int = 2, keep_every: int = 0) -> Path:
    Saver(run, engine, keep=keep, keep_every=keep_every).save({"step": step, "hashes": HASHES}, last=True)
    return run / "checkpoints" / f"step-{step}"


def names(run: Path) -> list[str]:
    return sorted(folder.name for folder in (run / "checkpoints").iterdir())


def spoil(path: Path) -> None:
    """Change one byte in the middle, and nothing of its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_loading_continues_bit_for_bit(tmp_path: Path) -> None:
    first = trainer()
    train(first, 0, 3)
    save(tmp_path, first, 3)
    expected = train(first, 3, 7)
    second = trainer(seed=1)
    folder, state = checkpoint.resume(tmp_path, second, HASHES)
    assert (folder.name, state["step"], state["updates"]) == ("step-3", 3, 3)
    assert train(second, 3, 7) == expected
    assert all(torch.equal(a, b) for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True))


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    folder = save(tmp_path, trainer(), 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json", "model-0.safetensors", "optimizer-0.safetensors", "state.json"
    ]  # fmt: skip


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path: Path) -> None:
    engine = trainer()
    for step in (1, 2, 10):
        save(tmp_path, engine, step)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-2", "step-10"]
    newest = checkpoint.newest(tmp_path)
    (newest / "model-0.safetensors").write_bytes((newest / "model-0.safetensors").read_bytes()[:-1])
    (tmp_path / "checkpoints" / "step-99").mkdir()
    (tmp_path / "checkpoints" / "step-50.tmp").mkdir()
    assert checkpoint.newest(tmp_path).name == "step-2"


def test_some_checkpoints_are_kept_for_good(tmp_path: Path) -> None:
    engine = trainer()
    for step in range(1, 10):
        save(tmp_path, engine, step, keep=2, keep_every=4)
    assert names(tmp_path) == ["step-4", "step-8", "step-9"]


@pytest.mark.parametrize("name", ["model-0.safetensors", "optimizer-0.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path: Path, name: str) -> None:
    engine = trainer()
    save(tmp_path, engine, 1)
    spoil(save(tmp_path, engine, 2) / name)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-1", "step-2"]  # looks at sizes alone
    with pytest.warns(VpoetWarning, match=rf"step-2 left out, kept as step-2\.damaged: .*{name}: not the bytes that"):
        folder, _ = checkpoint.resume(tmp_path, engine, HASHES)
    assert folder.name == "step-1"
    save(tmp_path, engine, 2, keep=1)
    assert names(tmp_path) == ["step-2", "step-2.damaged"]


def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path: Path) -> None:
    engine = trainer()
    spoil(save(tmp_path, engine, 1) / "state.json")
    with pytest.warns(VpoetWarning), pytest.raises(CheckpointError, match="no sound checkpoint there"):
        checkpoint.resume(tmp_path, engine, HASHES)


def test_weights_are_checked_before_they_are_exported(tmp_path: Path) -> None:
    engine = trainer()
    folder = save(tmp_path, engine, 1)
    read = checkpoint.read_weights(folder)
    assert all(torch.equal(read[name], weight) for name, weight in engine.module.state_dict().items())
    spoil(folder / "model-0.safetensors")
    with pytest.raises(CheckpointError, match=r"step-1/model-0.safetensors: damaged"):
        checkpoint.read_weights(folder)


class Steps:
    """Counts the steps that reach the disk, and has one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, fail: Callable[[], None]) -> None:
        self.left = -1
        self.fail = fail
        for module, name in ((tensor_file.os, "fsync"), (Path, "rename"), (Path, "mkdir"), (tensor_file.Sink, "write")):
            patch.setattr(module, name, self._counted(getattr(module, name), half=name == "write"))

    def _counted(self, real: Callable[..., object], half: bool) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.left -= 1
            if self.left != 0:
                return real(*args, **kwargs)
            if half:  # half of the bytes arrive
                sink, data = args
                assert isinstance(sink, tensor_file.Sink)
                data = memoryview(data).cast("B")  # type: ignore[arg-type]
                real(sink, data[: len(data) // 2])
                try:
                    self.fail()
                except OSError as error:
                    sink.error = error
                return None
            return self.fail()

        return call


def full_disk() -> None:
    raise OSError(28, "No space left on device")


def attempt(run: Path, engine: TorchEngine) -> str | None:
    try:
        save(run, engine, 2, keep=1)
    except CheckpointError as error:
        return str(error)
    return None


def test_a_disk_that_fails_at_any_step_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trainer()
    save(tmp_path, engine, 1)
    failures = 0
    with monkeypatch.context() as patch:
        steps = Steps(patch, full_disk)
        while True:
            steps.left = failures + 1
            error = attempt(tmp_path, engine)
            if error is None:
                break
            assert "step-2: not written, process 0 failed: [Errno 28] No space left on device" in error
            failures += 1
            sound = [folder.name for folder in checkpoint.complete(tmp_path)]
            # the last one, or, where only the flush after the rename failed, the new one too
            assert sound in (["step-1"], ["step-1", "step-2"])
            assert checkpoint.damage(checkpoint.newest(tmp_path)) == []
            assert names(tmp_path) == sound, "nothing of the attempt stays"
    assert failures >= 12, "four files, their bytes and flushes, two folders, one rename"
    assert names(tmp_path) == ["step-2"]
    assert checkpoint.damage(checkpoint.newest(tmp_path)) == []


def test_a_kill_at_any_step_of_saving_leaves_a_sound_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = trainer()
    save(tmp_path, engine, 1)
    kills = 0
    while True:
        child = os.fork()
        if child == 0:  # as it ends without a word, the disk is left as at that moment
            steps = Steps(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGKILL))
            steps.left = kills + 1
            save(tmp_path, engine, 2, keep=2)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        found = checkpoint.newest(tmp_path)
        assert checkpoint.damage(found) == []
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        kills += 1
    assert kills >= 12
    assert found.name == "step-2"
    save(tmp_path, engine, 3)
    assert names(tmp_path) == ["step-2", "step-3"]


def test_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    engine = trainer()
    folder = save(tmp_path, engine, 1)
    with pytest.raises(HashMismatch, match="video has hash b, the configured one other"):
        checkpoint.load(folder, engine, HASHES | {"video": "other"})
    with pytest.raises(CheckpointError, match=r"step-1: 0.weight is \[3, 3\], the recipe's model has \[5, 3\]"):
        checkpoint.load(folder, trainer(width=5), HASHES)
    more = TorchEngine(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), EngineConfig(), OptimizerConfig())
    with pytest.raises(CheckpointError, match=r"of another model, which has nothing more and lacks 1\.bias, .*6 diff"):
        checkpoint.load(folder, more, HASHES)


def test_frozen_weights_are_saved_and_have_no_state(tmp_path: Path) -> None:
    def frozen(seed: int) -> TorchEngine:
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        module[0].requires_grad_(False)
        return TorchEngine(module, EngineConfig(), OptimizerConfig())

    first, second = frozen(0), frozen(1)
    train(first, 0, 2)
    save(tmp_path, first, 2)
    checkpoint.resume(tmp_path, second, HASHES)
    assert train(second, 2, 5) == train(first, 2, 5)


def test_checkpoints_of_another_format_do_not_count(tmp_path: Path) -> None:
    folder = save(tmp_path, trainer(), 1)
    manifest = json.loads((folder / "manifest.json").read_text())
    for content in ({**manifest, "format": 1}, {"model-0.safetensors": 7}, ["x"]):
        (folder / "manifest.json").write_text(json.dumps(content))
        assert checkpoint.complete(tmp_path) == []


def test_folders_without_checkpoints_say_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a run folder"):
        checkpoint.newest(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path)
