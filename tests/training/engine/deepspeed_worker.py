"""One of the processes of test_deepspeed_engine: trains a small module with every ZeRO stage, and tells what it saw."""

import json
import math
import os
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch
from torch import Tensor, nn

from vpoet.processes import Processes
from vpoet.training.engine.base import STATES, Engine, EngineConfig, Part, pack_seeds
from vpoet.training.engine.deepspeed import DeepSpeedEngine
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.shared_memory import FOLDER
from vpoet.training.optim import OptimizerConfig

PACKS = 4
PARTS: tuple[Part, ...] = ("weight", *STATES)


class Module(nn.Module):
    """Sizes that no number of processes divides, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(7, 13), nn.RMSNorm(13), nn.Linear(13, 5)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.to(self.first.weight.dtype)))
        return self.dropout(self.last(x)).float().square().sum(0)


def main(cases: list[str]) -> dict[str, Any]:
    """``cases`` are STAGE-TYPE, and STAGE-TYPE-offload; each process also trains alone, with plain torch."""
    data = torch.randn(9, PACKS, 6, 7, generator=torch.Generator().manual_seed(5))
    alone = engine(-1, "fp32", 0)
    told: dict[str, Any] = {"alone": run(alone, data, 0, 4) + run(alone, data, 6, 9)}
    if any(case.endswith("fp16") for case in cases):
        alone = engine(-1, "fp16", 0)
        told["alone in fp16"] = run(alone, data, 0, 4) + run(alone, data, 6, 9)
    for case in cases:
        zero, dtype, *offload = case.split("-")
        with NamedTemporaryFile("w", suffix=".json") as file:
            offloaded = ["offload_optimizer", "offload_param"][: 2 if zero == "3" else 1] if offload else []
            json.dump({"zero_optimization": {name: {"device": "cpu"} for name in offloaded}}, file)
            file.flush()
            told[case] = stage(int(zero), dtype, data, file.name)
    told["names in shared memory"] = [path.name for path in FOLDER.glob(f"*_{os.environ['MASTER_PORT']}_*")]
    lines = Path("/proc/self/maps").read_text().splitlines()
    told["memories shared"] = len({line for line in lines if "deepspeed_allreduce_buffer" in line})
    Processes.joined().leave()
    return told


def engine(zero: int, dtype: str, seed: int, further: str = "") -> Engine:
    torch.manual_seed(seed)
    config = EngineConfig(
        name="torch" if zero < 0 else "deepspeed", zero=max(zero, 0), dtype=dtype, timeout=60, deepspeed=further
    )
    optimizer = OptimizerConfig(clip=0.5)
    made: Engine = TorchEngine(Module(), config, optimizer) if zero < 0 else DeepSpeedEngine(
        Module(), config, optimizer, lambda world: PACKS // world
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


def held(trainer: Engine) -> dict[tuple[str, Part], Tensor]:
    return {(name, part): trainer.read(name, part) for name in trainer.shapes for part in PARTS}


def same(a: dict[tuple[str, Part], Tensor], b: dict[tuple[str, Part], Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def stage(zero: int, dtype: str, data: Tensor, further: str) -> dict[str, Any]:
    trainer = engine(zero, dtype, 0, further)
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
    again = engine(zero, dtype, 1, further)
    for (name, part), value in before.items():
        again.write(name, part, value)
    again.set_updates(updates)
    again.loss_scale.load(scaling)
    told["read back"] = same(before, held(again))
    told["resumed"] = run(again, data, 6, 9)
    told["same at the end"] = same(held(trainer), held(again))
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1:])), flush=True)
