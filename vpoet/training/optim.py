"""The optimisers, AdamW with decay on matrices alone and Muon for inner matrices where asked, and a learning rate that
is a pure function of the step."""

import math
from collections.abc import Iterable, Mapping
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
    matrix_lr: float = 0.0
    """Peak learning rate of Muon for the matrices of the transformer's blocks; 0: AdamW trains them, too. Muon needs
    matrices whole, which DeepSpeed's stages cut: it is for engine.name = torch."""
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
        if not (self.lr > 0 and self.matrix_lr >= 0 and self.clip > 0 and self.warmup >= 0):
            raise ConfigError("optimizer: lr and clip must be above 0, matrix_lr and warmup at least 0")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigError(
                f"optimizer: beta1 = {self.beta1:g} and beta2 = {self.beta2:g} must be 0 or more, below 1"
            )
        for name in ("lr", "matrix_lr", "final_lr", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"optimizer.{name} = {getattr(self, name)}: must be a number, 0 or more")


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


def adamw(module: nn.Module, config: OptimizerConfig, but: Iterable[Tensor] = ()) -> torch.optim.AdamW:
    """The same optimiser for every engine, so that they differ in nothing but how the work is shared; ``but`` those
    that another optimiser trains."""
    others = {id(parameter) for parameter in but}
    groups = parameter_groups(module, config)
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in others]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2), fused=True)


def muon(matrices: Iterable[Tensor], lr: float, config: OptimizerConfig) -> torch.optim.Muon:
    """Muon (Jordan et al., 2024) with updates as large as AdamW's (Liu et al., arXiv:2502.16982, section 2.2)."""
    return torch.optim.Muon(matrices, lr=lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")


def block_matrices(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The matrices of a transformer's blocks that are trained, by name: what Muon is for."""
    inside = {name: weight for name, weight in weights.items() if name.startswith(("blocks.", "transformer.blocks."))}
    return {name: weight for name, weight in inside.items() if weight.dim() == 2 and weight.requires_grad}


def start_states(optimizer: torch.optim.AdamW, parameters: Iterable[Tensor]) -> None:
    """Give ``parameters`` the states that AdamW makes before its first step: a checkpoint can be written into them."""
    for parameter in parameters:
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
