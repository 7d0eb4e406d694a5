"""The DeepSpeed engine: any number of processes, ZeRO stages 0 to 3."""

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.errors import BackendError, CheckpointError, ConfigError
from vpoet.training.engine import EngineConfig
from vpoet.training.optim import OptimizerConfig, parameter_groups

if not torch.cuda.is_available():
    # DeepSpeed would find this out by itself, with a warning from every process
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
import deepspeed.comm as dist
from deepspeed.utils import safe_get_full_fp32_param

# of DeepSpeed's own calls, once a collective and process
warnings.filterwarnings("ignore", message=r".*torch\.distributed.* is deprecated", category=FutureWarning)

_TAG = "engine"


class DeepSpeedEngine:
    """`Engine` by DeepSpeed; started by its launcher, or alone as a world of one."""

    def __init__(
        self, module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig, accumulate: Callable[[int], int]
    ) -> None:
        _start()
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.micro_batches = accumulate(self.world)
        groups = parameter_groups(module, optimizer)
        self.engine, *_ = deepspeed.initialize(
            model=module, model_parameters=groups, config=_settings(config, optimizer, self.micro_batches)
        )
        self.device = torch.device(self.engine.device)
        self.zero = config.zero

    def step(self, batches: Sequence[Any], objective: Callable[[Tensor], Tensor], lr: float) -> tuple[Tensor, float]:
        assert len(batches) == self.micro_batches
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        outputs, norm = [], None
        for batch in batches:
            output = self.engine(batch)
            # DeepSpeed averages over processes and over the micro-batches of a step; the objective asks for sums
            self.engine.backward(objective(output) * (self.world * self.micro_batches))
            if self.zero == 0 and self.engine.is_gradient_accumulation_boundary():
                norm = nn.utils.get_total_norm([p.grad for p in self.engine.module.parameters() if p.grad is not None])
            self.engine.step()
            outputs.append(output.detach())
        norm = self.engine.get_global_grad_norm() if norm is None else norm
        return torch.stack(outputs).sum(0), float(norm)

    @torch.no_grad()
    def evaluate(self, batch: Any) -> Tensor:
        self.engine.eval()
        output: Tensor = self.engine(batch)
        self.engine.train()
        return output

    def total(self, values: Tensor) -> Tensor:
        values = values.to(self.device)
        dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        everyone: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def weights(self) -> dict[str, Tensor]:
        weights = {}
        for name, parameter in self.engine.module.named_parameters():
            full = safe_get_full_fp32_param(parameter)
            full = parameter if full is None else full
            if self.rank == 0:
                weights[name] = (
                    full.detach().float().cpu().reshape(getattr(parameter, "ds_shape", parameter.shape)).clone()
                )
        return weights

    def save(self, folder: Path) -> None:
        self.engine.save_checkpoint(str(folder), tag=_TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        path, _ = self.engine.load_checkpoint(str(folder), tag=_TAG)
        if path is None:
            raise CheckpointError(f"{folder}: DeepSpeed found nothing to load there")


def _start() -> None:
    """Join the process group; a process without a launcher is a world of one."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29500")
    # DeepSpeed builds its CPU communication op with the ninja that pip installed, also where no venv is activated
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    on_cuda = torch.cuda.is_available()
    if not on_cuda and shutil.which(os.environ.get("CXX", "c++")) is None:
        raise BackendError(
            "DeepSpeed compiles a communication op on machines without a GPU, with a C++ compiler (apt install g++); "
            "one process trains without it: python train/pretrain.py ... engine.name=torch"
        )
    if not on_cuda and "OMP_NUM_THREADS" not in os.environ:
        # processes that each use every core wait for each other: many times slower than a fair share
        here = int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    deepspeed.init_distributed(dist_backend="nccl" if on_cuda else "gloo", verbose=False)


def _settings(config: EngineConfig, optimizer: OptimizerConfig, micro_batches: int) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if config.deepspeed:
        try:
            settings = json.loads(Path(config.deepspeed).read_text())
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"engine.deepspeed = {config.deepspeed}: not readable as JSON: {error}") from None
    adam = {
        "lr": optimizer.lr,
        "betas": [optimizer.beta1, optimizer.beta2],
        "weight_decay": optimizer.weight_decay,
        "torch_adam": True,  # DeepSpeed's own Adams are compiled at the first start, for minutes
    }
    return settings | {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": micro_batches,
        "gradient_clipping": optimizer.clip,
        "optimizer": {"type": "AdamW", "params": adam},
        "bf16": {"enabled": config.dtype == "bf16"},
        "zero_optimization": settings.get("zero_optimization", {}) | {"stage": config.zero},
        "steps_per_print": 2**31,
    }
