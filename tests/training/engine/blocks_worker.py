"""One of the processes of test_stage3_blocks: trains a small transformer whose blocks are run as ZeRO's stage 3 finds
hardest, and tells what it saw and what the compiler did."""

import json
from functools import partial
from typing import Any

import torch
from torch._dynamo.utils import counters
from ulysses_worker import BATCH, CPU, MODEL, WORDS, rows

from vpoet.nn import lora
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.processes import Processes
from vpoet.training.blocks import runner
from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.engine.deepspeed import DeepSpeedEngine
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss, counts
from vpoet.training.optim import OptimizerConfig

CASES: dict[str, dict[str, bool]] = {
    "compiled": {"compiled": True},
    "compiled and checkpointed": {"compiled": True, "checkpointed": True},
    "frozen, compiled": {"compiled": True},
}


def module(frozen: bool, **how: bool) -> PackLoss:
    torch.manual_seed(0)
    transformer = Transformer(MODEL, WORDS)
    if frozen:
        lora.add(transformer, lora.LoraConfig(rank=2))
    return PackLoss(transformer, backend("sdpa", CPU, torch.float32), chunk=48, run=runner(**how))


def run(trainer: Engine) -> list[tuple[float, float]]:
    packs, curve = rows(), []
    total = float(sum(counts(row) for row in packs).sum())
    mine = [PackTensors.of(packs[number], CPU) for number in range(trainer.rank, BATCH, trainer.world)]
    for _ in range(3):
        sums, norm = trainer.step(mine, lambda nats: nats.sum() / total, 1e-2)
        curve.append((float(sums.sum()), norm))
    return curve


def main() -> dict[str, Any]:
    # the same graphs and the same backward pass as always, without the minutes of making fast code of them
    torch.compile = partial(torch.compile, backend="aot_eager")  # type: ignore[assignment]
    told: dict[str, Any] = {}
    for case, how in CASES.items():
        frozen = case.startswith("frozen")
        counters.clear()
        config = EngineConfig(name="deepspeed", zero=3, timeout=100)
        trainer = DeepSpeedEngine(module(frozen, **how), config, OptimizerConfig(), lambda world: BATCH // world)
        told[case] = {"curve": run(trainer)}
        told[case]["breaks"] = sum(counters["graph_break"].values())
        told[case]["graphs"] = counters["stats"]["unique_graphs"]
        told[case]["alone"] = run(TorchEngine(module(frozen), EngineConfig(name="torch"), OptimizerConfig()))
        torch.compiler.reset()
    Processes.joined().leave()
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main()), flush=True)
