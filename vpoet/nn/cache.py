"""The KV cache of a batch of documents, and attention through it.

Shapes: N slots (one for each document), W new tokens a slot, S positions a slot holds, K key/value heads, G query heads
that share one of them, H head size.

Prompts of any lengths are prefilled as one pack, so there is no padding between them; afterwards each step brings one
token to each slot. How many tokens a slot holds is told at each step, not kept here.
"""

import copy
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ShapeError
from vpoet.nn.visibility import Attend, Visibility

BLOCK = 64
"""A step reads whole blocks of so many positions: more would be read in vain, fewer would make every step another."""
TILE = 512
"""Keys that torch's attention on a CPU reads at once. A product over fewer is summed in an order that depends on how
many they are; where all reads are of whole tiles, what a token sees does not depend on how far others read."""
_QUERIES = 4
"""On a CPU, tokens of a slot are brought to a multiple of so many: MKL's kernel for fewer rows adds in another
order."""

HEADS, LANES, TOKENS = (0, 1, 2, 3), (0, 1, 3, 2), (0, 2, 1, 3)
"""How a cache [N, K, S, H] lies in memory, its axes from the slowest on: a head's positions one after the other; the
positions side by side instead of a position's features, as compiled loops read them, a vector of positions at a time;
or the heads of a position side by side, as FlashAttention's kernels read them."""


class KVCache:
    """Keys and values of each layer [N, K, S, H], allocated once; ``size`` is rounded up to whole blocks.

    ``like`` has the device and dtype that they get. ``block``: a step reads whole blocks of so many positions.
    ``order``: how they lie in memory, one of `HEADS`, `LANES` and `TOKENS`.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        size: int,
        kv_heads: int,
        head: int,
        like: Tensor,
        order: tuple[int, ...] = HEADS,
        block: int = BLOCK,
    ) -> None:
        self.size = size
        self.block = block
        shape = [slots, kv_heads, -(-size // block) * block, head]

        def zeros() -> Tensor:
            return like.new_zeros([shape[axis] for axis in order]).permute(order)  # each order is its own inverse

        # a layer's own tensor each: what is written in place must not be a part of what other layers read
        self.keys = [zeros() for _ in range(layers)]
        self.values = [zeros() for _ in range(layers)]
        self._position_S = torch.arange(shape[2], device=like.device)

    def prefill(self, visibility: Visibility, packed: Attend, sources: Sequence[int] | None = None) -> Attend:
        """Attention of a pack of prompts, computed by ``packed``: document ``sources[n]`` fills slot n from its start.

        Several slots may begin with one document, which is then computed once. None: document n fills slot n.
        """
        sources = range(len(visibility.lengths)) if sources is None else sources
        assert len(sources) == len(self.keys[0])
        spans = list(pairwise(visibility.bounds))
        self.check(max(visibility.lengths))

        def attend(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            for slot, document in enumerate(sources):
                start, stop = spans[document]
                self.keys[layer][slot, :, : stop - start] = k_TKH[start:stop].transpose(0, 1)
                self.values[layer][slot, :, : stop - start] = v_TKH[start:stop].transpose(0, 1)
            return packed(layer, q_TNH, k_TKH, v_TKH)

        return attend

    def copy(self) -> "KVCache":
        """The same content, in memory of its own."""
        other = copy.copy(self)
        other.keys, other.values = ([x.clone() for x in held] for held in (self.keys, self.values))
        return other

    def reach(self, longest: int) -> Tensor:
        """The positions of the first blocks that hold ``longest`` tokens, for `attend_step`."""
        self.check(longest)
        return self._position_S[: -(-longest // self.block) * self.block]

    def check(self, longest: int) -> None:
        """ShapeError if a slot cannot hold ``longest`` tokens."""
        if longest > self.size:
            raise ShapeError(f"the KV cache holds {self.size} tokens a slot, and {longest} are needed")


def attend_step(keys: list[Tensor], values: list[Tensor], length_N: Tensor, reach_S: Tensor) -> Attend:
    """Attention of one new token a slot, written behind the ``length_N`` tokens that its slot holds, as products and
    sums: a compiler makes one loop over the cache of them, and without one `attend_ahead` is faster.

    ``reach_S`` are the positions that are read (`KVCache.reach`).
    """
    slot_N = torch.arange(len(length_N), device=length_N.device)
    sees_NS = reach_S <= length_N[:, None]
    stop = reach_S.shape[0]  # not len(): a compiler must see that it changes

    def attend(layer: int, q_NQH: Tensor, k_NKH: Tensor, v_NKH: Tensor) -> Tensor:
        keys_NKSH, values_NKSH = keys[layer], values[layer]
        head_K = torch.arange(k_NKH.shape[1], device=length_N.device)
        where = slot_N[:, None], head_K[None, :], length_N[:, None]
        keys_NKSH.index_put_(where, k_NKH.to(keys_NKSH.dtype))
        values_NKSH.index_put_(where, v_NKH.to(values_NKSH.dtype))
        torch._check(stop <= keys_NKSH.shape[2])  # type: ignore[no-untyped-call]
        keys_NKSH, values_NKSH = keys_NKSH[:, :, :stop], values_NKSH[:, :, :stop]
        q_NKGH = q_NQH.view(*k_NKH.shape[:2], -1, k_NKH.shape[2]).float() * k_NKH.shape[2] ** -0.5
        scores_NKGS = (q_NKGH[:, :, :, None] * keys_NKSH[:, :, None].float()).sum(-1)
        scores_NKGS = scores_NKGS.masked_fill(~sees_NS[:, None, None], -torch.inf)
        # a softmax whose division waits for the sum: one for each feature, not one for each position
        weights_NKGS = (scores_NKGS - scores_NKGS.amax(-1, keepdim=True)).exp()
        o_NKGH: Tensor = (weights_NKGS[..., None] * values_NKSH[:, :, None].float()).sum(3)
        o_NKGH = o_NKGH / weights_NKGS.sum(-1, keepdim=True)
        return o_NKGH.view(q_NQH.shape).to(q_NQH.dtype)

    return attend


def attend_ahead(keys: list[Tensor], values: list[Tensor], place_NW: Tensor, reach_S: Tensor) -> Attend:
    """Attention of W new tokens a slot at once, [N * W, heads, H], slot by slot.

    Each is written to its ``place_NW`` in its slot, over what is there, and sees all up to that place: what lies behind
    the new tokens, left by tokens that were taken back, is never read. ``reach_S`` as in `attend_step`.
    """
    return attend_where(keys, values, place_NW, reach_S <= place_NW[:, :, None])


def attend_where(keys: list[Tensor], values: list[Tensor], place_NW: Tensor, sees_NWS: Tensor) -> Attend:
    """As `attend_ahead`, where a mask says which of the first S positions a token sees, its own included."""
    device, width = place_NW.device, place_NW.shape[1]
    slot_N11 = torch.arange(len(place_NW), device=device)[:, None, None]
    queries = -(-width // _QUERIES) * _QUERIES if device.type == "cpu" else width
    query_Q = torch.arange(queries, device=device).clamp(max=width - 1)  # the last token asks again
    sees_N1QS = (sees_NWS if queries == width else sees_NWS[:, query_Q])[:, None]
    if device.type == "cpu":  # as the kernel would make of it in each layer
        sees_N1QS = torch.zeros((), dtype=keys[0].dtype).where(sees_N1QS, -torch.inf)
    stop = sees_NWS.shape[2]

    def attend(layer: int, q_TQH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        q_NQWH, k_NKWH, v_NKWH = (x.view(*place_NW.shape, *x.shape[1:]).transpose(1, 2) for x in (q_TQH, k_TKH, v_TKH))
        keys_NKSH, values_NKSH = keys[layer], values[layer]
        head_K1 = torch.arange(k_NKWH.shape[1], device=device)[:, None]
        where = slot_N11, head_K1, place_NW[:, None]
        keys_NKSH.index_put_(where, k_NKWH.to(keys_NKSH.dtype))
        values_NKSH.index_put_(where, v_NKWH.to(values_NKSH.dtype))
        o_NQWH = F.scaled_dot_product_attention(
            q_NQWH if queries == width else q_NQWH[:, :, query_Q],
            keys_NKSH[:, :, :stop],
            values_NKSH[:, :, :stop],
            attn_mask=sees_N1QS,
            enable_gqa=q_NQWH.shape[1] != k_NKWH.shape[1],
        )
        return o_NQWH[:, :, :width].transpose(1, 2).flatten(0, 1)

    return attend
