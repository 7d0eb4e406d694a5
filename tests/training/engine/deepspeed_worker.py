"""One of the processes of test_deepspeed_engine: trains a small module with every ZeRO stage, and tells what it saw."""

import json
import math
import os
import sys
from copy import deepcopy
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.processes import Processes
from vpoet.training.engine.base import Engine, EngineConfig, Part, pack_seeds
from vpoet.training.engine.deepspeed import DeepSpeedEngine
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.shared_memory import FOLDER
from vpoet.training.optim import OptimizerConfig

PACKS = 4
MUON = OptimizerConfig(clip=0.5, lr=1e-2, matrix_lr=2e-2)


class Module(nn.Module):
    """Sizes that no number of processes divides, dropout, and the names of a transformer's inner matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(7, 13), nn.RMSNorm(13), nn.Linear(13, 5)
        wide, tall = nn.Linear(13, 9, bias=False), nn.Linear(9, 13, bias=False)
        self.blocks = nn.ModuleList([wide, tall, nn.Linear(13, 13, bias=False)])
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.to(self.first.weight.dtype)))
        wide, tall, square = self.blocks
        x = x + square(x + tall(wide(x)))
        return self.dropout(self.last(x)).float().square().sum(0)


def main(cases: list[str]) -> dict[str, Any]:
    """``cases`` are STAGE-TYPE, and STAGE-TYPE-offload, -muon or both; each process also trains alone, with plain
    torch."""
    data = torch.randn(9, PACKS, 6, 7, generator=torch.Generator().manual_seed(5))
    told: dict[str, Any] = {}
    ends: dict[str, dict[tuple[str, Part], Tensor]] = {}
    for dtype in ("fp32", "fp16"):
        for optimizer in ("adamw", "muon"):
            if any(dtype in case and ("muon" in case) == (optimizer == "muon") for case in cases):
                alone = engine(-1, dtype, 0, optimizer)
                told[f"alone-{dtype}-{optimizer}"] = run(alone, data, 0, 4) + run(alone, data, 6, 9)
                ends[f"{dtype}-{optimizer}"] = held(alone)
    for case in cases:
        zero, dtype, *options = case.split("-")
        optimizer = "muon" if "muon" in options else "adamw"
        with NamedTemporaryFile("w", suffix=".json") as file:
            offloaded = (
                ["offload_optimizer", "offload_param"][: 2 if zero == "3" else 1] if "offload" in options else []
            )
            json.dump({"zero_optimization": {name: {"device": "cpu"} for name in offloaded}}, file)
            file.flush()
            told[case], end = stage(int(zero), dtype, data, optimizer, file.name)
        if f"{dtype}-{optimizer}" in ends:
            told[case]["apart"] = apart(end, ends[f"{dtype}-{optimizer}"])
    told["accumulated"] = {zero: accumulated(zero) for zero in (1, 2, 3)}
    told["names in shared memory"] = [path.name for path in FOLDER.glob(f"*_{os.environ['MASTER_PORT']}_*")]
    lines = Path("/proc/self/maps").read_text().splitlines()
    told["memories shared"] = len({line for line in lines if "deepspeed_allreduce_buffer" in line})
    Processes.joined().leave()
    return told


def engine(zero: int, dtype: str, seed: int, optimizer: str, further: str = "") -> Engine:
    torch.manual_seed(seed)
    config = EngineConfig(
        name="torch" if zero < 0 else "deepspeed", zero=max(zero, 0), dtype=dtype, timeout=60, deepspeed=further
    )
    settings = MUON if optimizer == "muon" else OptimizerConfig(clip=0.5)
    made: Engine = TorchEngine(Module(), config, settings) if zero < 0 else DeepSpeedEngine(
        Module(), config, settings, lambda world: PACKS // world
    )  # fmt: skip
    made.loss_scale.load({"scale": 256.0, "calm": 0})  # nothing overflows
    return made


def run(trainer: Engine, data: Tensor, first: int, last: int, **options: Any) -> list[tuple[float, float]]:
    curve = []
    for step in range(first, last):
        mine = range(trainer.rank, PACKS, trainer.world)
        outputs, norm = trainer.step(
            [data[step, pack] for pack in mine], lambda output: output.sum() / 24, 1e-2,
            seeds=pack_seeds(0, step, mine), **options,
        )  # fmt: skip
        curve.append((float(outputs.sum()), norm))
    return curve


class Syncs(TorchDispatchMode):
    """Counts how often a tensor's value is asked for, which makes a process wait for its GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def accumulated(zero: int) -> tuple[float, int]:
    """How far the gradient of 64 packs in bf16 is from the sum in fp32 of the packs' own, relative to it; and the waits
    for a GPU that another such step would take.

    With beta1 = 0 AdamW's first state is the gradient that it was given.
    """
    data = torch.randn(64, 6, 7, generator=torch.Generator().manual_seed(6))
    torch.manual_seed(0)
    module, seeds = Module(), pack_seeds(1, 0, range(64))
    alone = deepcopy(module).to(torch.bfloat16)
    config = EngineConfig(name="deepspeed", zero=zero, dtype="bf16", timeout=60)
    trainer = DeepSpeedEngine(module, config, OptimizerConfig(beta1=0.0, clip=1e9), lambda world: 64 // world)
    mine = range(trainer.rank, 64, trainer.world)
    batches = [data[pack] for pack in mine]
    trainer.step(batches, Tensor.sum, 1e-3, seeds=[seeds[pack] for pack in mine])
    wanted = {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in alone.named_parameters()}
    for pack, seed in zip(data, seeds, strict=True):
        torch.manual_seed(seed)
        alone.zero_grad()
        alone(pack).sum().backward()
        for name, weight in alone.named_parameters():
            assert weight.grad is not None
            wanted[name] += weight.grad
    apart = max(float((trainer.read(name, "exp_avg") - w).norm() / w.norm()) for name, w in wanted.items())
    with Syncs() as syncs:
        trainer.step(batches, Tensor.sum, 1e-3)
    return apart, syncs.count


def held(trainer: Engine) -> dict[tuple[str, Part], Tensor]:
    parts: dict[str, tuple[Part, ...]] = {name: ("weight", *states) for name, states in trainer.trained.items()}
    return {(name, part): trainer.read(name, part) for name in trainer.shapes for part in parts[name]}


def same(a: dict[tuple[str, Part], Tensor], b: dict[tuple[str, Part], Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def apart(a: dict[tuple[str, Part], Tensor], b: dict[tuple[str, Part], Tensor]) -> float:
    """How far the weights differ at most, relative to the largest of a tensor."""
    assert a.keys() == b.keys()
    return max(float((a[key] - b[key]).abs().max() / b[key].abs().max()) for key in a if key[1] == "weight")


def stage(
    zero: int, dtype: str, data: Tensor, optimizer: str, further: str
) -> tuple[dict[str, Any], dict[tuple[str, Part], Tensor]]:
    trainer = engine(zero, dtype, 0, optimizer, further)
    told: dict[str, Any] = {"curve": run(trainer, data, 0, 4)}
    before, updates = held(trainer), trainer.updates()

    asked: list[float] = []
    told["refused norm"] = run(trainer, data, 4, 5, accept=lambda outputs, norm: bool(asked.append(norm)))[0][1]
    told["asked"] = asked
    told["refusing changes nothing"] = same(before, held(trainer)) and trainer.updates() == updates

    poison = data.clone()
    poison[5] = math.nan
    met: list[float] = []
    run(trainer, poison, 5, 6, accept=lambda outputs, norm: met.append(norm) or math.isfinite(norm))
    told["nan"] = met
    told["nan changes nothing"] = same(before, held(trainer)) and trainer.updates() == updates

    if dtype == "fp16":
        told["scale after nan"] = trainer.loss_scale.scale
        trainer.loss_scale.load({"scale": 2.0**30, "calm": 7})
        scales: list[float] = []
        told["overflow"] = run(
            trainer, data, 5, 6, accept=lambda outputs, norm: not scales.append(trainer.loss_scale.scale)
        )
        told["overflow changes nothing"] = same(before, held(trainer)) and trainer.updates() == updates
        told["scales"] = [*scales, trainer.loss_scale.scale]
        trainer.loss_scale.load({"scale": 256.0, "calm": 5})
    scaling = trainer.loss_scale.state()

    told["curve"] += run(trainer, data, 6, 9)
    told["updates"] = trainer.updates()
    again = engine(zero, dtype, 1, optimizer, further)
    for (name, part), value in before.items():
        again.write(name, part, value)
    again.set_updates(updates)
    again.loss_scale.load(scaling)
    told["read back"] = same(before, held(again))
    told["resumed"] = run(again, data, 6, 9)
    end = held(trainer)
    told["same at the end"] = same(end, held(again))
    return told, end


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1:])), flush=True)
