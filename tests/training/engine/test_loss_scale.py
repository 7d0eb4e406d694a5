"""The loss scale of fp16: when it moves, what it changes, and that a checkpoint holds it."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from vpoet.errors import BackendError
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.loss_scale import START, WINDOW, LossScale
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.saver import Saver

needs_fp16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU has no arithmetic in fp16"
)


def test_the_scale_moves_as_that_of_torch() -> None:
    """`torch.amp.GradScaler` over overflows near each other, far apart, and at the end of a window."""
    theirs = torch.amp.GradScaler("cpu", init_scale=START, growth_interval=WINDOW)
    ours = LossScale(used=True)
    weight = nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    overflows = {0, 1, 5, 999, 1005, 2005, 3004, 3006}
    seen = set()
    for step in range(6000):
        norm = math.inf if step in overflows else 1.0
        theirs.scale(weight.detach())
        weight.grad = torch.tensor(norm)
        theirs.unscale_(optimizer)
        theirs.update()
        ours.update(norm)
        assert ours.scale == theirs.get_scale(), step
        seen.add(ours.scale)
    assert len(seen) >= 6


def test_the_scale_never_falls_below_one() -> None:
    scale = LossScale(used=True)
    for _ in range(40):
        scale.update(math.inf)
    assert scale.scale == 1.0


def test_where_it_is_not_used_it_stays_one() -> None:
    scale = LossScale(used=False)
    scale.update(math.inf)
    scale.load({"scale": 8.0, "calm": 3})
    assert (scale.scale, scale.state()) == (1.0, None)


def trainer(dtype: str = "fp16") -> TorchEngine:
    torch.manual_seed(0)
    return TorchEngine(nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)), EngineConfig(dtype=dtype), OptimizerConfig())


def train(engine: TorchEngine, first: int, last: int) -> list[float]:
    data = torch.randn(20, 8, 3, generator=torch.Generator().manual_seed(1))
    return [
        engine.step([data[step]], lambda output: output.float().square().sum() * 10, 1e-2)[1]
        for step in range(first, last)
    ]


@needs_fp16
def test_a_scaled_loss_gives_the_steps_of_an_unscaled_one() -> None:
    ours, exact = trainer(), trainer("fp32")
    ours.loss_scale.load({"scale": 64.0, "calm": 0})
    assert train(ours, 0, 10) == pytest.approx(train(exact, 0, 10), rel=0.01)
    assert ours.loss_scale.state() == {"scale": 64.0, "calm": 10}


@needs_fp16
def test_gradients_that_overflow_are_left_out_until_the_scale_fits() -> None:
    engine = trainer()
    before = engine.read("0.weight", "weight")
    norms = train(engine, 0, 10)
    left = norms.count(math.inf)
    assert 1 <= left <= 8
    assert norms[0] == math.inf
    assert engine.loss_scale.scale == START / 2**left
    assert engine.updates() == 10 - left
    assert not torch.equal(engine.read("0.weight", "weight"), before)


@needs_fp16
def test_the_scale_is_part_of_a_checkpoint(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    train(first, 0, 2)
    assert first.loss_scale.scale < START
    Saver(tmp_path, first, keep=1).save({"step": 2, "hashes": {}}, last=True)
    expected = train(first, 2, 12)
    checkpoint.resume(tmp_path, second, {})
    assert train(second, 2, 12) == expected
    assert second.loss_scale.state() == first.loss_scale.state()
    state = tmp_path / "checkpoints/step-2/state.json"
    assert json.loads(state.read_text())["loss_scale"]["scale"] > first.loss_scale.scale

    full = trainer("fp32")  # another type goes on too
    checkpoint.load(state.parent, full, {})
    assert full.loss_scale.scale == 1.0


def test_a_cpu_without_fp16_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)
    with pytest.raises(BackendError, match=r"engine\.dtype = fp16: this CPU .* use engine\.dtype=bf16"):
        trainer()
