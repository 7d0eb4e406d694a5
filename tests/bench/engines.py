"""Plain torch and DeepSpeed's ZeRO stages 0 to 3: how far their losses lie apart, and what a step costs.

Losses: `STEPS` steps of a small model by two processes, whose global batch plain torch also trains on alone; the
largest relative difference of any step. Step times: a model of 10M parameters in one process, where DeepSpeed shares
nothing and so shows what it adds; the engines take turns, and the fastest step of each counts, by the processor's time,
as other work only slows. ``python tests/bench/engines.py losses|times SECONDS`` is one of the processes.
"""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import build
from vpoet.sequence.packing import BestFit, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import Engine, EngineConfig, pack_seeds
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.optim import OptimizerConfig

STEPS = 50
PACKS = 4
"""Of a global batch."""
LENGTH = 1024
"""Tokens of a pack of the large model."""
NAMES = ("torch", "zero0", "zero1", "zero2", "zero3")
SMALL = TransformerConfig(width=64, depth=2, heads=4, kv_heads=4, hidden=176, dropout=0.1)
LARGE = TransformerConfig(width=320, depth=8, heads=5, kv_heads=5, hidden=864)
VOCABULARY = Vocabulary(512, (512, 125), "text", "video")


def training_engines(seconds: float) -> dict[str, Any]:
    """See above."""
    return {**_start("losses", 2, seconds), **_start("times", 1, seconds)}


def _start(what: str, world: int, seconds: float) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = {"WORLD_SIZE": world, "LOCAL_SIZE": world, "MASTER_PORT": port}
    workers = []
    for rank in range(world):
        numbers = {name: str(value) for name, value in {**places, "RANK": rank, "LOCAL_RANK": rank}.items()}
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **numbers, "MASTER_ADDR": "127.0.0.1"}
        command = [sys.executable, str(Path(__file__)), what, str(seconds)]
        workers.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    said = [worker.communicate()[0] for worker in workers]
    if any(worker.returncode for worker in workers):
        raise SystemExit(f"{what}: a process failed, see above")
    line: dict[str, Any] = json.loads(said[0].splitlines()[-1])
    return line


def engine(name: str, model: TransformerConfig, packs: int) -> Engine:
    from vpoet.training.engine.deepspeed import DeepSpeedEngine

    torch.manual_seed(0)
    module = PackLoss(Transformer(model, VOCABULARY), backend("sdpa", torch.device("cpu"), torch.float32))
    if name == "torch":
        return TorchEngine(module, EngineConfig(name="torch"), OptimizerConfig(warmup=0))
    config = EngineConfig(name="deepspeed", zero=int(name.removeprefix("zero")))
    return DeepSpeedEngine(module, config, OptimizerConfig(warmup=0), lambda world: packs // world)


def batches(steps: int, length: int) -> list[list[PackTensors]]:
    """Packs of captioned clips whose codes count up, which can be learnt."""
    random = np.random.default_rng(0)
    fit: BestFit[Any] = BestFit(length, 16)
    made: list[list[PackTensors]] = []
    while len(made) < steps:
        row = []
        while len(row) < PACKS:
            while not fit.full:
                first, t = int(random.integers(64000)), int(random.integers(2, 4))
                codes = (first + np.arange(t * 16).reshape(t, 4, 4)) % 64000
                document = build(TABLE["t2v"].document(Sample(random.integers(0, 512, 8), codes, 8)), VOCABULARY)
                fit.add(len(document), document)
            row.append(PackTensors.of(pack(fit.take(), length), torch.device("cpu")))
        made.append(row)
    return made


def step(trainer: Engine, number: int, packs: list[PackTensors]) -> float:
    mine = range(trainer.rank, PACKS, trainer.world)
    total = sum(len(each.after_M) for each in packs)
    sums, _ = trainer.step(
        [packs[i] for i in mine], lambda nats: nats.sum() / total, 1e-3, seeds=pack_seeds(0, number, mine)
    )
    return float(sums.sum()) / total


def losses(seconds: float) -> dict[str, Any]:
    data = batches(STEPS, 256)
    curves = {}
    for name in NAMES:
        trainer = engine(name, SMALL, PACKS)
        curves[name] = np.array([step(trainer, number, packs) for number, packs in enumerate(data)])
    apart = {name: float((np.abs(curves[name] - curves["torch"]) / curves["torch"]).max()) for name in NAMES[1:]}
    return {
        "steps": STEPS,
        "first_loss": round(float(curves["torch"][0]), 3),
        "last_loss": round(float(curves["torch"][-1]), 3),
        "largest_relative_difference_of_two_processes": {name: f"{value:.1e}" for name, value in apart.items()},
    }


def times(seconds: float) -> dict[str, Any]:
    (packs,) = batches(1, LENGTH)
    trainers = {name: engine(name, LARGE, PACKS) for name in NAMES}
    best = dict.fromkeys(NAMES, float("inf"))
    stop, number = time.perf_counter() + seconds, 0
    while number < 4 or time.perf_counter() < stop:
        for name, trainer in trainers.items():
            began = time.process_time()
            step(trainer, number, packs)
            if number:  # the first one warms up
                best[name] = min(best[name], time.process_time() - began)
        number += 1
    size = sum(shape.numel() for shape in trainers["torch"].shapes.values())
    return {
        "parameters": size, "tokens": PACKS * LENGTH, "rounds": number,
        "cpu_ms_per_step_of_one_process": {name: round(1e3 * value, 1) for name, value in best.items()},
        "over_torch": {name: round(best[name] / best["torch"] - 1, 3) for name in NAMES[1:]},
    }  # fmt: skip


if __name__ == "__main__":
    print("\n" + json.dumps({"losses": losses, "times": times}[sys.argv[1]](float(sys.argv[2]))), flush=True)
