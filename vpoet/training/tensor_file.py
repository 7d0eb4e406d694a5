"""Safetensors written one tensor at a time and hashed on the way: no more than one tensor is ever in memory.

The library's own writer wants all tensors at once. The layout (https://huggingface.co/docs/safetensors): the header's
length in 8 bytes, the header as JSON with the place of every tensor, and the tensors' bytes in order.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

CHUNK = 1 << 24


class Sink:
    """A file in the making: its bytes and SHA-256 are known when it is closed, and it is on the disk then.

    A disk that refuses is remembered in ``error`` and not raised, and nothing is written any more: in the middle of a
    collective, a process that left would leave the others waiting.
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
        return {"bytes": self._bytes, "sha256": self._hash.hexdigest()}


class TensorFile(Sink):
    """fp32 tensors of the given names and shapes, to be given in this order."""

    def __init__(self, path: Path, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__(path)
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        start = 0
        for name, shape in shapes.items():
            end = start + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self._expected = list(shapes.items())[::-1]
        self.write(len(text).to_bytes(8, "little") + text)

    def add(self, name: str, tensor: Tensor) -> None:
        assert self._expected.pop() == (name, tensor.shape), name
        assert tensor.dtype == torch.float32, tensor.dtype
        if tensor.numel():  # memory views of nothing cannot be cast
            self.write(tensor.detach().cpu().contiguous().numpy().data)


def fingerprint(path: Path) -> dict[str, int | str]:
    """Bytes and SHA-256 of a file, as `Sink.close` gives them; OSError if it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}
