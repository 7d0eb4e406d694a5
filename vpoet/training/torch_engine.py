"""The engine of one process: plain PyTorch."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vpoet.errors import CheckpointError
from vpoet.training.engine import DTYPES, EngineConfig
from vpoet.training.optim import OptimizerConfig, parameter_groups


class TorchEngine:
    """`Engine` without a launcher: what the others are compared with."""

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
