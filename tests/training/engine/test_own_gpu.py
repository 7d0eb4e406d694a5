"""DeepSpeed's processes and their GPUs, as far as a machine without any can tell."""

from typing import Any

import pytest
import torch
from torch import nn

from vpoet.training.engine import deepspeed
from vpoet.training.engine.base import EngineConfig
from vpoet.training.optim import OptimizerConfig


class Met(Exception):
    """Where the processes would meet."""


def test_a_process_takes_its_own_gpu_before_it_meets_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL exchanges through the current device, which is that of process 0 until one is set."""
    done: list[Any] = []

    def meet(*arguments: Any) -> None:
        done.append(arguments)
        raise Met

    monkeypatch.setattr(deepspeed, "own_device", lambda name: done.append(name) or torch.device("cuda", 1))
    monkeypatch.setattr(deepspeed, "_start", meet)
    with pytest.raises(Met):
        deepspeed.DeepSpeedEngine(nn.Linear(2, 2), EngineConfig(timeout=7), OptimizerConfig(), lambda world: 1)
    assert done == ["auto", (7, True)]
