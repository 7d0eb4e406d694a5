"""Safetensors hashed while they are written, and flushed to the disk.

The library's own writer does neither. The layout (https://huggingface.co/docs/safetensors): the header's length in 8
bytes, the header as JSON with the place of every tensor, and the tensors' bytes in order.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor


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


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> Sink:
    """A closed file of fp32 tensors on the CPU. ``tensors`` is empty then: each is let go when it is written."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float32, tensor.dtype
        end = start + 4 * tensor.numel()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    sink = Sink(path)
    sink.write(len(text).to_bytes(8, "little") + text)
    for name in list(tensors):
        tensor = tensors.pop(name)
        if tensor.numel():  # memory views of nothing cannot be cast
            sink.write(tensor.contiguous().numpy().data)
    sink.close()
    return sink


def write_bytes(path: Path, content: bytes) -> Sink:
    """A closed file of this content."""
    sink = Sink(path)
    sink.write(content)
    sink.close()
    return sink
