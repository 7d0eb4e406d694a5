"""Who sees whom in a pack of documents: the contract between a network and the backends of its attention.

Shapes: T packed tokens, N query heads, K key/value heads (N a multiple of K), H head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Ints
from vpoet.errors import BackendError
from vpoet.sequence.layout import Layout, ends, offsets
from vpoet.sequence.packing import Pack

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
    until: Tensor | None
    """int64 [T], as `vpoet.sequence.layout.ends` gives it."""

    @classmethod
    def of(cls, layout: Layout, flat: Tensor) -> Self:
        """From a copy of the layout's flat array."""
        cu_seqlens, prefixes, prefix_cu_seqlens, in_prefix = (
            layout.part(name, flat) for name in ("cu_seqlens", "prefixes", "prefix_cu_seqlens", "in_prefix")
        )
        until = layout.part("until", flat).long() if "until" in layout.places else None
        return cls(
            cu_seqlens, layout.longest, prefixes, prefix_cu_seqlens, layout.longest_prefix, in_prefix.long(), until
        )


@dataclass(frozen=True, eq=False, slots=True)
class Visibility:
    """Documents laid end to end; each is causal behind a prefix of tokens that see each other both ways, and may have
    a window, behind which its tokens are not seen any more.

    length 5, prefix 2:    ##...        length 3, prefix 0:    #..        until 5 3 4 5 5:    #....
                           ##...                               ##.                            ##...
                           ###..                               ###                            ###..
                           ####.                                                              #.##.
                           #####        a token never sees another document                   #..##
    """

    lengths: tuple[int, ...]
    prefixes: tuple[int, ...]
    until: tuple[Ints | None, ...] | None = None
    """Of each document, [L] for its L tokens: the index in it from which on the token is not seen any more, above its
    own; None: all are seen to the end (`vpoet.sequence.windows`)."""
    laid: Offsets | None = field(default=None, repr=False, kw_only=True)
    """Where they lie, if that is on the device already."""

    def __post_init__(self) -> None:
        assert len(self.lengths) == len(self.prefixes)
        assert all(0 <= p <= n for n, p in zip(self.lengths, self.prefixes, strict=True)), self
        for n, until in zip(self.lengths, self.until or (), strict=self.until is not None):
            assert until is None or (until.shape == (n,) and bool((until > np.arange(n)).all())), (n, until)

    @classmethod
    def of(cls, row: Pack, laid: Offsets | None = None) -> Self:
        return cls(row.lengths, row.prefixes, row.until, laid=laid)

    @property
    def windows(self) -> list[Ints | None]:
        """For each document its ``until`` if that hides anything, else None."""
        each = self.until or (None,) * len(self.lengths)
        return [
            None if until is None or until.min(initial=n) >= n else until
            for n, until in zip(self.lengths, each, strict=True)
        ]

    @property
    def bounds(self) -> list[int]:
        """Where documents start, and where the last one ends."""
        bounds = [0]
        for length in self.lengths:
            bounds.append(bounds[-1] + length)
        return bounds

    @property
    def pairs(self) -> int:
        """How many tokens see how many, as a count of pairs."""
        both_ways = sum(p * (p - 1) // 2 for p in self.prefixes)
        return both_ways + sum(
            n * (n + 1) // 2 if until is None else int((np.minimum(until, n) - np.arange(n)).sum())
            for n, until in zip(self.lengths, self.windows, strict=True)
        )

    def mask(self, device: torch.device | str = "cpu") -> Tensor:
        """Dense [T, T], True where row may see column: the definition, for tests and drawings."""
        document_T, prefix_T = self.per_token(device)
        index_T = torch.arange(len(document_T), device=device)
        return sees(document_T, prefix_T, index_T[:, None], index_T[None, :], self.until_T(device))

    def offsets(self, device: torch.device | str) -> Offsets:
        """Where documents and prefixes lie, on a device."""
        if self.laid is not None:
            return self.laid
        arrays = offsets(self.lengths, self.prefixes)
        moved = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        moved["in_prefix"] = moved["in_prefix"].long()
        until_T = ends(self.lengths, self.until)
        until = None if until_T is None else torch.from_numpy(until_T).to(device).long()
        return Offsets(longest=max(self.lengths), longest_prefix=max(self.prefixes), until=until, **moved)

    def per_token(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """For each token, its document's index, and the index of the token behind that document's prefix."""
        found = self.offsets(device)
        index_T = torch.arange(sum(self.lengths), device=device, dtype=torch.int32)
        document_T = torch.bucketize(index_T, found.cu_seqlens[1:], right=True)
        ends = found.cu_seqlens[:-1] + found.prefixes
        return document_T, ends[document_T]

    def until_T(self, device: torch.device | str) -> Tensor | None:
        """For each token, the index in the pack until which it is seen, not with it; None: no document has a window."""
        return self.offsets(device).until


def sees(document_T: Tensor, prefix_T: Tensor, q: Tensor, k: Tensor, until_T: Tensor | None = None) -> Tensor:
    """Whether tokens of index ``q`` see those of index ``k``, given `Visibility.per_token` and `Visibility.until_T`;
    the two broadcast."""
    both_ways = (q < prefix_T[q]) & (k < prefix_T[q])
    seen = (document_T[q] == document_T[k]) & ((k <= q) | both_ways)
    return seen if until_T is None else seen & (q < until_T[k])


def refuse_windows(visibility: Visibility, name: str) -> None:
    """For backends that have none. BackendError if a document has a window."""
    if any(until is not None for until in visibility.windows):
        raise BackendError(
            f"attention backend {name} has no window with a sink, as data.window asks for; use sdpa, or flex on CUDA"
        )


Backend = Callable[[Visibility, torch.device], Attend]
"""What depends on the pack alone (a block mask, cumulative lengths) is made once, and used by every layer."""
