"""An adapter: what LoRA learned beside a bundle's weights, in one small safetensors file.

MATRIX.lora_A [R, in], MATRIX.lora_B [out, R]    for each matrix of each block
header: scale (alpha/rank), base, words          base is the hash of the bundle whose weights it was trained beside
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vpoet.errors import CheckpointError, HashMismatch
from vpoet.nn import lora

SUFFIX = ".safetensors"


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """An adapter in memory, fp32 on the CPU."""

    update: lora.Weights
    """As `vpoet.nn.lora.update` gives it."""
    scale: float
    """How many times the update counts."""
    base: str
    """Hash of the bundle that it belongs to."""
    words: list[str]
    """Those of its captions, as `vpoet.bundle.BundleConfig` has them."""

    def save(self, path: Path) -> None:
        """Write the file whole or not at all; CheckpointError if a weight is not finite."""
        if broken := [name for name, tensor in self.update.items() if not bool(tensor.isfinite().all())]:
            raise CheckpointError(f"{path}: {len(broken)} tensors hold NaN or infinity ({broken[0]} first); not saved")
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"scale": repr(self.scale), "base": self.base, "words": " ".join(self.words)}
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        save_file(self.update, fresh, metadata=header)
        fresh.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Adapter":
        """Read what `save` wrote; CheckpointError if it is something else."""
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                update = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return cls(update, float(header["scale"]), header["base"], header["words"].split())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: adapter not readable: {error}") from None
        except (KeyError, ValueError):
            raise CheckpointError(f"{path}: not an adapter; `vpoet finetune --lora` makes one") from None

    def applied(self, weights: Mapping[str, Tensor], bundle: str, where: str) -> lora.Weights:
        """The weights of the bundle of that hash, updated; HashMismatch if the adapter belongs to another."""
        if self.base != bundle:
            raise HashMismatch(
                f"{where}: the adapter was trained beside the bundle {self.base}, but this bundle is {bundle}; "
                "take the one that it was trained from"
            )
        return lora.merged(weights, self.update, self.scale)
