"""Training engines: one step of the optimiser over micro-batches, in one process or in many.

Both engines compute the gradient of the *sum* of the objective over all micro-batches of all processes. The caller
divides by the number of predicted tokens of the whole global batch, so the loss is a mean over tokens, never a mean
of means, and does not depend on how many processes share the batch.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vpoet.errors import CheckpointError, ConfigError
from vpoet.training.optim import OptimizerConfig, parameter_groups

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


class TorchEngine:
    """One process, plain PyTorch."""

    rank = 0
    world = 1

    def __init__(self, module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = module.to(self.device).train()
        self.clip = optimizer.clip
        self.dtype = DTYPES[config.dtype]
        self.optimizer = torch.optim.AdamW(
            parameter_groups(module, optimizer), lr=optimizer.lr, betas=(optimizer.beta1, optimizer.beta2), fused=True
        )

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is torch.float32 else torch.autocast(self.device.type, self.dtype)

    def step(self, batches: Sequence[Any], objective: Callable[[Tensor], Tensor], lr: float) -> tuple[Tensor, float]:
        outputs = []
        for batch in batches:
            with self._autocast():
                output = self.module(batch)
                loss = objective(output)
            loss.backward()  # type: ignore[no-untyped-call]
            outputs.append(output.detach())
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        return torch.stack(outputs).sum(0), float(norm)

    @torch.no_grad()
    def evaluate(self, batch: Any) -> Tensor:
        self.module.eval()
        with self._autocast():
            output: Tensor = self.module(batch)
        self.module.train()
        return output

    def total(self, values: Tensor) -> Tensor:
        return values

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().float().cpu().contiguous() for name, p in self.module.state_dict().items()}

    def save(self, folder: Path) -> None:
        # the weights stand in the checkpoint's own model.safetensors, in fp32 and therefore exactly
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")

    def load(self, folder: Path) -> None:
        try:
            self.module.load_state_dict(load_file(folder.parent / "model.safetensors", device=str(self.device)))
            state = torch.load(folder / "optimizer.pt", map_location=self.device, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{folder.parent}: cannot be read: {error}") from None
        self.optimizer.load_state_dict(state)


def engine(
    module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig, accumulate: Callable[[int], int]
) -> Engine:
    """The engine that ``config`` asks for; ``accumulate`` gives the micro-batches of a process, from their number."""
    if config.launched:
        # imported here: DeepSpeed takes seconds to import and needs a compiler, and one process can do without it
        from vpoet.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(module, config, optimizer, accumulate)
    return TorchEngine(module, config, optimizer)
