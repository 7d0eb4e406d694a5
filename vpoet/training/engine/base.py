"""What a training engine is: one step of the optimiser over micro-batches, in one process or in many.

Both engines compute the gradient of the *sum* of the objective over all micro-batches of all processes. The caller
divides by the number of predicted tokens of the whole global batch, so the loss is a mean over tokens, never a mean
of means, and does not depend on how many processes share the batch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.processes import Processes, launched
from vpoet.training.engine.loss_scale import LossScale
from vpoet.training.precision import DTYPES

Part = Literal["weight", "exp_avg", "exp_avg_sq", "momentum_buffer"]
STATES: tuple[Part, ...] = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps for each weight, by the names that torch and DeepSpeed share."""
MUON_STATES: tuple[Part, ...] = ("momentum_buffer",)
"""What Muon keeps."""


@dataclass(frozen=True, eq=False, slots=True)
class Slice:
    """Some elements of a tensor in a row, flat: those from number ``first`` on, of a whole of this ``shape``."""

    first: int
    values: Tensor
    shape: torch.Size

    @property
    def is_whole(self) -> bool:
        return self.values.numel() == self.shape.numel()


@dataclass(kw_only=True)
class EngineConfig:
    """Where and how the arithmetic is done."""

    name: str = "auto"
    """torch (one process), deepspeed (any number), or auto: deepspeed when a launcher started the process."""
    dtype: str = "fp32"
    """fp32, bf16, or fp16 with a dynamic loss scale; optimiser states and master weights are fp32 in all."""
    zero: int = 1
    """DeepSpeed's ZeRO stage: 0 shares nothing, 1 optimiser states, 2 also gradients, 3 also weights."""
    deepspeed: str = ""
    """A JSON file of further DeepSpeed settings (offloading, buckets, communication); what vpoet sets itself wins."""
    sequence_parallel: int = 1
    """Processes that share each pack, a piece of its tokens each (DeepSpeed-Ulysses), for packs too long for one. It
    divides data.length, model.heads, model.kv_heads and the number of processes; those of a group follow each other."""
    timeout: float = 600
    """Seconds that a process waits for the others: so long after one dies or is cut off, the rest end with an error.
    Longer than a step takes, and than writing a checkpoint."""

    def __post_init__(self) -> None:
        if self.name not in ("auto", "torch", "deepspeed"):
            raise ConfigError(f"engine.name = {self.name!r}: there are auto, torch and deepspeed")
        if self.dtype not in DTYPES:
            raise ConfigError(f"engine.dtype = {self.dtype!r}: there are fp32, bf16 and fp16")
        if self.zero not in range(4):
            raise ConfigError(f"engine.zero = {self.zero}: ZeRO has stages 0 to 3")
        if self.sequence_parallel < 1:
            raise ConfigError(f"engine.sequence_parallel = {self.sequence_parallel}: 1 process or more share a pack")
        if self.timeout <= 0:
            raise ConfigError(f"engine.timeout = {self.timeout}: seconds above 0")
        if self.zero == 0 and self.dtype != "fp32" and self.launched:
            raise ConfigError(f"engine.zero = 0 keeps no fp32 master weights in {self.dtype}; use engine.zero=1")

    @property
    def launched(self) -> bool:
        """Whether DeepSpeed is to be used."""
        return self.name == "deepspeed" or (self.name == "auto" and launched())


def pack_seeds(seed: int, step: int, packs: Sequence[int]) -> list[int]:
    """A seed for each of a step's packs, by its number in the global batch: a pure function, whoever computes it."""
    return [int(np.random.SeedSequence([seed, step, pack]).generate_state(1, np.uint64)[0]) for pack in packs]


def always(outputs: Tensor, norm: float) -> bool:
    """Accept every step."""
    return True


def finite(norm: float) -> float:
    """A gradient norm with one name for what is none: infinity. DeepSpeed also gives -1."""
    return norm if math.isfinite(norm) and norm >= 0 else math.inf


class Engine(Protocol):
    """What the training loop needs, and what a checkpoint reads and writes: of every tensor a slice in each process."""

    processes: Processes
    device: torch.device
    shapes: dict[str, torch.Size]
    """Every weight of the module by name, with its whole shape; the same order in every process."""
    trained: Mapping[str, tuple[Part, ...]]
    """The weights that are trained, and the states that their optimiser keeps."""
    loss_scale: LossScale
    """In fp16; while ``accept`` is asked that of the step."""

    def step(
        self,
        batches: Sequence[Any],
        objective: Callable[[Tensor], Tensor],
        lr: float,
        *,
        seeds: Sequence[int] | None = None,
        accept: Callable[[Tensor, float], bool] = always,
    ) -> tuple[Tensor, float]:
        """Forward and backward over this process's micro-batches, then one optimiser step.

        ``objective`` turns the module's output for a micro-batch into the scalar whose sum over the global batch is
        minimised. ``seeds`` start the random numbers of each micro-batch: where they name the micro-batch and not the
        process, dropout is the same for any number of processes. Returns the sum of the outputs over all micro-batches
        of all processes, and the gradient norm before clipping (infinite if any gradient is not finite). ``accept`` is
        asked once, with both; if it says no, or the norm is infinite, weights and optimiser stay as they were. It must
        answer alike everywhere, and can: its arguments are the same bits in every process.
        """

    def evaluate(self, batch: Any) -> Tensor:
        """The module's output without gradients, in evaluation mode."""

    def slice_of(self, name: str, part: Part) -> Slice | None:
        """What this process keeps of a tensor in a checkpoint: its own memory, to be read and written there.

        The slices of all processes are the tensor, each element once; in one process it is whole. None: no slice here.
        """

    def refresh(self) -> None:
        """After slices were written: bring the others of this process's copies up to date; every process must call."""

    def read(self, name: str, part: Part) -> Tensor:
        """A copy of one whole tensor, fp32 on the CPU, exactly as the engine holds it; every process must call.

        This and `write` pass every tensor through every process: to look at, and what slices are tested against.
        """

    def write(self, name: str, part: Part, value: Tensor) -> None:
        """The inverse of `read`; every process must call, with the same value."""

    def updates(self) -> int:
        """Steps that the optimiser has taken, which Adam's bias correction counts."""

    def set_updates(self, count: int) -> None:
        """The inverse of `updates`."""

    @property
    def rank(self) -> int:
        return self.processes.rank

    @property
    def world(self) -> int:
        return self.processes.world

    def total(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over all processes."""
        return self.processes.total(values.to(self.device))

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        return self.processes.gather(value)
