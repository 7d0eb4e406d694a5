"""Attention of one document with a window and a sink, in pure torch: its cost grows with what is seen, not with the
square of the document.

    keys    sink  frame 0  frame 1  frame 2  frame 3  frame 4        window: 2 frames

    queries of frame 3
    block   ####           ........ ######## ####----                gathered: what any query of the block sees;
    block   ####           ........ ######## ########                within a block a mask says who sees what

Shapes: L tokens of the document, N query heads, K key/value heads, H head size, R queries of a block, S keys gathered
for it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.arrays import Ints, Mask

_SHORTEST = 128
"""Queries of a block at least."""


class Block(NamedTuple):
    """Queries [start, stop) of the document, and what they see."""

    start: int
    stop: int
    keys_S: Ints
    """Indices of the keys that any of them sees."""
    seen_RS: Mask


def blocks(prefix: int, until: Ints, multiple: int = 1) -> Iterator[Block]:
    """Of a document for which ``prefix`` and ``until`` are those of `vpoet.nn.visibility.Visibility`; all but the last
    have as many queries, a multiple of ``multiple``."""
    index = np.arange(len(until))
    seen = int(np.minimum(until, len(until)).sum() - index.sum()) // len(until)  # keys of a query, on average
    # half of that: each block computes a third in vain, and each key is gathered three times
    rows = -(-max(_SHORTEST, seen // 2) // multiple) * multiple
    for start in range(0, len(until), rows):
        stop = min(start + rows, len(until))
        last = max(stop, prefix) if start < prefix else stop
        keys = index[:last][until[:last] > start].astype(np.int32)
        q, k = index[start:stop, None], keys[None]
        yield Block(start, stop, keys, ((k <= q) | ((q < prefix) & (k < prefix))) & (q < until[keys]))


class WindowAttention:
    """What depends on the document alone is made once, for all layers: the keys of each block, and its mask."""

    def __init__(self, prefix: int, until: Ints, device: torch.device) -> None:
        """``prefix`` and ``until`` are those of `vpoet.nn.visibility.Visibility` for one document."""
        found = list(blocks(prefix, until))
        self._rows = [block.stop - block.start for block in found]
        self._counts = [len(block.keys_S) for block in found]
        self._masks = [torch.from_numpy(block.seen_RS).to(device) for block in found]
        self._keys = torch.from_numpy(np.concatenate([block.keys_S for block in found])).to(device)

    def __call__(self, q_1NLH: Tensor, k_1KLH: Tensor, v_1KLH: Tensor) -> Tensor:
        """[1, N, L, H]."""
        # gathered at once: the gradient of each gathering is a whole document
        k_, v_ = (x.index_select(2, self._keys).split_with_sizes(self._counts, dim=2) for x in (k_1KLH, v_1KLH))
        blocks = zip(q_1NLH.split_with_sizes(self._rows, dim=2), k_, v_, self._masks, strict=True)
        grouped = q_1NLH.shape[1] != k_1KLH.shape[1]
        return torch.cat(
            [F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped) for q, k, v, mask in blocks],
            dim=2,
        )
