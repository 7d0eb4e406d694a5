"""The choice of an engine."""

from collections.abc import Callable

from torch import nn

from vpoet.nn.initial import Weights
from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig


def start(
    module: nn.Module,
    config: EngineConfig,
    optimizer: OptimizerConfig,
    accumulate: Callable[[int], int],
    weights: Weights | None = None,
) -> Engine:
    """The engine that ``config`` asks for; ``accumulate`` gives the micro-batches of a process, from their number.

    A module on the meta device takes its ``weights`` from there, one at a time, and each process keeps its share.
    """
    if config.launched:
        # imported here: DeepSpeed takes seconds to import and needs a compiler, and one process can do without it
        from vpoet.training.engine.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(module, config, optimizer, accumulate, weights)
    return TorchEngine(module, config, optimizer, weights)
