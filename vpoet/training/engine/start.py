"""The choice of an engine."""

from collections.abc import Callable

from torch import nn

from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig


def start(
    module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig, accumulate: Callable[[int], int]
) -> Engine:
    """The engine that ``config`` asks for; ``accumulate`` gives the micro-batches of a process, from their number."""
    if config.launched:
        # imported here: DeepSpeed takes seconds to import and needs a compiler, and one process can do without it
        from vpoet.training.engine.deepspeed import DeepSpeedEngine

        return DeepSpeedEngine(module, config, optimizer, accumulate)
    return TorchEngine(module, config, optimizer)
