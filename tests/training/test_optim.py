from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.errors import ConfigError
from vpoet.training import optim
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig, learning_rate, parameter_groups


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    config = OptimizerConfig(lr=1.0, final_lr=0.1, warmup=10)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1.0
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert learning_rate(config, 500, 110) == pytest.approx(0.1)


def test_only_matrices_decay() -> None:
    module = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4), nn.RMSNorm(4))
    decayed, plain = parameter_groups(module, OptimizerConfig(weight_decay=0.3))
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    assert sorted(p.dim() for p in decayed["params"]) == [2, 2]
    assert sorted(p.dim() for p in plain["params"]) == [1, 1]


def test_senseless_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="lr"):
        OptimizerConfig(lr=0)


class Tower(nn.Module):
    """A module with the names of a transformer's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Linear(8, 6, bias=False)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 9, bias=False), nn.RMSNorm(9), nn.Linear(9, 6))])

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x)
        for block in self.blocks:
            x = x + block(x)
        return x.square().sum()


MUON = OptimizerConfig(lr=1e-2, matrix_lr=3e-2, weight_decay=0.2, clip=1e9)


def engine() -> TorchEngine:
    return TorchEngine(Tower(), EngineConfig(), MUON)


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_all_else() -> None:
    """By hand: a matrix decays, and steps 0.2 * sqrt(its longer side) * lr along its orthogonalised momentum."""
    ours, x = engine(), torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    start = Tower()
    start(x).backward()
    ours.step([x], lambda output: output, 5e-3)  # half of the peak
    inside = {"blocks.0.0.weight", "blocks.0.2.weight"}
    for name, weight in start.named_parameters():
        assert weight.grad is not None
        moved = ours.module.get_parameter(name) - weight * (1 - 0.2 * (1.5e-2 if name in inside else 5e-3))
        if name in inside:
            wanted = -1.5e-2 * 0.2 * max(weight.shape) ** 0.5 * orthogonal(weight.grad)
            # Newton-Schulz stops where most singular values lie between 0.7 and 1.2
            alike, raw = (F.cosine_similarity(x.flatten(), wanted.flatten(), dim=0) for x in (moved, -weight.grad))
            assert float(alike.detach()) > 0.88 > float(raw.detach()), name
            assert 0.75 < float((moved.norm() / wanted.norm()).detach()) < 1.2, name
            assert ours.trained[name] == ("momentum_buffer",)
        elif weight.dim() == 2:
            torch.testing.assert_close(moved, -5e-3 * weight.grad.sign())  # AdamW's first step


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose rows or columns are orthonormal."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


@pytest.mark.parametrize("shape", [(40, 24), (24, 40), (24, 24)])
def test_orthogonal_is_the_step_of_torchs_muon_bit_for_bit(shape: tuple[int, int]) -> None:
    """Its rate chosen so that the step is the orthogonal matrix itself; products in fp32 are a rounding away."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    weight = nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16))
    weight.grad = matrix.to(torch.bfloat16)
    rate = 1 / max(1, shape[0] / shape[1]) ** 0.5
    torch.optim.Muon([weight], lr=rate, weight_decay=0.0, momentum=0.0, nesterov=False).step()  # type: ignore[no-untyped-call]
    ours = optim.orthogonal(matrix, torch.bfloat16)
    assert torch.equal(ours, -weight.detach())
    in_fp32 = optim.orthogonal(matrix, torch.float32)
    assert in_fp32.dtype is torch.bfloat16
    assert (in_fp32.float() - ours.float()).norm() < 0.03 * ours.float().norm()


def test_a_run_with_muon_goes_on_from_its_states_bit_for_bit() -> None:
    data = torch.randn(6, 20, 8, generator=torch.Generator().manual_seed(2))
    whole, first, second = engine(), engine(), engine()
    for x in data:
        whole.step([x], lambda output: output, 1e-2)
    for x in data[:3]:
        first.step([x], lambda output: output, 1e-2)
    for name in first.shapes:
        for part in ("weight", *first.trained[name]):
            second.write(name, part, first.read(name, part))
    second.set_updates(first.updates())
    for x in data[3:]:
        second.step([x], lambda output: output, 1e-2)
    for name in whole.shapes:
        for part in ("weight", *whole.trained[name]):
            assert torch.equal(whole.read(name, part), second.read(name, part)), (name, part)
