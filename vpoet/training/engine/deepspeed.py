"""The DeepSpeed engine: any number of processes, ZeRO stages 0 to 3."""

import contextlib
import functools
import io
import math
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from vpoet.errors import BackendError
from vpoet.nn.initial import Weights
from vpoet.nn.transformer import Block
from vpoet.processes import Processes, own_device, watch
from vpoet.training.engine import shared_memory
from vpoet.training.engine.base import MUON_STATES, STATES, Engine, EngineConfig, Part, Slice, always, finite
from vpoet.training.engine.loss_scale import LossScale
from vpoet.training.engine.settings import settings
from vpoet.training.engine.shared_optimizer import Piece, SharedOptimizer, cut
from vpoet.training.engine.shares import Shares, fill_shared
from vpoet.training.optim import OptimizerConfig, start_states
from vpoet.training.precision import DTYPES, check_dtype

if not torch.cuda.is_available():
    # DeepSpeed would find this out by itself, with a warning from every process
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
from deepspeed.comm.torch import build_shm_op
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)

P = ParamSpec("P")
T = TypeVar("T")

# of DeepSpeed's own calls, once a collective and process
warnings.filterwarnings("ignore", message=r".*torch\.distributed.* is deprecated", category=FutureWarning)


def _in_time(call: Callable[P, T]) -> Callable[P, T]:
    """A method of the engine in the time that processes wait for each other."""

    @functools.wraps(call)
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        engine = args[0]
        assert isinstance(engine, DeepSpeedEngine)
        with watch(engine.processes.timeout):
            return call(*args, **kwargs)

    return watched


class DeepSpeedEngine(Engine):
    """`Engine` by DeepSpeed; started by its launcher, or alone as a world of one."""

    def __init__(
        self,
        module: nn.Module,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        accumulate: Callable[[int], int],
        weights: Weights | None = None,
    ) -> None:
        self.device = own_device("auto")  # first of all: whatever talks of "cuda" from here on means this one
        on_cuda = self.device.type == "cuda"
        self.processes = _start(config.timeout, on_cuda)
        self.micro_batches = accumulate(self.world)
        self.zero = config.zero
        self.shapes = {name: weight.shape for name, weight in module.named_parameters()}  # before they are sharded
        check_dtype(DTYPES[config.dtype], self.device)
        self.loss_scale = LossScale(used=config.dtype == "fp16")
        self._optimizer = SharedOptimizer(module, optimizer, self._allow, self.device)
        self.trained = {
            name: MUON_STATES if name in self._optimizer.matrices else STATES
            for name, weight in module.named_parameters()
            if weight.requires_grad
        }
        told = settings(config, optimizer, self.micro_batches, on_cuda=on_cuda)
        if self.zero == 3:
            for block in module.modules():
                if isinstance(block, Block):
                    block.register_forward_pre_hook(_wants_gradient)
        with watch(config.timeout):
            if weights is not None:  # now that the optimiser has seen shapes, of which stage 3 leaves none
                fill_shared(module, weights, config, told, self.device)
            self.engine, *_ = deepspeed.initialize(model=module, optimizer=self._optimizer, config=told)
        self._weights = dict(self.engine.module.named_parameters())
        self._start_states()
        self._cut_matrices()
        self._shares = Shares(
            self.zero, self.processes, self._weights,
            shapes=self.shapes, trained=self.trained, optimizer=self.engine.optimizer, inner=self._optimizer,
        )  # fmt: skip
        self._question: Callable[[float], bool] = lambda norm: True
        self._answer: bool | None = None

    def _start_states(self) -> None:
        """Make the optimiser's states now, not at its first step: a checkpoint is written into them."""
        groups = self._optimizer.param_groups
        held = [(weight, group["muon"]) for group in groups for weight in group["params"]]
        if self.zero == 3:
            stage = self.engine.optimizer
            held = [
                (flat, groups[stage.sub_group_to_group_id[number]]["muon"])
                for number, flat in enumerate(stage.fp32_partitioned_groups_flat)
            ]
        start_states(self._optimizer, (weight for weight, muon in held if not muon))
        for weight, muon in held:
            if muon:
                self._optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        if self.zero in (1, 2):
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _cut_matrices(self) -> None:
        """Tell the optimiser which pieces of Muon's matrices lie in the flat tensors that DeepSpeed has made."""
        if self.zero == 0:
            return
        found: dict[int, dict[str, Piece]] = {}
        for name in self._optimizer.matrices:
            number, piece = self._piece(name)
            found.setdefault(number, {})[name] = piece
        everyones = self.processes.gather(found)
        flats = [weight for group in self._optimizer.param_groups if group["muon"] for weight in group["params"]]
        if self.zero == 3:
            flats = self.engine.optimizer.fp32_partitioned_groups_flat
        for number in found:
            pieces = [each[number] for each in everyones]
            self._optimizer.cut[flats[number]] = cut(self.shapes, pieces, self.processes)

    def _piece(self, name: str) -> tuple[int, Piece]:
        """The flat tensor, by number, that has part of a matrix in this process, and the part."""
        weight = self._weights[name]
        if self.zero == 3:
            stage = self.engine.optimizer
            number, at, size = stage.grad_position[stage.get_param_id(weight)]
            start = min(self.rank * size, self.shapes[name].numel())
            return number, Piece(start, min(size, self.shapes[name].numel() - start), at)
        held = weight._hp_mapping  # none where it all lies elsewhere
        if held is None:
            return 0, Piece(0, 0, 0)
        here, flat = held.lp_fragment_address, held.hp_fragment_address
        return 0, Piece(here.start, here.numel, flat.start)

    @_in_time
    def step(
        self,
        batches: Sequence[Any],
        objective: Callable[[Tensor], Tensor],
        lr: float,
        *,
        seeds: Sequence[int] | None = None,
        accept: Callable[[Tensor, float], bool] = always,
    ) -> tuple[Tensor, float]:
        assert len(batches) == self.micro_batches
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        if self.loss_scale.used:
            self.engine.optimizer.loss_scale = self.loss_scale.scale
        outputs: list[Tensor] = []
        for number, batch in enumerate(batches):
            if seeds is not None:
                torch.manual_seed(seeds[number])
            output = self.engine(batch)
            # DeepSpeed averages over processes and over the micro-batches of a step; the objective asks for sums
            self.engine.backward(objective(output) * (self.world * self.micro_batches))
            outputs.append(output.detach())
            if number + 1 < len(batches):
                self.engine.step()
        total = torch.stack(outputs).sum(0)
        self.processes.total(total)
        # at stage 0 DeepSpeed tells none, and the step clips the gradients
        norm = finite(self._norm()) if self.zero == 0 else math.inf

        def judge(told: float) -> bool:
            nonlocal norm
            norm = norm if self.zero == 0 else finite(told)
            return accept(total, norm) and math.isfinite(norm)

        self._answer, self._question = None, judge
        self.engine.step()
        if self._answer is None:  # DeepSpeed itself met a gradient that is not finite, and did not ask
            judge(math.inf)
            sums = getattr(self.engine.optimizer, "averaged_gradients", {})  # which it keeps where it offloads
            sums.update(dict.fromkeys(sums))
        self.loss_scale.update(norm)
        return total, norm

    def _allow(self) -> bool:
        """Whether the step is accepted; asked before each group's, and answered once."""
        if self._answer is None:
            self._answer = self._question(
                math.inf if self.zero == 0 else float(self.engine.optimizer._global_grad_norm)
            )
        return self._answer

    def _norm(self) -> float:
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        return float(nn.utils.get_total_norm(gradients))

    @_in_time
    @torch.no_grad()
    def evaluate(self, batch: Any) -> Tensor:
        self.engine.eval()
        output: Tensor = self.engine(batch)
        self.engine.train()
        return output

    def slice_of(self, name: str, part: Part) -> Slice | None:
        return self._shares.slice_of(name, part)

    @_in_time
    @torch.no_grad()
    def refresh(self) -> None:
        self._shares.refresh()

    @_in_time
    @torch.no_grad()
    def read(self, name: str, part: Part) -> Tensor:
        weight = self._weights[name]
        if self.zero == 0:
            held = (weight if part == "weight" else self._optimizer.state[weight][part]).clone()
        elif part != "weight":
            held = safe_get_full_optimizer_state(weight, part)
        elif name in self.trained:
            held = safe_get_full_fp32_param(weight)
        else:
            with self._whole(weight):
                held = weight.detach().clone()
        whole: Tensor = held.detach().float().cpu().reshape(self.shapes[name]).contiguous()
        return whole

    @_in_time
    @torch.no_grad()
    def write(self, name: str, part: Part, value: Tensor) -> None:
        weight = self._weights[name]
        value = value.to(self.device)
        if self.zero == 0 and part != "weight":
            self._optimizer.state[weight][part].copy_(value)
        elif self.zero == 3 and name in self.trained:
            # this process's piece of it; the last one is padded
            piece = weight.ds_tensor.numel()
            flat = nn.functional.pad(value.flatten(), (0, piece * self.world - value.numel()))
            mine = flat.narrow(0, piece * self.rank, piece)
            if part == "weight":
                safe_set_local_fp32_param(weight, mine)
            else:
                safe_set_local_optimizer_state(weight, mine, part)
        elif self.zero and name in self.trained:
            if part == "weight":
                safe_set_full_fp32_param(weight, value)
            else:
                safe_set_full_optimizer_state(weight, value, part)
        if part == "weight":  # and what the forward pass reads, in its own type
            with self._whole(weight):
                weight.data.copy_(value)

    def _whole(self, weight: nn.Parameter) -> contextlib.AbstractContextManager[Any]:
        """A context in which a weight is whole in every process."""
        return (
            deepspeed.zero.GatheredParameters([weight], modifier_rank=0) if self.zero == 3 else contextlib.nullcontext()
        )

    def updates(self) -> int:
        return max((int(state["step"]) for state in self._optimizer.state.values() if "step" in state), default=0)

    def set_updates(self, count: int) -> None:
        for state in self._optimizer.state.values():
            if "step" in state:
                state["step"].fill_(count)


def _wants_gradient(block: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Have a block's input take a gradient even if all before it is frozen (LoRA): stage 3 sends the gradients of the
    block's weights on when that of its input is there."""
    (x_TD,) = inputs
    return (x_TD if x_TD.requires_grad or not torch.is_grad_enabled() else x_TD.detach().requires_grad_(),)


def _start(timeout: float, on_cuda: bool) -> Processes:
    """Join the process group; a process without a launcher is a world of one."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MASTER_PORT", "29500")
    # DeepSpeed builds its CPU communication op with the ninja that pip installed, also where no venv is activated
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    if not on_cuda and shutil.which(os.environ.get("CXX", "c++")) is None:
        raise BackendError(
            "DeepSpeed compiles a communication op on machines without a GPU, with a C++ compiler (apt install g++); "
            "one process trains without it: python train/pretrain.py ... engine.name=torch"
        )
    if not on_cuda and "OMP_NUM_THREADS" not in os.environ:
        # processes that each use every core wait for each other: many times slower than a fair share
        here = int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or 1)
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    with contextlib.redirect_stdout(io.StringIO()):
        build_shm_op()  # which DeepSpeed does itself, but while others may already wait: once, it takes a minute
    if os.environ["LOCAL_RANK"] == "0":
        shared_memory.remove_abandoned()
    with watch(timeout):
        deepspeed.init_distributed(
            dist_backend="nccl" if on_cuda else "gloo", verbose=False, timeout=timedelta(seconds=timeout)
        )
    processes = Processes.joined(timeout)
    processes.gather(None)  # all have the memory open
    shared_memory.remove_name(processes.rank)
    return processes
