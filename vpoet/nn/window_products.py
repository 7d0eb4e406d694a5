"""Attention of one document with a window and a sink as plain products of matrices, with its backward pass: what
`vpoet.nn.matmul_attention` is to whole documents, for training on a CPU in bf16.

Blocks and their keys are those of `vpoet.nn.window_attention`, filled up to multiples of `_MULTIPLE`: oneDNN keeps the
kernels of every shape that it ever met.

Shapes: L tokens of the document, filled up to blocks of R rows; K key/value heads, G query heads to each, H head size,
S keys of a block.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vpoet.arrays import Ints
from vpoet.nn.window_attention import blocks

_MULTIPLE = 64


class _Block(NamedTuple):
    keys_S: Tensor
    """Indices of the keys; those that only fill up are the first token's."""
    mask_RS: Tensor
    """0 or -inf; rows that only fill up see all."""


class WindowProducts:
    """What depends on the document alone is made once, for all layers."""

    def __init__(self, prefix: int, until: Ints, dtype: torch.dtype, device: torch.device) -> None:
        """``prefix`` and ``until`` as of `vpoet.nn.window_attention.blocks`."""
        found = list(blocks(prefix, until, _MULTIPLE))
        self._length = len(until)
        self._rows = max(_MULTIPLE, -(-(found[0].stop - found[0].start) // _MULTIPLE) * _MULTIPLE)
        self._blocks = []
        for block in found:
            count, rows = len(block.keys_S), block.stop - block.start
            keys = np.zeros(-(-count // _MULTIPLE) * _MULTIPLE, np.int64)
            keys[:count] = block.keys_S
            mask = np.zeros((self._rows, len(keys)), np.float32)
            mask[:, count:] = -np.inf
            mask[:rows, :count][~block.seen_RS] = -np.inf
            self._blocks.append(_Block(torch.from_numpy(keys).to(device), torch.from_numpy(mask).to(device, dtype)))

    def __call__(self, q_LNH: Tensor, k_LKH: Tensor, v_LKH: Tensor) -> Tensor:
        """[L, N, H]."""
        heads, groups = k_LKH.shape[1], q_LNH.shape[1] // k_LKH.shape[1]
        fill = len(self._blocks) * self._rows - self._length
        q_KGLH = F.pad(q_LNH, (0, 0, 0, 0, 0, fill)).view(-1, heads, groups, q_LNH.shape[2]).permute(1, 2, 0, 3)
        out_KGLH = _Products.apply(q_KGLH, k_LKH, v_LKH, self._blocks)  # type: ignore[no-untyped-call]
        out: Tensor = out_KGLH[:, :, : self._length].permute(2, 0, 1, 3).flatten(1, 2)
        return out


class _Products(torch.autograd.Function):
    """Keeps each block's weights for the backward pass: about as many values for each token and head as it sees."""

    @staticmethod
    def forward(ctx: Any, q_KGLH: Tensor, k_LKH: Tensor, v_LKH: Tensor, found: list[_Block]) -> Tensor:
        heads, groups, _, size = q_KGLH.shape
        out_KGLH = torch.empty_like(q_KGLH, memory_format=torch.contiguous_format)
        kept, at = [], 0
        for keys_S, mask_RS in found:
            rows = len(mask_RS)
            q = q_KGLH[:, :, at : at + rows].reshape(heads, groups * rows, size) * size**-0.5
            k, v = (x.index_select(0, keys_S).transpose(0, 1).contiguous() for x in (k_LKH, v_LKH))
            scores = torch.bmm(q, k.transpose(1, 2))
            scores.view(heads, groups, rows, -1).add_(mask_RS)
            weights = scores.softmax(-1)
            out_KGLH[:, :, at : at + rows] = torch.bmm(weights, v).view(heads, groups, rows, size)
            kept += [q, k, v, weights]
            at += rows
        ctx.found, ctx.length = found, len(k_LKH)
        ctx.save_for_backward(*kept)
        return out_KGLH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do_KGLH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        heads, groups, _, size = do_KGLH.shape
        dq_KGLH = torch.empty_like(do_KGLH, memory_format=torch.contiguous_format)
        # in fp32, or the sum would depend on how many blocks see a key
        dk_LKH, dv_LKH = (do_KGLH.new_zeros(ctx.length, heads, size, dtype=torch.float32) for _ in range(2))
        kept, at = list(ctx.saved_tensors), 0
        for number, (keys_S, mask_RS) in enumerate(ctx.found):
            rows, (q, k, v, weights) = len(mask_RS), kept[4 * number : 4 * number + 4]
            do = do_KGLH[:, :, at : at + rows].reshape(heads, groups * rows, size)
            dscores = torch._softmax_backward_data(torch.bmm(do, v.transpose(1, 2)), weights, -1, weights.dtype)
            dq_KGLH[:, :, at : at + rows] = (torch.bmm(dscores, k) * size**-0.5).view(heads, groups, rows, size)
            for sums, part in (
                (dk_LKH, torch.bmm(dscores.transpose(1, 2), q)),
                (dv_LKH, torch.bmm(weights.transpose(1, 2), do)),
            ):
                sums.index_add_(0, keys_S, part.transpose(0, 1).float())
            at += rows
        return dq_KGLH, dk_LKH.to(do_KGLH.dtype), dv_LKH.to(do_KGLH.dtype), None
