import copy

import pytest
import torch
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.training.engine import start
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig, parameter_groups


class Summed(nn.Sequential):
    """Sums its output over the batch, as the losses do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sum(0)


def module() -> nn.Module:
    torch.manual_seed(0)
    return Summed(nn.Linear(4, 8), nn.RMSNorm(8), nn.Linear(8, 1))


def loss(output: Tensor) -> Tensor:
    return output.square().sum() / 12


def test_a_step_over_micro_batches_is_the_step_over_their_sum() -> None:
    """The engine's steps equal AdamW written out by hand on the whole batch."""
    data = torch.randn(5, 12, 4, generator=torch.Generator().manual_seed(1))
    optimizer = OptimizerConfig(lr=1e-2, clip=0.5)
    ours = TorchEngine(module(), EngineConfig(), optimizer)
    by_hand = module()
    adam = torch.optim.AdamW(parameter_groups(by_hand, optimizer), lr=1e-2, betas=(0.9, 0.95))
    for batch in data:
        _, norm = ours.step(batch.split([3, 7, 2]), lambda output: output.sum() / 12, 1e-2)
        adam.zero_grad()
        (by_hand(batch).sum() / 12).backward()
        expected = nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        adam.step()
        assert norm == pytest.approx(float(expected), rel=1e-5)
    for a, b in zip(ours.module.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_is_the_callers() -> None:
    ours = TorchEngine(module(), EngineConfig(), OptimizerConfig(lr=1.0, weight_decay=0.0))
    before = copy.deepcopy(ours.module.state_dict())
    ours.step([torch.randn(3, 4)], loss, 0.0)
    assert all(torch.equal(before[name], value) for name, value in ours.module.state_dict().items())


def test_evaluation_leaves_no_trace() -> None:
    ours = TorchEngine(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), EngineConfig(), OptimizerConfig())
    x = torch.randn(3, 4)
    state = torch.get_rng_state()
    assert torch.equal(ours.evaluate(x), ours.evaluate(x))
    assert torch.equal(state, torch.get_rng_state())
    assert ours.module.training
    assert all(p.grad is None for p in ours.module.parameters())


def test_bf16_computes_in_bf16_and_keeps_weights_in_fp32() -> None:
    ours = TorchEngine(nn.Linear(4, 2), EngineConfig(dtype="bf16"), OptimizerConfig())
    output, _ = ours.step([torch.randn(3, 4)], lambda output: output.float().square().sum(), 1e-2)
    assert output.dtype is torch.bfloat16
    assert all(p.dtype is torch.float32 for p in ours.module.parameters())


def test_gradients_in_bf16_are_summed_in_fp32_over_64_packs() -> None:
    """As the weights are fp32, and autocast's copies of them hand each pack's gradient on in fp32."""
    data = torch.randn(64, 3, 4, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    begun = Summed(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))
    ours = TorchEngine(copy.deepcopy(begun), EngineConfig(dtype="bf16"), OptimizerConfig(beta1=0.0, clip=1e9))
    ours.step(list(data), lambda output: output.float().square().sum(), 1e-3)
    wanted = {name: torch.zeros_like(weight) for name, weight in begun.named_parameters()}
    for pack in data:
        alone = copy.deepcopy(begun)
        with torch.autocast("cpu", torch.bfloat16):
            alone(pack).float().square().sum().backward()
        for name, weight in alone.named_parameters():
            assert weight.grad is not None
            wanted[name] += weight.grad
    for name, sum_of_packs in wanted.items():
        given = ours.read(name, "exp_avg")  # with beta1 = 0 the gradient itself
        assert (given - sum_of_packs).norm() <= 1e-6 * sum_of_packs.norm(), name


def test_a_process_without_a_launcher_gets_the_torch_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert isinstance(start.start(nn.Linear(2, 2), EngineConfig(), OptimizerConfig(), lambda world: 1), TorchEngine)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"name": "jax"}, "engine.name"), ({"dtype": "fp8"}, "engine.dtype"), ({"zero": 4}, "engine.zero"),
     ({"name": "deepspeed", "zero": 0, "dtype": "bf16"}, "engine.zero=1"),
     ({"name": "deepspeed", "zero": 0, "dtype": "fp16"}, "in fp16; use engine.zero=1")],
)  # fmt: skip
def test_impossible_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        EngineConfig(**settings)  # type: ignore[arg-type]
