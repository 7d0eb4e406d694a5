"""Weights in eight bits: half the bytes of bf16 to read for each token, which is what decoding waits for.

Shapes: T tokens, I and O features in and out.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW = 16
"""Input features of a map are a multiple of it: of others, torch's product reads beyond the end."""


class Int8Linear(nn.Module):
    """A bias-free linear map with int8 weights and a scale for each output (LLM.int8(), arXiv:2208.07339, section 2.1,
    absolute maximum by row); activations stay bf16, sums are fp32. For decoding alone: it has no gradients."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert "bias" not in dict(linear.named_parameters())
        weight_OI = linear.weight.detach().float()
        scale_O = (weight_OI.abs().amax(1) / 127).clamp_min(1e-12)
        self.spare = -weight_OI.shape[1] % ROW
        self.register_buffer("weight", F.pad((weight_OI / scale_O[:, None]).round().to(torch.int8), (0, self.spare)))
        self.register_buffer("scale", scale_O.bfloat16())

    def forward(self, x_TI: Tensor) -> Tensor:
        """[T, O], in bf16 like ``x_TI``."""
        x_TI = F.pad(x_TI, (0, self.spare)) if self.spare else x_TI
        out: Tensor = torch.ops.aten._weight_int8pack_mm(x_TI, self.weight, self.scale)
        return out


def quantise(module: nn.Module) -> None:
    """Replace every linear map inside ``module`` by its `Int8Linear`, and all other weights by bf16 ones; in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child))
        else:
            quantise(child)
    for name, parameter in module.named_parameters(recurse=False):
        setattr(module, name, nn.Parameter(parameter.bfloat16(), requires_grad=False))
