"""What the codes of a tokenizer are like: how many are used, how evenly, and how much one says about the next."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.errors import ShapeError


class CodeStatistics:
    """Counts of codes, and of pairs of a code and the one before it in raster order within its frame."""

    def __init__(self, size: int) -> None:
        self.size = size
        """Codebook size."""
        self.counts = np.zeros(size, np.int64)
        self.firsts = np.zeros(size, np.int64)
        """Counts of codes that open a frame: no code comes before them."""
        self.pairs: dict[int, int] = {}
        """previous * size + next -> count; a dictionary, since a table would have size^2 entries."""

    def update(self, codes: npt.NDArray[Any]) -> None:
        """Count integer codes [..., t, h, w]."""
        codes = np.asarray(codes)
        if codes.ndim < 3 or not np.issubdtype(codes.dtype, np.integer):
            raise ShapeError(f"codes must be integers [..., t, h, w]; got {codes.dtype} {list(codes.shape)}")
        if codes.size and (codes.min() < 0 or codes.max() >= self.size):
            raise ShapeError(f"codes run from {codes.min()} to {codes.max()}; the codebook has 0 to {self.size - 1}")
        frames = codes.reshape(-1, codes.shape[-2] * codes.shape[-1]).astype(np.int64)
        self.counts += np.bincount(frames.ravel(), minlength=self.size)
        self.firsts += np.bincount(frames[:, 0], minlength=self.size)
        keys, numbers = np.unique(frames[:, :-1] * self.size + frames[:, 1:], return_counts=True)
        for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
            self.pairs[key] = self.pairs.get(key, 0) + number

    @property
    def total(self) -> int:
        """Codes counted."""
        return int(self.counts.sum())

    @property
    def cells_of_time(self) -> int:
        """Frames of codes [h, w] counted."""
        return int(self.firsts.sum())

    @property
    def used(self) -> int:
        """Different codes seen."""
        return int(np.count_nonzero(self.counts))

    @property
    def usage(self) -> float:
        """Share of the codebook that was seen. Compare with `uniform_usage`: few codes cannot cover a large one."""
        return self.used / self.size

    @property
    def uniform_usage(self) -> float:
        """Share of the codebook that as many codes from a uniform source would cover on average: 1 - (1 - 1/K)^N."""
        return -math.expm1(self.total * math.log1p(-1 / self.size)) if self.size > 1 else float(self.total > 0)

    @property
    def entropy(self) -> float:
        """Bits per code, from the frequencies as they are (an underestimate while codes are few)."""
        return _entropy(self.counts)

    @property
    def perplexity(self) -> float:
        """2^entropy: the size of a uniform codebook with as many bits."""
        return float(2**self.entropy)

    def bigram_bits(self, held_out: "CodeStatistics") -> float:
        """Bits per code of ``held_out`` under a bigram model of these counts: the bar for a trained transformer.

        Each code is predicted from the one before it, and a frame's first from frequencies alone. Smoothed after Witten
        and Bell, without a constant to tune: p(c|b) = (n(b,c) + d(b) p(c)) / (n(b) + d(b)), with d(b) the number of
        different codes seen after b, and p(c) the frequencies, smoothed likewise with the uniform distribution.
        """
        if held_out.size != self.size:
            raise ShapeError(f"codebooks of {self.size} and {held_out.size} codes are not comparable")
        if not held_out.total:
            raise ShapeError("no held-out codes to measure on")
        uniform = 1 / self.size
        unigram = (self.counts + max(1, self.used) * uniform) / (self.total + max(1, self.used))
        followers = np.zeros(self.size, np.int64)
        occurrences = np.zeros(self.size, np.int64)
        for key, number in self.pairs.items():
            followers[key // self.size] += 1
            occurrences[key // self.size] += number
        bits = -float((held_out.firsts * np.log2(unigram)).sum())
        for key, number in held_out.pairs.items():
            before, code = divmod(key, self.size)
            if occurrences[before]:
                seen = self.pairs.get(key, 0) + followers[before] * unigram[code]
                bits -= number * math.log2(seen / (occurrences[before] + followers[before]))
            else:
                bits -= number * math.log2(unigram[code])
        return bits / held_out.total


def _entropy(counts: npt.NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0
