"""An adapter: what LoRA learned beside a bundle's weights, in one small safetensors file.

MATRIX.lora_A [R, in], MATRIX.lora_B [out, R]    for each matrix of each block
header: scale (alpha/rank), base, words          base is the hash of the bundle whose weights it was trained beside
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vpoet.errors import CheckpointError, HashMismatch
from vpoet.files import write_atomic
from vpoet.nn import lora
from vpoet.outputs import expect_file

SUFFIX = ".safetensors"


def check_vacant(path: Path) -> None:
    """CheckpointError, OutputError if an adapter can't be written there, as something else is, or nothing can be."""
    expect_file(path)
    if not path.exists() or not path.stat().st_size:
        return
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
    except (OSError, SafetensorError):
        found = {}
    if "scale" not in found:
        raise CheckpointError(f"{path}: exists and is no adapter; choose another name, or remove it yourself")


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """An adapter in memory, fp32 on the CPU."""

    update: lora.Tensors
    """As `vpoet.nn.lora.update` gives it."""
    scale: float
    """How many times the update counts."""
    base: str
    """Hash of the bundle that it belongs to."""
    words: list[str]
    """Those of its captions, as `vpoet.bundle.BundleConfig` has them."""

    def save(self, path: Path) -> None:
        """Write the file whole or not at all. CheckpointError: a weight is not finite; OutputError: no room."""
        if broken := [name for name, tensor in self.update.items() if not bool(tensor.isfinite().all())]:
            raise CheckpointError(f"{path}: {len(broken)} tensors hold NaN or infinity ({broken[0]} first); not saved")
        header = {"scale": repr(self.scale), "base": self.base, "words": " ".join(self.words), "hash": self.hash}
        write_atomic(path, save(self.update, metadata=header))

    @classmethod
    def load(cls, path: Path) -> "Adapter":
        """Read what `save` wrote; CheckpointError if it is something else, was damaged, or is not finite.

        The first adapters carry no hash: of those, damage that leaves numbers behind is not seen.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                update = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            found = cls(update, float(header["scale"]), header["base"], header["words"].split())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: adapter not readable: {error}") from None
        except (KeyError, ValueError):
            raise CheckpointError(f"{path}: not an adapter; `vpoet finetune --lora` makes one") from None
        whole = header.get("hash", found.hash) == found.hash and math.isfinite(found.scale)
        if not whole or not all(bool(tensor.isfinite().all()) for tensor in update.values()):
            raise CheckpointError(f"{path}: the adapter was changed or damaged; copy it again, or export it again")
        return found

    @property
    def hash(self) -> str:
        """16 hex digits of all that it is."""
        digest = hashlib.sha256(f"{self.scale!r} {self.base} {' '.join(self.words)}".encode())
        for name, tensor in sorted(self.update.items()):
            digest.update(f"{name} {list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def applied(self, weights: Mapping[str, Tensor], bundle: str, where: str) -> lora.Tensors:
        """The weights of the bundle of that hash, updated; HashMismatch if the adapter belongs to another."""
        if self.base != bundle:
            raise HashMismatch(
                f"{where}: the adapter was trained beside the bundle {self.base}, but this bundle is {bundle}; "
                "take the one that it was trained from"
            )
        return lora.merged(weights, self.update, self.scale)
