"""A place for each published tensor, a tensor for each place."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from vpoet.errors import CheckpointError
from vpoet.tokenizer.network import Network

SHOWN = 3
"""Names of tensors that an error lists of each kind."""


class Reading(NamedTuple):
    """A tokenizer out of the files that somebody has published."""

    network: Network
    files: list[Path]
    tensors: int
    """That the network took, each in its place."""
    aside: str = ""
    """What else was in the files, and is no part of the network."""


def fill(network: Network, weights: Mapping[str, Tensor], whose: str) -> None:
    """Put the weights in their places, in fp32. CheckpointError naming each tensor that is missing, unknown or of
    another shape; ``whose`` they should be."""
    places = network.state_dict()
    missing, unknown = sorted(places.keys() - weights.keys()), sorted(weights.keys() - places.keys())
    shapes = [
        f"{name} {list(weights[name].shape)} instead of {list(place.shape)}"
        for name, place in places.items()
        if name in weights and weights[name].shape != place.shape
    ]
    if missing or unknown or shapes:
        near = {name: difflib.get_close_matches(name, unknown, n=1, cutoff=0.8) for name in missing[:SHOWN]}
        lost = [f"{name} (is it {other[0]}?)" if other else name for name, other in near.items()]
        faults = (("missing", lost, missing), ("unknown", unknown, unknown), ("of another shape", shapes, shapes))
        told = [f"{len(every)} {what}: {', '.join(some[:SHOWN])}" for what, some, every in faults if every]
        raise CheckpointError(f"not the tensors of {whose}: {'; '.join(told)}")
    network.load_state_dict({name: weights[name].float() for name in places})


class Shapes:
    """The sizes that tell a config: what is missing or has no such axis is a CheckpointError that names it."""

    def __init__(self, tensors: Mapping[str, Tensor], whose: str) -> None:
        self._tensors, self._whose = tensors, whose

    def size(self, name: str, axis: int = 0, axes: int = 5) -> int:
        """Of an axis of a tensor that has so many ``axes``."""
        if name not in self._tensors:
            raise CheckpointError(f"not the tensors of {self._whose}: {name} is missing")
        shape = list(self._tensors[name].shape)
        if len(shape) != axes:
            raise CheckpointError(f"{name} is {shape}; in {self._whose} it has {axes} axes")
        return shape[axis]

    def numbers(self, pattern: str) -> list[int]:
        """The different numbers that the first group of a pattern matches in names, in order."""
        found: set[Any] = {match[1] for name in self._tensors if (match := re.match(pattern, name))}
        return sorted(map(int, found))
