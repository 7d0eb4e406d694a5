"""Attention over packed documents as plain products of matrices, with its backward pass: for training on a CPU in bf16.

A CPU with units for bf16 products (AMX) does those many times faster than the passes over scores between them, and
PyTorch's fused kernel does its backward pass in fp32. Here documents of about one length are padded to a multiple of 32
and computed together, `ROWS` queries at a time: what lies right of a block of rows is never computed, and the mask
touches the block on the diagonal alone. `python tests/bench attention_products` measures the gain.

Shapes: D documents computed together, N heads, L their padded length, R rows of a block, S keys that they may see,
H head size; P = D * N.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vpoet.nn.visibility import Attend, Visibility
from vpoet.nn.window_products import WindowProducts

ROWS = 384
"""Queries of a block: fewer compute less in vain, and call more often."""
_MULTIPLE = 32
_SCORES = 150_000
"""Documents are computed together up to so many scores a head: all heads' should stay in the cache of a core."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows [start, stop) of documents, which see keys [0, keys); the mask is for keys [masked, keys)."""

    start: int
    stop: int
    keys: int
    masked: int
    mask_DRS: Tensor
    """0 or -inf; D is 1 where no document has a prefix in these rows."""

    def weights(self, q_PLH: Tensor, k_PLH: Tensor) -> Tensor:
        """What each row takes of each key [P, R, S]: rows add up to 1."""
        scores_PRS = torch.bmm(q_PLH[:, self.start : self.stop], k_PLH[:, : self.keys].transpose(1, 2))
        scores_DNRS = scores_PRS.view(len(self.mask_DRS), -1, *scores_PRS.shape[1:])
        scores_DNRS[..., self.masked :] += self.mask_DRS[:, None]
        return scores_PRS.softmax(-1)


@dataclass(frozen=True, slots=True)
class _Group:
    """Documents [start, stop) of the pack that are computed together."""

    spans: tuple[tuple[int, int], ...]
    length: int
    blocks: tuple[_Block, ...]

    def spread(self, x_TNH: Tensor) -> Tensor:
        """The documents' rows of the pack as [P, L, H], zeros behind each."""
        _, heads, size = x_TNH.shape
        x_DNLH = x_TNH.new_empty(len(self.spans), heads, self.length, size)
        for x_NLH, (start, stop) in zip(x_DNLH, self.spans, strict=True):
            x_NLH[:, : stop - start] = x_TNH[start:stop].transpose(0, 1)
            x_NLH[:, stop - start :] = 0
        return x_DNLH.flatten(0, 1)

    def gather(self, x_PLH: Tensor, out_TNH: Tensor) -> None:
        """Inverse of `spread`, into the pack."""
        for x_NLH, (start, stop) in zip(x_PLH.view(len(self.spans), -1, *x_PLH.shape[1:]), self.spans, strict=True):
            out_TNH[start:stop] = x_NLH[:, : stop - start].transpose(0, 1)


class _Products(torch.autograd.Function):
    """Keeps each block's weights for the backward pass: about L * N values for each token and layer."""

    @staticmethod
    def forward(ctx: Any, q_TNH: Tensor, k_TNH: Tensor, v_TNH: Tensor, groups: list[_Group]) -> Tensor:
        out_TNH = torch.empty_like(q_TNH)
        kept = []
        for group in groups:
            q, k, v = (group.spread(x_TNH) for x_TNH in (q_TNH, k_TNH, v_TNH))
            q *= q.shape[-1] ** -0.5
            o = torch.empty_like(q)
            for block in group.blocks:
                weights = block.weights(q, k)
                o[:, block.start : block.stop] = torch.bmm(weights, v[:, : block.keys])
                kept.append(weights)
            kept += [q, k, v]
            group.gather(o, out_TNH)
        ctx.groups = groups
        ctx.save_for_backward(*kept)
        return out_TNH

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do_TNH: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        dq_TNH, dk_TNH, dv_TNH = (torch.empty_like(do_TNH) for _ in range(3))
        kept = list(ctx.saved_tensors)
        for group in reversed(ctx.groups):
            *kept, q, k, v = kept
            do, dq = group.spread(do_TNH), torch.empty_like(q)
            dk, dv = torch.empty(0), torch.empty(0)
            for block in reversed(group.blocks):
                rows, keys, weights = slice(block.start, block.stop), slice(block.keys), kept.pop()
                dweights = torch.bmm(do[:, rows], v[:, keys].transpose(1, 2))
                dscores = torch._softmax_backward_data(dweights, weights, -1, weights.dtype)
                dq[:, rows] = torch.bmm(dscores, k[:, keys])
                dk_block = torch.bmm(dscores.transpose(1, 2), q[:, rows])
                dv_block = torch.bmm(weights.transpose(1, 2), do[:, rows])
                if block is group.blocks[-1]:  # which sees all keys
                    dk, dv = dk_block, dv_block
                else:  # in fp32, or the sum would depend on how many blocks there are
                    dk, dv = dk.float(), dv.float()
                    dk[:, keys] += dk_block
                    dv[:, keys] += dv_block
            dq *= q.shape[-1] ** -0.5
            for x, out_TNH in ((dq, dq_TNH), (dk, dk_TNH), (dv, dv_TNH)):
                group.gather(x, out_TNH)
        return dq_TNH, dk_TNH, dv_TNH, None


def products(visibility: Visibility, device: torch.device) -> Attend:
    """A `Backend` (`vpoet.nn.visibility`)."""
    plans: dict[torch.dtype, list[_Group]] = {}
    windowed = any(until is not None for until in visibility.windows)
    windows: dict[torch.dtype, list[WindowProducts]] = {}

    def attend(_: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        if windowed:
            if q_TNH.dtype not in windows:
                windows[q_TNH.dtype] = [
                    WindowProducts(prefix, np.full(n, n, np.int32) if until is None else until, q_TNH.dtype, device)
                    for n, prefix, until in zip(
                        visibility.lengths, visibility.prefixes, visibility.windows, strict=True
                    )
                ]
            # split and not sliced: the gradient of a slice is a whole pack of zeros, one for each document
            parts = (x.split_with_sizes(list(visibility.lengths)) for x in (q_TNH, k_TKH, v_TKH))
            return torch.cat([one(q, k, v) for one, q, k, v in zip(windows[q_TNH.dtype], *parts, strict=True)])
        if q_TNH.dtype not in plans:
            plans[q_TNH.dtype] = list(_plan(visibility, q_TNH.dtype, device))
        k_TNH, v_TNH = (x.repeat_interleave(q_TNH.shape[1] // x.shape[1], dim=1) for x in (k_TKH, v_TKH))
        out_TNH: Tensor = _Products.apply(q_TNH, k_TNH, v_TNH, plans[q_TNH.dtype])  # type: ignore[no-untyped-call]
        return out_TNH

    return attend


def _plan(visibility: Visibility, dtype: torch.dtype, device: torch.device) -> Iterator[_Group]:
    alike: dict[int, list[int]] = {}
    for document, length in enumerate(visibility.lengths):
        alike.setdefault(-(-length // _MULTIPLE) * _MULTIPLE, []).append(document)
    bounds = visibility.bounds
    for length, documents in alike.items():
        together = max(1, _SCORES // (length * min(length, ROWS)))
        for at in range(0, len(documents), together):
            chosen = documents[at : at + together]
            prefix_D = torch.tensor([visibility.prefixes[d] for d in chosen], device=device)
            blocks = tuple(
                _block(prefix_D, start, min(start + ROWS, length), length, dtype) for start in range(0, length, ROWS)
            )
            yield _Group(tuple((bounds[d], bounds[d + 1]) for d in chosen), length, blocks)


def _block(prefix_D: Tensor, start: int, stop: int, length: int, dtype: torch.dtype) -> _Block:
    longest = int(prefix_D.max())
    if longest > start:
        keys, masked = max(stop, min(length, -(-longest // _MULTIPLE) * _MULTIPLE)), 0
    else:
        keys, masked, prefix_D = stop, start, prefix_D[:1] * 0
    row_R1 = torch.arange(start, stop, device=prefix_D.device)[:, None]
    key_S = torch.arange(masked, keys, device=prefix_D.device)
    prefix_D11 = prefix_D[:, None, None]
    sees_DRS = (key_S <= row_R1) | ((row_R1 < prefix_D11) & (key_S < prefix_D11))
    mask_DRS = torch.zeros(sees_DRS.shape, dtype=dtype, device=prefix_D.device).masked_fill_(~sees_DRS, -torch.inf)
    return _Block(start, stop, keys, masked, mask_DRS)
