"""Safetensors hashed while they are written, and flushed to the disk; of slices of tensors, read slice by slice.

The library's own writer does neither. The layout (https://huggingface.co/docs/safetensors): the header's length in 8
bytes, the header as JSON with the place of every tensor, and the tensors' bytes in order. A tensor that is a slice of
a larger one is flat, and the header's own ``slices`` say of it where it begins there, and the shape of the whole:

    {"__metadata__": {"slices": "{\"blocks.0.mlp.up.weight\": [4096, 128, 64]}"}, "blocks.0.mlp.up.weight": {...}}
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from vpoet.errors import CheckpointError
from vpoet.training.engine.base import Slice

LONGEST_HEADER = 100_000_000
"""Bytes; the library's own limit."""


class Sink:
    """A file in the making: its bytes and SHA-256 are known when it is closed, and it is on the disk then.

    A disk that refuses is remembered in ``error`` and not raised, and nothing is written any more: the other processes
    have to be told of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: OSError | None = None
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._file: BinaryIO | None = None
        try:
            self._file = path.open("wb", buffering=0)
        except OSError as error:
            self.error = error

    def write(self, data: bytes | memoryview) -> None:
        if self._file is None or self.error is not None:
            return
        rest = memoryview(data).cast("B")
        self._hash.update(rest)
        self._bytes += len(rest)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error

    def close(self) -> dict[str, int | str]:
        """Bring it to the disk; what the manifest says of it."""
        if self._file is not None:
            try:
                if self.error is None:
                    os.fsync(self._file.fileno())
                self._file.close()
            except OSError as error:
                self.error = self.error or error
            self._file = None
        return self.about

    @property
    def about(self) -> dict[str, int | str]:
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}


def write_slices(path: Path, slices: dict[str, Slice]) -> Sink:
    """A closed file of fp32 tensors on the CPU. ``slices`` is empty then: each is let go when it is written."""
    header: dict[str, object] = {}
    parts: dict[str, list[int]] = {}
    start = 0
    for name, own in slices.items():
        assert own.values.dtype == torch.float32, own.values.dtype
        end = start + 4 * own.values.numel()
        shape = own.shape if own.is_whole else own.values.shape
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        if not own.is_whole:
            parts[name] = [own.first, *own.shape]
        start = end
    about = {"format": "pt"} | ({"slices": json.dumps(parts)} if parts else {})
    text = json.dumps({"__metadata__": about} | header).encode()
    text += b" " * (-len(text) % 8)
    sink = Sink(path)
    sink.write(len(text).to_bytes(8, "little") + text)
    for name in list(slices):
        values = slices.pop(name).values
        if values.numel():  # memory views of nothing cannot be cast
            sink.write(values.contiguous().numpy().data)
    sink.close()
    return sink


def write_bytes(path: Path, content: bytes) -> Sink:
    """A closed file of this content."""
    sink = Sink(path)
    sink.write(content)
    sink.close()
    return sink


@dataclass(frozen=True)
class Place:
    """Where a slice of a tensor lies on the disk: ``count`` elements from number ``first`` on, at byte ``start``."""

    path: Path
    first: int
    count: int
    shape: torch.Size
    start: int


def places(path: Path) -> dict[str, Place]:
    """What a file of fp32 tensors holds, by name; of one that the library wrote, too. CheckpointError: it is none."""
    found = {}
    try:
        with path.open("rb", buffering=0) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(file.read(length))
        parts = json.loads(header.pop("__metadata__", {}).get("slices", "{}"))
        size = path.stat().st_size
        for name, about in header.items():
            start, end = about["data_offsets"]
            count = math.prod(about["shape"])
            first, *shape = parts.get(name, [0, *about["shape"]])
            place = Place(path, first, count, torch.Size(shape), 8 + length + start)
            inside = 0 <= start <= end and 8 + length + end <= size and 0 <= first <= place.shape.numel() - count
            if about["dtype"] != "F32" or end - start != 4 * count or not inside:
                raise ValueError(f"{name} is no fp32 tensor in it")
            found[name] = place
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    return found


def read_into(values: Tensor, first: int, held: list[Place]) -> None:
    """Fill flat fp32 ``values`` on the CPU, which are those of a tensor from number ``first`` on, from its slices.

    Reads no byte of the others. CheckpointError: the disk refuses. What no slice has stays as it was (`is_covered`).
    """
    for place in held:
        begin, end = max(first, place.first), min(first + values.numel(), place.first + place.count)
        if begin >= end:
            continue
        try:
            with place.path.open("rb", buffering=0) as file:
                file.seek(place.start + 4 * (begin - place.first))
                rest = values[begin - first : end - first].numpy().data.cast("B")
                while rest:
                    if not (read := file.readinto(rest)):
                        raise OSError("it ends too early")
                    rest = rest[read:]
        except OSError as error:
            raise CheckpointError(f"{place.path}: cannot be read: {error}") from None


def is_covered(held: list[Place]) -> bool:
    """Whether slices of one tensor are all of it, each element once."""
    at = 0
    for place in sorted(held, key=lambda place: place.first):
        if place.first != at:
            return False
        at += place.count
    return at == held[0].shape.numel()
