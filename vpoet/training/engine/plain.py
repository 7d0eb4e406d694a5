"""The engine of one process: plain PyTorch."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.nn.initial import Weights, fill
from vpoet.processes import Processes
from vpoet.training.engine.base import MUON_STATES, STATES, Engine, EngineConfig, Part, Slice, always, finite
from vpoet.training.engine.loss_scale import LossScale
from vpoet.training.optim import OptimizerConfig, adamw, block_matrices, muon, start_states
from vpoet.training.precision import DTYPES, check_dtype


class TorchEngine(Engine):
    """`Engine` without a launcher: what the others are compared with."""

    def __init__(
        self, module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig, weights: Weights | None = None
    ) -> None:
        self.processes = Processes()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if weights is not None:
            fill(module, weights, self.device)
        self.module = module.to(self.device).train()
        self.clip = optimizer.clip
        self.dtype = DTYPES[config.dtype]
        check_dtype(self.dtype, self.device)
        self.loss_scale = LossScale(used=self.dtype is torch.float16)
        self._weights = dict(module.named_parameters())
        self.shapes = {name: weight.shape for name, weight in self._weights.items()}
        matrices = block_matrices(self._weights) if optimizer.matrix_lr else {}
        self.trained = {
            name: MUON_STATES if name in matrices else STATES
            for name, weight in self._weights.items()
            if weight.requires_grad
        }
        adam = adamw(module, optimizer, but=matrices.values())
        start_states(adam, (self._weights[name] for name in self.trained if name not in matrices))
        self._optimizers: list[torch.optim.Optimizer] = [adam]
        self._rates = [1.0]
        """Learning rates of each, as multiples of AdamW's."""
        if matrices:
            self._optimizers.append(muon(matrices.values(), optimizer.matrix_lr, optimizer))
            self._rates.append(optimizer.matrix_lr / optimizer.lr)
            for weight in matrices.values():
                self._optimizers[1].state[weight]["momentum_buffer"] = torch.zeros_like(weight)

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
        accepted = accept(total, norm) and math.isfinite(norm)
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * lr
            if accepted:
                optimizer.step()
            optimizer.zero_grad()
        self.loss_scale.update(norm)
        return total, norm

    @torch.no_grad()
    def evaluate(self, batch: Any) -> Tensor:
        self.module.eval()
        with self._autocast():
            output: Tensor = self.module(batch)
        self.module.train()
        return output

    def slice_of(self, name: str, part: Part) -> Slice:
        return Slice(0, self._held(name, part).detach().view(-1), self.shapes[name])

    def refresh(self) -> None:
        pass

    def read(self, name: str, part: Part) -> Tensor:
        return self._held(name, part).detach().to("cpu", torch.float32, copy=True).contiguous()

    @torch.no_grad()
    def write(self, name: str, part: Part, value: Tensor) -> None:
        self._held(name, part).copy_(value)

    def _held(self, name: str, part: Part) -> Tensor:
        weight = self._weights[name]
        if part == "weight":
            return weight
        held: Tensor = next(each.state[weight][part] for each in self._optimizers if weight in each.state)
        return held

    def updates(self) -> int:
        return max((int(state["step"]) for state in self._optimizers[0].state.values()), default=0)

    def set_updates(self, count: int) -> None:
        for state in self._optimizers[0].state.values():
            state["step"].fill_(count)
