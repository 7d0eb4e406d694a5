"""Which pairs of clips are laid over each other: those that are near, by embeddings or perceptual hashes, and whose
mean pictures are alike. The answer is that of asking every pair, and few are asked.

All pairs go through one cheap question, a tile at a time: of hashes it is the answer, of embeddings a product of
matrices that is a bound. Turned to their principal axes, of two unit vectors a few first coordinates p and the length r
of what is left are kept, and a.b <= p_a.p_b + r_a r_b (Cauchy and Schwarz). In the same way the mean pictures of pairs
that may be near are compared by their lowest frequencies, in all ways in which one may lie over the other. Bounds let
through a little more than they need to, so that no rounding (other libraries, threads, tiles) changes the answer;
whether a pair is near is then worked out for itself, whether its clips may be alike is left to
`vpoet.data.curate.bounds`, and whether they are to `vpoet.data.curate.duplicates.likeness`.

Shapes: N clips, P pairs, K thumbnails, h = w = `SIDE`, D of an embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Floats, Longs, Mask
from vpoet.data.curate.bounds import may_be_alike
from vpoet.data.curate.clip_measures import SIDE
from vpoet.data.curate.thumbnails import CROP, FIRST_LOOK, ROUNDING, Thumbnails, shown, shrunk, windows_of

NEAR = 0.4
"""The least cosine of two embeddings, less their mean over all clips, of a pair that is looked at."""
NEAR_BITS = 14
"""Bits of 64 at most in which two frames' hashes differ, of a pair that is looked at."""
FEW = 1 << 14
"""Up to so many clips, principal axes are not worth finding; they are found from so many."""
LEFT, AXES = 0.05, 32
"""Of the square of a vector, the mean share that may lie off the axes; there are a multiple of `AXES`."""
WAVES = 5
"""Frequencies each way of a mean picture that are kept."""
EVEN = 32.0
"""The length, in grey levels, of a picture less its mean: one that is shorter shows nothing."""
_ROWS, _COLUMNS = 512, 2048
_PAIRS = 128
"""Tiles of the product, and pairs that are looked at together: what fits into caches."""


class Rows:
    """Some rows of an array on disk or in memory, read when they are asked for."""

    def __init__(self, array: npt.NDArray[Any], places: Sequence[int] | Longs) -> None:
        self._array, self._places = array, np.asarray(places, np.int64)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._array[self._places[at]]
        return found


def pairs(
    thumbnails: Thumbnails | Rows, vectors: Floats | Rows | None, hashes: Sequence[Sequence[str]], copy_of: Longs,
    least: float,
) -> Iterator[list[int]]:  # fmt: skip
    """For each clip in turn the ones before it that it may be a copy of, in order.

    ``copy_of`` is what has been found meanwhile: a clip that is itself another's copy is not asked about any more.
    """
    near: _Near = _Embeddings(vectors) if vectors is not None else _Hashes(hashes)
    pictures = _Sketches(thumbnails)

    def alike(one: Longs, other: Longs) -> Mask:
        ways_P3 = pictures.ways(one, other)
        found = np.zeros(len(one), np.bool_)
        some = np.flatnonzero(ways_P3.any(1))
        some = some[near.holds(one[some], other[some])]
        found[some] = may_be_alike(thumbnails[one[some]], thumbnails[other[some]], ways_P3[some], least)
        return found

    for first in range(0, len(thumbnails), _ROWS):
        rows = slice(first, min(first + _ROWS, len(thumbnails)))
        found: list[Longs] = []
        for start in range(0, rows.stop, _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, rows.stop))
            later, other = np.divmod(np.flatnonzero(near.tile(rows, columns)), columns.stop - start)
            asked_P2 = np.stack([later + first, other + start], 1)
            later, other = asked_P2.T
            found.append(asked_P2[(other < later) & (copy_of[other] == other)])
        all_P2 = _passing(np.concatenate(found), alike)
        later, other = all_P2[np.lexsort(all_P2.T[::-1])].T
        for begin, end in pairwise(np.searchsorted(later, np.arange(rows.start, rows.stop + 1)).tolist()):
            yield other[begin:end].tolist()


def _passing(asked_P2: Longs, test: Callable[[Longs, Longs], Mask]) -> Longs:
    told = [test(*asked_P2[at : at + _PAIRS].T) for at in range(0, len(asked_P2), _PAIRS)]
    return asked_P2[np.concatenate(told)] if told else asked_P2


class _Near(Protocol):
    def tile(self, rows: slice, columns: slice, /) -> Mask:
        """Which pairs may be near."""

    def holds(self, one: Longs, other: Longs, /) -> Mask:
        """Which of those pairs are."""


class _Hashes:
    """Of any of one's frames to the same of the other. A clip of fewer frames repeats its last."""

    def __init__(self, hashes: Sequence[Sequence[str]]) -> None:
        longest = max(map(len, hashes), default=0)
        padded = [[*some, *[some[-1]] * (longest - len(some))] for some in hashes]
        self._words = np.array([[int(word, 16) for word in row] for row in padded], np.uint64)

    def tile(self, rows: slice, columns: slice, /) -> Mask:
        one, other = self._words[rows], self._words[columns]
        wanted = np.zeros((len(one), len(other)), np.bool_)
        for k in range(one.shape[1]):
            wanted |= np.bitwise_count(one[:, k, None] ^ other[:, k]) <= NEAR_BITS
        return wanted

    def holds(self, one: Longs, other: Longs, /) -> Mask:
        return np.ones(len(one), np.bool_)


class _Embeddings:
    """Vectors [N, D], less their mean, brought to length 1."""

    def __init__(self, vectors: Floats | Rows) -> None:
        self._vectors = vectors
        every = [np.arange(at, min(at + _COLUMNS, len(vectors))) for at in range(0, len(vectors), _COLUMNS)]
        total: Any = sum(vectors[some].astype(np.float64).sum(0) for some in every)
        self._mean = (total / max(len(vectors), 1)).astype(np.float32)
        axes = self._axes() if len(vectors) > FEW else None
        self._short = np.concatenate(
            [self._bound(self._unit(some), axes) for some in every] or [np.zeros((0, 1), np.float32)]
        )

    def tile(self, rows: slice, columns: slice, /) -> Mask:
        wanted: Mask = self._short[rows] @ self._short[columns].T >= NEAR - ROUNDING
        return wanted

    def holds(self, one: Longs, other: Longs, /) -> Mask:
        # a sum of its own for each pair, the same whatever is asked beside it
        wanted: Mask = (self._unit(one) * self._unit(other)).sum(1) >= NEAR
        return wanted

    def _unit(self, places: Longs) -> Floats:
        vectors = self._vectors[places].astype(np.float32) - self._mean
        found: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        return found

    def _axes(self) -> Floats | None:
        """[D, few]; None if few are not enough."""
        some = self._unit(np.linspace(0, len(self._vectors) - 1, FEW).astype(np.int64))
        energy, axes = np.linalg.eigh((some.T @ some).astype(np.float64))
        share = np.cumsum(energy[::-1]) / energy.sum()
        few = AXES * (1 + int(np.searchsorted(share, 1 - LEFT)) // AXES)
        return np.ascontiguousarray(axes[:, ::-1][:, :few], np.float32) if 2 * few < len(share) else None

    @staticmethod
    def _bound(unit_ND: Floats, axes: Floats | None) -> Floats:
        """What two clips have a product of that is no less than their cosine."""
        if axes is None:
            return unit_ND
        few = unit_ND @ axes
        left = np.square(unit_ND).sum(1) - np.square(few).sum(1)
        return np.concatenate([few, np.sqrt(np.maximum(left, 0))[:, None]], 1)


class _Sketches:
    """Of the mean picture of each clip, and of its crop and all its windows, the lowest frequencies, brought to length
    1, and the length of what they leave: bounds of correlations, as `_Embeddings` has them of cosines."""

    def __init__(self, thumbnails: Thumbnails | Rows) -> None:
        count, size = len(thumbnails), round(CROP * SIDE)
        windows, numbers = (SIDE - size + 1) ** 2, WAVES * WAVES
        self._whole, self._crop = (np.zeros((count, numbers), np.float16) for _ in range(2))
        self._windows = np.zeros((count, windows, numbers), np.float16)
        self._shown = np.ones(count, np.int64)
        # in a mirror every second wave across the picture is turned over; the last number is no wave
        self._turned = np.append(np.tile((-1.0) ** np.arange(WAVES), WAVES)[1:], 1).astype(np.float32)
        for first in range(0, count, _PAIRS):
            places = np.arange(first, min(first + _PAIRS, count))
            some = thumbnails[places]
            self._shown[places] = frames = shown(some)
            means = np.stack([clip[:few].mean(0, dtype=np.float32) for clip, few in zip(some, frames, strict=True)])
            self._whole[places], self._crop[places] = _sketch(means), _sketch(shrunk(means))
            views = windows_of(means, size).reshape(len(some) * windows, size, size)
            self._windows[places] = _sketch(views).reshape(len(some), windows, numbers)

    def ways(self, one: Longs, other: Longs) -> Mask:
        """In which ways pairs may pass the first look, [P, 3] (`vpoet.data.curate.bounds.may_be_alike`)."""
        first, second = self._shown[one], self._shown[other]
        # a mean over more frames than a clip has is another, unless all of them are the same
        unknown = (first != second) & (first > 1) & (second > 1)
        best = []
        for windows_PVn, crop_Pn in (
            (self._whole[one][:, None], self._whole[other]),
            (self._windows[one], self._crop[other]),
            (self._windows[other], self._crop[one]),
        ):
            crop = crop_Pn.astype(np.float32)
            both = np.stack([crop, crop * self._turned], -1)
            best.append((windows_PVn.astype(np.float32) @ both).max((1, 2)))
        let: Mask = unknown[:, None] | (np.stack(best, 1) >= FIRST_LOOK - ROUNDING)
        return let


def _sketch(pictures: Floats) -> Floats:
    """[N, s, s] to [N, `WAVES`^2]. One that is even is alike to all."""
    size = pictures.shape[1]
    waves = np.cos(np.pi / size * np.outer(np.arange(WAVES), np.arange(size) + 0.5))
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    basis = np.einsum("ay,bx->yxab", waves, waves).reshape(size * size, -1)[:, 1:].astype(np.float32)
    apart = pictures.reshape(len(pictures), -1)
    apart = apart - apart.mean(1, keepdims=True)
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    few = (apart @ basis) / np.maximum(length, EVEN)
    left = np.sqrt(np.maximum(1 - np.square(few).sum(1, keepdims=True), 1e-4))
    even = length < EVEN
    return np.concatenate([np.where(even, 0, few), np.where(even, 100, left)], 1)
