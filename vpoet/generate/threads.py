"""How many threads a model decodes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from vpoet.nn.transformer import Transformer

SMALL = 10_000_000
"""Parameters of a network below which threads do not pay."""


@contextmanager
def few_threads(network: nn.Module) -> Iterator[None]:
    """One thread while a small network decodes, or draws a few frames, on a CPU: its operations are too short to share,
    and two threads that wait for each other, where something else has a core, are many times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if _small(network) else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def threads_left(transformer: Transformer) -> int:
    """How many pieces of work, each with `few_threads`, are done at once: as many as torch has threads for a model that
    decodes with one, else 1."""
    return torch.get_num_threads() if _small(transformer) else 1


def _small(network: nn.Module) -> bool:
    if isinstance(network, Transformer):  # asked with each pass; and packed weights are no parameters
        return network.parameter_count < SMALL and network.language.weight.device.type == "cpu"
    weights = [*network.parameters()]
    return sum(each.numel() for each in weights) < SMALL and all(each.device.type == "cpu" for each in weights)
