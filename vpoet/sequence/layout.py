"""What a network reads of a pack, worked out in numpy where the pack is made.

On a GPU every index that is worked out from a pack costs a wait for the device or a launch for each document. Here all
of them are laid out in one flat array, which goes to the device in one copy:

    ids | positions | before | after | kinds | head:text | head:codes | ... | cu_seqlens | prefixes | ...

Lengths: T packed tokens, M predicted ones, D documents, P of them with a prefix.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints, Mask
from vpoet.sequence.controls import ControlCells
from vpoet.sequence.document import FORMS, kinds_of

PAYLOADS = tuple(dict.fromkeys(form.payload for form in FORMS.values()))
"""Ranges whose ids are predicted, each by a head of its own."""


@dataclass(frozen=True, eq=False, slots=True)
class Layout:
    """The arrays of a pack by name, int32 each:

    ids [T], positions [T, 3]
    before, after, kinds [M]    index of the token before each predicted one, the predicted ids, their kinds
    head:PAYLOAD                which of the M are of this range, ascending; for each of `PAYLOADS`
    and those of `offsets`, until [T] of `ends` where a document has a window, and, where one has controls, those of
    `ControlCells`: control_codes, control_strengths (the bits of their fp32), control_near and control_at.
    """

    flat: Ints
    places: dict[str, tuple[int, tuple[int, ...]]]
    """Where in ``flat`` an array begins, and its shape."""
    longest: int
    """Tokens of the longest document."""
    longest_prefix: int
    """Tokens of the longest prefix; 0 where no document has one."""

    def __getitem__(self, name: str) -> Ints:
        array: Ints = self.part(name, self.flat)
        return array

    def including(self, cells: ControlCells) -> "Layout":
        """With a pack's controls behind it."""
        arrays = {"codes": cells.codes, "strengths": cells.strengths.view(np.int32), "near": cells.near, "at": cells.at}
        places, at = dict(self.places), len(self.flat)
        for name, array in arrays.items():
            places[f"control_{name}"] = at, array.shape
            at += array.size
        flat = np.concatenate([self.flat, *(array.reshape(-1) for array in arrays.values())])
        return replace(self, flat=flat, places=places)

    def part(self, name: str, flat: Any) -> Any:
        """The array of this name in ``flat`` or in a copy of it, of numpy's or of torch's."""
        start, shape = self.places[name]
        return flat[start : start + int(np.prod(shape))].reshape(shape)


def lay_out(
    ids: Ints,
    positions: Ints,
    kinds: npt.NDArray[np.uint8],
    targets: Mask,
    lengths: Sequence[int],
    prefixes: Sequence[int],
    until: Sequence[Ints | None] | None = None,
    read: Ints | None = None,
) -> Layout:
    """The layout of a pack of these fields: a few operations of numpy, whatever the number of its documents. ``read``
    [T] is what a network reads in place of ``ids``, of which it predicts what is predicted."""
    (after,) = np.nonzero(targets)
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": ids if read is None else read,
        "positions": positions,
        "before": after - 1,
        "after": ids[after],
        "kinds": kinds[after],
    }
    arrays |= {f"head:{payload}": np.isin(kinds[after], kinds_of(payload)).nonzero()[0] for payload in PAYLOADS}
    arrays |= offsets(lengths, prefixes)
    if (until_T := ends(lengths, until)) is not None:
        arrays["until"] = until_T
    places, at = {}, 0
    for name, array in arrays.items():
        places[name] = at, array.shape
        at += array.size
    flat = np.concatenate([array.reshape(-1).astype(np.int32) for array in arrays.values()])
    return Layout(flat, places, max(lengths), max(prefixes))


def offsets(lengths: Sequence[int], prefixes: Sequence[int]) -> dict[str, Ints]:
    """Where documents and their prefixes lie, as kernels for packs ask for it, int32:

    cu_seqlens [D + 1]          where documents start, and where the last one ends
    prefixes [D]                tokens of each document's prefix
    prefix_cu_seqlens [P + 1]   the same for the prefixes alone, laid end to end; documents without one are left out
    in_prefix                   the indices of their tokens in the pack
    """
    lengths_D, prefixes_D = np.asarray(lengths, np.int32), np.asarray(prefixes, np.int32)
    cu_seqlens = _cumulative(lengths_D)
    prefix_ends_D = prefixes_D.cumsum()
    in_prefix = np.arange(prefix_ends_D[-1]) + np.repeat(cu_seqlens[:-1] - (prefix_ends_D - prefixes_D), prefixes_D)
    return {
        "cu_seqlens": cu_seqlens,
        "prefixes": prefixes_D,
        "prefix_cu_seqlens": _cumulative(prefixes_D[prefixes_D > 0]),
        "in_prefix": in_prefix.astype(np.int32),
    }


def ends(lengths: Sequence[int], until: Sequence[Ints | None] | None) -> Ints | None:
    """For each token [T], the index in the pack until which it is seen, not with it, given `Pack.until`; None: no
    document hides any."""
    if until is None or all(u is None or u.min(initial=n) >= n for n, u in zip(lengths, until, strict=True)):
        return None
    starts = np.cumsum((0, *lengths[:-1])).tolist()
    found = [
        np.full(n, start + n, np.int32) if u is None else start + np.minimum(u, n)
        for n, start, u in zip(lengths, starts, until, strict=True)
    ]
    return np.concatenate(found).astype(np.int32)


def _cumulative(lengths: Ints) -> Ints:
    return np.concatenate(([0], lengths.cumsum())).astype(np.int32)
