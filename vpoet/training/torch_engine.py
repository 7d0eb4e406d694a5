"""The engine of one process: plain PyTorch."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.training.engine import DTYPES, Engine, EngineConfig, Part, always, check_dtype, finite
from vpoet.training.loss_scale import LossScale
from vpoet.training.optim import OptimizerConfig, adamw, start_states


class TorchEngine(Engine):
    """`Engine` without a launcher: what the others are compared with."""

    rank = 0
    world = 1

    def __init__(self, module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = module.to(self.device).train()
        self.clip = optimizer.clip
        self.dtype = DTYPES[config.dtype]
        check_dtype(self.dtype, self.device)
        self.loss_scale = LossScale(used=self.dtype is torch.float16)
        self.optimizer = adamw(module, optimizer)
        self._weights = dict(module.named_parameters())
        self.shapes = {name: weight.shape for name, weight in self._weights.items()}
        self.trained = frozenset(name for name, weight in self._weights.items() if weight.requires_grad)
        start_states(self.optimizer, (self._weights[name] for name in self.shapes if name in self.trained))

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is torch.float32 else torch.autocast(self.device.type, self.dtype)

    def step(
        self,
        batches: Sequence[Any],
        objective: Callable[[Tensor], Tensor],
        lr: float,
        *,
        seeds: Sequence[int] | None = None,
        accept: Callable[[Tensor, float], bool] = always,
    ) -> tuple[Tensor, float]:
        outputs = []
        for number, batch in enumerate(batches):
            if seeds is not None:
                torch.manual_seed(seeds[number])
            with self._autocast():
                output = self.module(batch)
                loss = objective(output)
            (loss * self.loss_scale.scale).backward()  # type: ignore[no-untyped-call]
            outputs.append(output.detach())
        for name in self.trained:
            # a weight that nothing read decays and keeps its momentum, as it does where gradients lie in one flat piece
            weight = self._weights[name]
            weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            if self.loss_scale.used:
                weight.grad /= self.loss_scale.scale
        total = torch.stack(outputs).sum(0)
        norm = finite(float(nn.utils.clip_grad_norm_(self.module.parameters(), self.clip)))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if accept(total, norm) and math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss_scale.update(norm)
        return total, norm

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

    def read(self, name: str, part: Part) -> Tensor:
        return self._held(name, part).detach().to("cpu", torch.float32, copy=True).contiguous()

    @torch.no_grad()
    def write(self, name: str, part: Part, value: Tensor) -> None:
        self._held(name, part).copy_(value)

    def _held(self, name: str, part: Part) -> Tensor:
        weight = self._weights[name]
        return weight if part == "weight" else self.optimizer.state[weight][part]

    def updates(self) -> int:
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    def set_updates(self, count: int) -> None:
        for state in self.optimizer.state.values():
            state["step"].fill_(count)
