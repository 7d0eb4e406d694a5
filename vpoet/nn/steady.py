"""Linear maps that give a token the same bits alone and beside others, as `vpoet.generate.speculate` needs it.

BLAS chooses its kernel by the number of rows, and each kernel adds in another order: MKL's product of one row differs
from the same row among four or more. oneDNN's product with weights that were packed for it adds along each row in one
order, whatever stands beside it. For the few rows of decoding it is the faster one, too.

Shapes: T tokens, I and O features in and out.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_ROWS = 8
"""Rows that weights are packed for; packed for a single one they have a layout that is slower for more."""


class PackedLinear(nn.Module):
    """A bias-free linear map on a CPU, with weights as oneDNN reads them. For decoding alone: it has no gradients."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        assert "bias" not in dict(linear.named_parameters())
        self.weight: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)

    def forward(self, x_TI: Tensor) -> Tensor:
        """[T, O]."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, self.weight, None, "none", [], "")
        return out


def steady(module: M) -> M:
    """The same module with each linear map packed; all else is shared with ``module``, hooks too.

    It takes as much memory again as the maps' weights. A module on a device other than the CPU, or whose weights oneDNN
    does not pack here (bf16, on a CPU without AVX-512), is given back as it is.
    """
    weight = next(module.parameters(), None)
    if weight is None or weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return module
    if weight.dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return module
    twin = copy.copy(module)
    twin.__dict__["_modules"] = {
        name: PackedLinear(child) if isinstance(child, nn.Linear) else child and steady(child)
        for name, child in module._modules.items()
    }
    return twin
