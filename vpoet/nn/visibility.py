"""Who sees whom in a pack of documents: the contract between a network and the backends of its attention.

Shapes: T packed tokens, N query heads, K key/value heads (N a multiple of K), H head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from vpoet.sequence.layout import Layout, offsets

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_TNH, k_TKH, v_TKH) -> o_TNH; the layer's index is for caches, packed attention has no use for it."""


class Offsets(NamedTuple):
    """`vpoet.sequence.layout.offsets` on a device: int32, and ``in_prefix`` int64."""

    cu_seqlens: Tensor
    longest: int
    prefixes: Tensor
    prefix_cu_seqlens: Tensor
    longest_prefix: int
    in_prefix: Tensor

    @classmethod
    def of(cls, layout: Layout, flat: Tensor) -> Self:
        """From a copy of the layout's flat array."""
        cu_seqlens, prefixes, prefix_cu_seqlens, in_prefix = (
            layout.part(name, flat) for name in ("cu_seqlens", "prefixes", "prefix_cu_seqlens", "in_prefix")
        )
        return cls(cu_seqlens, layout.longest, prefixes, prefix_cu_seqlens, layout.longest_prefix, in_prefix.long())


@dataclass(frozen=True, slots=True)
class Visibility:
    """Documents laid end to end; each is causal behind a prefix of tokens that see each other both ways.

    length 5, prefix 2:    ##...        length 3, prefix 0:    #..
                           ##...                               ##.
                           ###..                               ###
                           ####.
                           #####        a token never sees another document
    """

    lengths: tuple[int, ...]
    prefixes: tuple[int, ...]
    laid: Offsets | None = field(default=None, compare=False, repr=False, kw_only=True)
    """Where they lie, if that is on the device already."""

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.prefixes)
        assert all(0 <= p <= n for n, p in zip(self.lengths, self.prefixes, strict=True)), self

    @property
    def bounds(self) -> list[int]:
        """Where documents start, and where the last one ends."""
        bounds = [0]
        for length in self.lengths:
            bounds.append(bounds[-1] + length)
        return bounds

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """Dense [T, T], True where row may see column: the definition, for tests and drawings."""
        document_T, prefix_T = self.per_token(device)
        index_T = torch.arange(len(document_T), device=device)
        return sees(document_T, prefix_T, index_T[:, None], index_T[None, :])

    def offsets(self, device: torch.device | str) -> Offsets:
        """Where documents and prefixes lie, on a device."""
        if self.laid is not None:
            return self.laid
        arrays = offsets(self.lengths, self.prefixes)
        moved = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        moved["in_prefix"] = moved["in_prefix"].long()
        return Offsets(longest=max(self.lengths), longest_prefix=max(self.prefixes), **moved)

    def per_token(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """For each token, its document's index, and the index of the token behind that document's prefix."""
        found = self.offsets(device)
        index_T = torch.arange(sum(self.lengths), device=device, dtype=torch.int32)
        document_T = torch.bucketize(index_T, found.cu_seqlens[1:], right=True)
        ends = found.cu_seqlens[:-1] + found.prefixes
        return document_T, ends[document_T]


def sees(document_T: Tensor, prefix_T: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Whether tokens of index ``q`` see those of index ``k``, given `Visibility.per_token`; the two broadcast."""
    both_ways = (q < prefix_T[q]) & (k < prefix_T[q])
    return (document_T[q] == document_T[k]) & ((k <= q) | both_ways)


Backend = Callable[[Visibility, torch.device], Attend]
"""What depends on the pack alone (a block mask, cumulative lengths) is made once, and used by every layer."""
