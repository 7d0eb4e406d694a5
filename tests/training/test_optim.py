from itertools import pairwise

import pytest
from torch import nn

from vpoet.errors import ConfigError
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
