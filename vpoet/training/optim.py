"""The optimiser: AdamW with decay on matrices alone, and a learning rate that is a pure function of the step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.errors import ConfigError


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW (Decoupled Weight Decay Regularization, algorithm 2) with warm-up and cosine decay."""

    lr: float = 1e-3
    """Peak learning rate."""
    final_lr: float = 0.1
    """Learning rate at the last step, as a fraction of the peak."""
    warmup: int = 100
    """Steps of linear rise from zero."""
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    """On matrices and embeddings; norms have none."""
    clip: float = 1.0
    """Largest global gradient norm."""

    def __post_init__(self) -> None:
        if not (self.lr > 0 and self.clip > 0 and self.warmup >= 0):
            raise ConfigError("optimizer: lr and clip must be above 0, and warmup at least 0")


def learning_rate(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of ``step`` (counted from 0) in a run of ``steps``."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    done = (step - config.warmup) / max(1, steps - config.warmup)
    return config.lr * (config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def parameter_groups(module: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Two groups, with and without weight decay, as optimisers take them."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def adamw(module: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """The same optimiser for every engine, so that they differ in nothing but how the work is shared."""
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(parameter_groups(module, config), lr=config.lr, betas=betas, fused=True)


def start_states(optimizer: torch.optim.AdamW, parameters: Iterable[Tensor]) -> None:
    """Give ``parameters`` the states that AdamW makes before its first step: a checkpoint can be written into them."""
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
