"""Several processes that each hold the whole model and a share of the batch: gradients are averaged, nothing sharded.

A video tokenizer fits on one device many times over, so this is all it needs; any launcher that sets RANK will do.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vpoet.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda")


class Processes:
    """This process among all of a launcher's; alone without one."""

    def __init__(self, device: str) -> None:
        if device not in DEVICES:
            raise ConfigError(f"device is {device!r}; choose one of {', '.join(DEVICES)}")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if device == "cuda":
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
            torch.cuda.set_device(self.device)  # NCCL gathers objects through the current one
        if "RANK" in os.environ and not dist.is_initialized():
            dist.init_process_group("nccl" if device == "cuda" else "gloo")
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Each gradient becomes its mean over processes; one message for all of them."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.average(flat)
        for gradient, mean in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def average(self, values: Tensor) -> None:
        """Mean over processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every process, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def close(self) -> None:
        """Leave the group, as a process should before it ends."""
        if dist.is_initialized():
            dist.destroy_process_group()
