"""How many threads a model decodes with."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from vpoet.nn.transformer import Transformer

SMALL = 10_000_000
"""Parameters of a model below which threads do not pay."""


@contextmanager
def few_threads(transformer: Transformer) -> Iterator[None]:
    """One thread while a small model decodes on a CPU: its operations are too short to share, and two threads that wait
    for each other, where something else has a core, are many times slower."""
    threads = torch.get_num_threads()
    small = transformer.parameter_count < SMALL and transformer.language.weight.device.type == "cpu"
    torch.set_num_threads(1 if small else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
