"""What a training engine is: one step of the optimiser over micro-batches, in one process or in many.

Both engines compute the gradient of the *sum* of the objective over all micro-batches of all processes. The caller
divides by the number of predicted tokens of the whole global batch, so the loss is a mean over tokens, never a mean
of means, and does not depend on how many processes share the batch.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from vpoet.errors import ConfigError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(kw_only=True)
class EngineConfig:
    """Where and how the arithmetic is done."""

    name: str = "auto"
    """torch (one process), deepspeed (any number), or auto: deepspeed when a launcher started the process."""
    dtype: str = "fp32"
    """fp32 or bf16; optimiser states and master weights are fp32 in both."""
    zero: int = 1
    """DeepSpeed's ZeRO stage: 0 shares nothing, 1 optimiser states, 2 also gradients, 3 also weights."""
    deepspeed: str = ""
    """A JSON file of further DeepSpeed settings (offloading, buckets, communication); what vpoet sets itself wins."""

    def __post_init__(self) -> None:
        if self.name not in ("auto", "torch", "deepspeed"):
            raise ConfigError(f"engine.name = {self.name!r}: there are auto, torch and deepspeed")
        if self.dtype not in DTYPES:
            raise ConfigError(f"engine.dtype = {self.dtype!r}: there are {' and '.join(DTYPES)}")
        if self.zero not in range(4):
            raise ConfigError(f"engine.zero = {self.zero}: ZeRO has stages 0 to 3")
        if self.zero == 0 and self.dtype == "bf16" and self.launched:
            raise ConfigError("engine.zero = 0 keeps no fp32 master weights in bf16; use engine.zero=1")

    @property
    def launched(self) -> bool:
        """Whether DeepSpeed is to be used."""
        return self.name == "deepspeed" or (self.name == "auto" and "RANK" in os.environ)


class Engine(Protocol):
    """What the training loop needs."""

    rank: int
    world: int
    device: torch.device

    def step(self, batches: Sequence[Any], objective: Callable[[Tensor], Tensor], lr: float) -> tuple[Tensor, float]:
        """Forward and backward over this process's micro-batches, then one optimiser step.

        ``objective`` turns the module's output for a micro-batch into the scalar whose sum over the global batch is
        minimised. Returns the sum of the outputs over this process's micro-batches, and the gradient norm before
        clipping.
        """

    def evaluate(self, batch: Any) -> Tensor:
        """The module's output without gradients, in evaluation mode."""

    def total(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over all processes."""

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""

    def weights(self) -> dict[str, Tensor]:
        """All weights of the module, fp32 on the CPU; every process must call, rank 0 gets them."""

    def save(self, folder: Path) -> None:
        """Write optimiser and weights; every process must call."""

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, exactly."""
