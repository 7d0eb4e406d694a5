"""The KV cache of a batch of documents, and attention through it.

Shapes: B slots (one for each document), S positions a slot holds, K key/value heads, H head size; N query heads.

Prompts of any lengths are prefilled as one pack, so there is no padding between them; afterwards each step brings one
token to each slot. Writing does not move the cache on: the decode loop calls `advance`, after all layers have
written.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ShapeError
from vpoet.nn.attention import Attend, Visibility


class KVCache:
    """Keys and values [layers, B, K, S, H], allocated once."""

    def __init__(
        self, *, layers: int, slots: int, size: int, kv_heads: int, head: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (layers, slots, kv_heads, size, head)
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.size = size
        self.lengths = [0] * slots
        """Tokens in each slot."""

    def prefill(self, visibility: Visibility, packed: Attend) -> Attend:
        """Attention of a pack whose document i fills slot i from its start; ``packed`` computes the attention."""
        assert len(visibility.lengths) == len(self.lengths)
        assert not any(self.lengths)
        self._check(list(visibility.lengths))
        bounds = visibility.bounds

        def attend(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            for slot, (start, stop) in enumerate(pairwise(bounds)):
                self.k[layer, slot, :, : stop - start] = k_TKH[start:stop].transpose(0, 1)
                self.v[layer, slot, :, : stop - start] = v_TKH[start:stop].transpose(0, 1)
            return packed(layer, q_TNH, k_TKH, v_TKH)

        return attend

    def step(self) -> Attend:
        """Attention of one new token for each slot, in the order of the slots (T = B)."""
        self._check([length + 1 for length in self.lengths])
        device = self.k.device
        slot_B = torch.arange(len(self.lengths), device=device)
        length_B = torch.tensor(self.lengths, device=device)
        longest = max(self.lengths) + 1
        mask = None
        if min(self.lengths) + 1 < longest:
            mask = (torch.arange(longest, device=device) <= length_B[:, None])[:, None, None]

        def attend(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            k, v = self.k[layer], self.v[layer]
            k[slot_B, :, length_B] = k_TKH.to(k.dtype)
            v[slot_B, :, length_B] = v_TKH.to(v.dtype)
            o = F.scaled_dot_product_attention(
                q_TNH[:, :, None],
                k[:, :, :longest],
                v[:, :, :longest],
                attn_mask=mask,
                enable_gqa=q_TNH.shape[1] != k.shape[1],
            )
            return o[:, :, 0]

        return attend

    def advance(self, tokens: list[int]) -> None:
        """Count ``tokens[i]`` more tokens in slot i, once all layers have written them."""
        lengths = [length + n for length, n in zip(self.lengths, tokens, strict=True)]
        self._check(lengths)
        self.lengths = lengths

    def _check(self, lengths: list[int]) -> None:
        for slot, length in enumerate(lengths):
            if length > self.size:
                raise ShapeError(f"the KV cache holds {self.size} tokens a slot; slot {slot} would need {length}")
