"""Tensors out of files that others have written with torch, and nothing else out of them.

A pickle can name any function and have it called. Here none is: a state dict is read by torch's own reader of weights
alone (``weights_only``), and of a TorchScript archive, a zip file with a pickle of its modules beside their code, the
code is left alone, and the pickle is read with five inert stand-ins in place of all that it may name.
"""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import CheckpointError

SCRIPT = "constants.pkl"
"""A part that TorchScript archives have, and files of ``torch.save`` have not."""
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
FOREIGN = re.compile(r"Unsupported (?:global: GLOBAL|class|operand) (\S+)")
"""What torch's reader says of a name that it does not know."""
UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ImportError,
)
"""What a damaged or hostile file makes the readers raise."""


def read_tensors(path: Path, part: str | None = None) -> dict[str, Tensor]:
    """Name to tensor, on the CPU: of a TorchScript archive, or of a state dict, which may be the ``part`` of that name
    in a checkpoint. CheckpointError if it is none of them."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(name.endswith(f"/{SCRIPT}") for name in archive.namelist()):
                    return dict(_walk(_read_script(archive), ""))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        foreign = FOREIGN.search(str(error))
        words = f"it names {foreign[1]}, which no weights need" if foreign else " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: neither a TorchScript archive nor a state dict of tensors alone, or not whole ({words}); "
            "download it again"
        ) from None
    if part is not None and isinstance(state, Mapping):
        state = state.get(part, state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        held = f"a mapping with {', '.join(map(str, list(state)[:5]))}" if isinstance(state, Mapping) else type(state)
        remedy = "give the .jit files" if part is None else f"it has no {part} of tensors alone"
        raise CheckpointError(f"{path}: not a state dict, which maps names to tensors, but {held}; {remedy}")
    return {str(name): value for name, value in state.items()}


def _walk(module: Any, prefix: str) -> Sequence[tuple[str, Tensor]]:
    """The tensors of a module and of those inside it, by their dotted names."""
    found: list[tuple[str, Tensor]] = []
    for name, value in module.inside.items():
        if isinstance(value, Tensor):
            found.append((f"{prefix}{name}", value))
        elif hasattr(value, "inside"):
            found += _walk(value, f"{prefix}{name}.")
    return found


def _read_script(archive: zipfile.ZipFile) -> Any:
    (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1)
    root = listing.removesuffix("data.pkl")

    # Made anew for each file: whatever its pickle does to them, no other file sees.
    class Module:
        """In place of every class of the archive's own code."""

        def __init__(self) -> None:
            self.inside: dict[str, Any] = {}

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.inside = dict(state)

    def tensor(storage: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
        return storage.as_strided(tuple(size), tuple(stride), offset).clone()

    def plain(value: Any, *_: object) -> Any:
        return value

    known = {
        "torch._utils._rebuild_tensor_v2": tensor,
        "collections.OrderedDict": OrderedDict,
        "torch.device": plain,
        **{f"torch.jit._pickle.build_{kind}list": plain for kind in ("int", "double", "bool", "tensor")},
        "torch.jit._pickle.restore_type_tag": plain,
        **{f"torch.{name}": dtype for name, dtype in STORAGES.items()},
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("__torch__"):
                return Module
            if f"{module}.{name}" not in known:
                raise pickle.UnpicklingError(f"it names {module}.{name}, which no archive of weights needs")
            return known[f"{module}.{name}"]

        def persistent_load(self, pid: Any) -> Tensor:
            _, dtype, key, _, _ = pid
            return torch.frombuffer(bytearray(archive.read(f"{root}data/{key}")), dtype=dtype)

    return Reader(io.BytesIO(archive.read(listing))).load()
