"""What a checkpoint of 50M parameters costs: for how long training stands still, and how long it takes to be there.

``in_step`` is what a save adds to a step, ``waited_for`` a save that is waited for, as all were before they were
written beside training: seconds by the clock and, for the thread that trains, by the processor. The best of three.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from vpoet import config
from vpoet.nn.initial import Weightless, drawn
from vpoet.nn.transformer import Transformer
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.saver import Saver

WIDTH, LAYERS = 1024, 48


def saving(_: float) -> dict[str, Any]:
    """See above."""
    network = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    engine = TorchEngine(network, EngineConfig(name="torch"), OptimizerConfig())
    rows: dict[str, list[dict[str, float]]] = {"in_step": [], "waited_for": []}
    with tempfile.TemporaryDirectory() as folder:
        saver = Saver(Path(folder), engine, keep=1, say=lambda _: None)
        for step in range(6):
            last = bool(step % 2)
            rows["waited_for" if last else "in_step"].append(
                _seconds(lambda: saver.save({"step": step, "hashes": {}}, last=last))  # noqa: B023 (called at once)
            )
            saver.poll(wait=True)
    best = {name: {clock: min(row[clock] for row in each) for clock in each[0]} for name, each in rows.items()}
    return {"parameters": sum(weight.numel() for weight in network.parameters()), **best}


def laying_out(_: float) -> dict[str, Any]:
    """Seconds of the processor to lay out the network of the 8B recipe, and weights of it drawn in one."""
    recipe = config.load(Path(__file__).parents[2] / "train/configs/8b.yaml", PretrainConfig)
    began = time.process_time()
    with Weightless():
        transformer = Transformer(recipe.model, Vocabulary(8192, (256, 256), "", ""))
    laid_out = time.process_time() - began
    with Weightless():
        one = Transformer(replace(recipe.model, depth=1), Vocabulary(8192, (256, 256), "", ""))
    began = time.process_time()
    count = sum(value.numel() for _, value in drawn(one))
    return {
        "parameters": transformer.parameter_count,
        "laid_out": round(laid_out, 3),
        "drawn_per_second": round(count / (time.process_time() - began)),
    }


def _seconds(call: Callable[[], None]) -> dict[str, float]:
    clock, processor = time.perf_counter(), time.thread_time()
    call()
    return {"clock": round(time.perf_counter() - clock, 2), "processor": round(time.thread_time() - processor, 2)}
