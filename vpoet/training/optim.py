"""The optimisers, AdamW with decay on matrices alone and Muon for inner matrices where asked, and a learning rate that
is a pure function of the step."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.errors import ConfigError

MOMENTUM = 0.95
"""Muon's, with Nesterov's step."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW (Decoupled Weight Decay Regularization, algorithm 2) with warm-up and cosine decay."""

    lr: float = 1e-3
    """Peak learning rate."""
    matrix_lr: float = 0.0
    """Peak learning rate of Muon for the matrices of the transformer's blocks; 0: AdamW trains them, too."""
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


def parameter_groups(module: nn.Module, config: OptimizerConfig, but: Iterable[Tensor] = ()) -> list[dict[str, Any]]:
    """Two groups, with and without weight decay, as optimisers take them; ``but`` those that another one trains."""
    others = {id(parameter) for parameter in but}
    parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def adamw_settings(config: OptimizerConfig) -> dict[str, Any]:
    """The same for every engine, so that they differ in nothing but how the work is shared."""
    return {"lr": config.lr, "betas": (config.beta1, config.beta2), "fused": True}


def adamw(module: nn.Module, config: OptimizerConfig, but: Iterable[Tensor] = ()) -> torch.optim.AdamW:
    """AdamW for all weights ``but`` those that another optimiser trains."""
    return torch.optim.AdamW(parameter_groups(module, config, but), **adamw_settings(config))


class Muon(torch.optim.Muon):
    """torch's own by way of `orthogonal`: without arithmetic in bf16 on a CPU torch's takes many times as long, half of
    a small network's step."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.state[weight]
                    if "momentum_buffer" not in state:
                        state["momentum_buffer"] = torch.zeros_like(weight)
                    muon_step(weight, weight.grad, state["momentum_buffer"], group)


def muon(matrices: Iterable[Tensor], lr: float, config: OptimizerConfig) -> Muon:
    """Muon (Jordan et al., 2024) with updates as large as AdamW's: `as_adamw`."""
    return Muon(matrices, lr=lr, weight_decay=config.weight_decay, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")


def muon_step(weight: Tensor, grad: Tensor, momentum: Tensor, group: Mapping[str, Any]) -> None:
    """One step for a whole matrix, in place; ``group`` has its ``lr`` and ``weight_decay``."""
    momentum.lerp_(grad, 1 - MOMENTUM)
    weight.mul_(1 - group["lr"] * group["weight_decay"])
    weight.add_(orthogonal(grad.lerp(momentum, MOMENTUM)), alpha=-group["lr"] * as_adamw(weight.shape))


def as_adamw(shape: torch.Size) -> float:
    """What a matrix' orthogonal update is multiplied with, beside the rate, to be as large as AdamW's would be
    (Liu et al., arXiv:2502.16982, section 2.2)."""
    return 0.2 * math.sqrt(max(shape))


def orthogonal(matrix: Tensor, products: torch.dtype | None = None) -> Tensor:
    """The orthogonal matrix that is nearest to a matrix, about and in bf16: five Newton-Schulz iterations (Jordan et
    al., 2024), bit for bit those inside `torch.optim.Muon`, which keeps them to itself.

    ``products`` is the type that products are computed in before they are rounded to bf16, by default bf16 where the
    device has such arithmetic. A CPU that has none takes 30 times as long for it as for fp32.
    """
    if products is None:
        slow = matrix.device.type == "cpu" and not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        products = torch.float32 if slow else torch.bfloat16
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16).T if tall else matrix.to(torch.bfloat16)
    x = (x / x.norm().clamp(min=1e-7)).to(products)
    for _ in range(5):
        gram = _rounded(x @ x.T)
        polynomial = _rounded(torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315))
        x = _rounded(torch.addmm(x, polynomial, x, beta=3.4445))
    x = x.to(torch.bfloat16)
    return x.T if tall else x


def _rounded(x: Tensor) -> Tensor:
    """Values of bf16 in the type that they came in."""
    return x.to(torch.bfloat16).to(x.dtype)


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
