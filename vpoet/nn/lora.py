"""LoRA: updates of low rank beside the frozen matrices of the blocks (Hu et al. 2021, section 4.1).

    x W'^T = x W^T + alpha/rank x A^T B^T        A [R, in] random, B [out, R] zero at the start

peft trains them. What comes of it are tensors, and adding them to the weights needs no peft.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vpoet.errors import BackendError, CheckpointError, ConfigError
from vpoet.nn.initial import Weights, fill
from vpoet.nn.transformer import Transformer

PLACES = r"blocks\.\d+\.(attention\.(qkv|out)|mlp\.(up|out))"
"""Every matrix of every block."""
_A, _B, _NAME = "lora_A", "lora_B", "default"  # peft's words

Tensors = dict[str, Tensor]


@dataclass(kw_only=True)
class LoraConfig:
    """How much can change."""

    rank: int = 8
    """Of each update; a matrix of m by n gets rank * (m + n) weights to train."""
    alpha: float = 16.0
    """The update counts alpha/rank times, so that one learning rate serves every rank."""

    def __post_init__(self) -> None:
        if self.rank < 1 or not self.alpha > 0:
            raise ConfigError(f"lora: rank = {self.rank} and alpha = {self.alpha:g} must be above 0")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def begin(transformer: Transformer, weights: Weights, config: LoraConfig) -> None:
    """Fill a transformer and `add` to it: whole, on the CPU, as peft draws what it adds there and then."""
    fill(transformer, weights, torch.device("cpu"))
    add(transformer, config)


def add(transformer: Transformer, config: LoraConfig) -> None:
    """Freeze the transformer and give its blocks updates to train; its output stays what it was until they are. What
    reads controls is small and may be new: all of it is trained."""
    try:
        import peft  # seconds, and nobody else needs it
    except ImportError:
        raise BackendError("LoRA is trained with peft, which is not installed: pip install 'vpoet[lora]'") from None
    transformer.requires_grad_(False)
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=PLACES)  # type: ignore[arg-type]
    peft.inject_adapter_in_model(settings, transformer, adapter_name=_NAME)
    transformer.controls.requires_grad_(True)


def update(weights: Mapping[str, Tensor]) -> Tensors:
    """What was trained, of the weights of a transformer after `add`: {matrix.lora_A: [R, in], matrix.lora_B: ...}."""
    return {
        name.removesuffix(f".{_NAME}.weight"): weight
        for name, weight in weights.items()
        if name.endswith((f".{_A}.{_NAME}.weight", f".{_B}.{_NAME}.weight"))
    }


def plain(weights: Mapping[str, Tensor]) -> Tensors:
    """The weights without what `add` added, under the names they had before."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in weights.items()
        if not name.endswith(f".{_NAME}.weight")
    }


def merged(weights: Mapping[str, Tensor], update: Mapping[str, Tensor], scale: float) -> Tensors:
    """The weights of a plain transformer with the update added; CheckpointError if it is one of another network."""
    out = dict(weights)
    matrices = sorted(name.removesuffix(f".{_A}") for name in update if name.endswith(f".{_A}"))
    if set(update) != {f"{matrix}.{side}" for matrix in matrices for side in (_A, _B)}:
        raise CheckpointError("not an adapter: its tensors are not pairs of lora_A and lora_B")
    for matrix in matrices:
        name = f"{matrix}.weight"
        A, B = update[f"{matrix}.{_A}"], update[f"{matrix}.{_B}"]
        if name not in out or out[name].shape != (len(B), A.shape[-1]) or B.shape[-1] != len(A):
            raise CheckpointError(f"the adapter's update of {matrix} does not fit this model")
        out[name] = out[name] + scale * (B @ A)
    return out


def trained(weights: Mapping[str, Tensor], config: LoraConfig | None) -> Tensors:
    """The weights of a plain transformer from those of one in training, whose update is added if it has one."""
    return dict(weights) if config is None else merged(plain(weights), update(weights), config.scale)
