"""The choice of an engine."""

from collections.abc import Callable

from torch import nn

from vpoet.training.engine import Engine, EngineConfig
from vpoet.training.optim import OptimizerConfig
from vpoet.training.torch_engine import TorchEngine


def start(
    module: nn.Module, config: EngineConfig, optimizer: OptimizerConfig, accumulate: Callable[[int], int]
) -> Engine:
    """The engine that ``config`` asks for; ``accumulate`` gives the micro-batches of a process, from their number."""
    if config.launched:
        # imported here: DeepSpeed takes seconds to import and needs a compiler, and one process can do without it
        from vpoet.training.deepspeed_engine import DeepSpeedEngine

        return DeepSpeedEngine(module, config, optimizer, accumulate)
    return TorchEngine(module, config, optimizer)
