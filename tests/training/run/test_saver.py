"""Checkpoints beside training: of the step they were asked for, one at a time, and told of only when they are there."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from vpoet.errors import CheckpointError
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import checkpoint, saver, tensor_file
from vpoet.training.run.saver import Saver


def trainer(seed: int = 0) -> TorchEngine:
    torch.manual_seed(seed)
    return TorchEngine(nn.Linear(3, 3), EngineConfig(), OptimizerConfig())


def train(engine: TorchEngine, first: int, last: int) -> list[float]:
    steps = range(first, last)
    return [engine.step([torch.ones(2, 3) * step], lambda output: output.square().sum(), 1e-2)[1] for step in steps]


class Disk:
    """A disk on which nothing arrives before it is let."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        flush = tensor_file.os.fsync
        patch.setattr(tensor_file.os, "fsync", lambda handle: self.free.wait(60) and flush(handle))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.free.set()


def saver_of(run: Path, engine: TorchEngine, said: list[str]) -> Saver:
    return Saver(run, engine, keep=2, say=said.append)


def state(step: int) -> dict[str, object]:
    return {"step": step, "hashes": {}, "seen": [step]}


def test_training_goes_on_while_a_checkpoint_is_written_and_is_not_in_it(tmp_path: Path, disk: Disk) -> None:
    engine, said = trainer(), list[str]()
    train(engine, 0, 3)
    ours, told = saver_of(tmp_path, engine, said), state(3)
    ours.save(told)
    told["seen"] = "changed since"
    expected = []
    for step in range(3, 7):
        expected += train(engine, step, step + 1)
        ours.poll()
    assert said == []
    assert checkpoint.complete(tmp_path) == []
    disk.free.set()
    ours.poll(wait=True)
    assert said == [f"saved {tmp_path}/checkpoints/step-3"]
    again = trainer(seed=1)
    _, read = checkpoint.resume(tmp_path, again, {})
    assert (read["seen"], read["updates"]) == ([3], 3)
    assert train(again, 3, 7) == expected


def test_polling_alone_ends_a_save(tmp_path: Path) -> None:
    engine, said = trainer(), list[str]()
    ours = saver_of(tmp_path, engine, said)
    ours.save(state(1))
    pauses = 0
    while not said:
        ours.poll()
        assert (pauses := pauses + 1) < 6000, "not saved within a minute"
        time.sleep(0.01)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-1"]


def test_a_second_save_waits_for_the_first(tmp_path: Path, disk: Disk) -> None:
    engine, said = trainer(), list[str]()
    ours = saver_of(tmp_path, engine, said)
    ours.save(state(1))
    threading.Timer(0.2, disk.free.set).start()
    ours.save(state(2))
    assert said == [f"saved {tmp_path}/checkpoints/step-1"]
    ours.save(state(3), last=True)
    assert [line.rpartition("/")[2] for line in said] == ["step-1", "step-2", "step-3"]
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-2", "step-3"]


def test_a_checkpoint_that_is_needed_stays_until_it_is_not(tmp_path: Path) -> None:
    needed = {1}
    ours = Saver(tmp_path, trainer(), keep=1, needed=lambda: needed, say=[].append)
    for step in (1, 2, 3):
        ours.save(state(step), last=True)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-1", "step-3"]
    needed.clear()
    ours.save(state(4), last=True)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-4"]


def test_a_disk_that_refuses_is_a_warning_unless_it_was_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, said = trainer(), list[str]()
    ours = saver_of(tmp_path, engine, said)
    ours.save(state(1))
    ours.poll(wait=True)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file.os, "fsync", full)
        ours.save(state(2))
        ours.save(state(3))
        with pytest.raises(CheckpointError, match=r"step-4: not written, process 0 failed: .* No space left on device"):
            ours.save(state(4), last=True)
    for step, line in zip((2, 3), said[1:], strict=True):
        assert line.startswith(f"warning: {tmp_path}/checkpoints/step-{step}: not written")
        assert line.endswith("training goes on")
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-1"]
    ours.save(state(5), last=True)
    assert [folder.name for folder in checkpoint.complete(tmp_path)] == ["step-1", "step-5"]


def test_a_fault_in_the_thread_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(saver, "write_slices", broken)
    ours = saver_of(tmp_path, trainer(), [])
    ours.save(state(1))
    with pytest.raises(ZeroDivisionError):
        ours.poll(wait=True)


def test_what_an_engine_gives_to_be_read_is_a_copy() -> None:
    engine = trainer()
    for part in ("weight", "exp_avg", "exp_avg_sq"):
        before = engine.read("weight", part).clone()
        taken = engine.read("weight", part)
        train(engine, 1, 2)
        assert torch.equal(taken, before)
        assert not torch.equal(engine.read("weight", part), before)
