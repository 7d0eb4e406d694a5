"""Finite scalar quantisation (Mentzer et al., "FSQ: VQ-VAE Made Simple", arXiv:2309.15505).

A vector of D numbers is bounded, and each is rounded to one of a few levels; the D digits, read as a mixed-radix number
with the first digit least significant, are the code. There is no learned codebook, so nothing in it can die.

Shape letters: D digits of a code (``len(levels)``).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.tokenizer.quantiser import Quantised, Quantiser

LEVELS: dict[int, tuple[int, ...]] = {
    2**8: (8, 6, 5),
    2**9: (8, 8, 8),
    2**10: (8, 5, 5, 5),
    2**11: (8, 8, 6, 5),
    2**12: (7, 5, 5, 5, 5),
    2**13: (8, 8, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**15: (8, 8, 8, 8, 8),
    2**16: (8, 8, 8, 5, 5, 5),
    2**17: (8, 8, 8, 8, 6, 5),
    2**18: (8, 8, 8, 8, 8, 8),
}
"""Levels whose product comes close to a power of two (section 4.1 and table 1 of the paper, the gaps filled alike)."""

FEWEST_LEVELS = 3
"""With two levels the shift below puts zero deep in the tail of the tanh, where no gradient is left."""

EDGE = 1e-3
"""The outermost levels are reached at slightly less than an infinite input (the reference code's ``eps``)."""


class FSQ(Quantiser):
    """The quantiser; it has no parameters. ConfigError when a level is below 3 or the codebook exceeds int32.

    The loss, in training only, is ``evenness`` times what makes all levels equally frequent and digits independent.
    """

    def __init__(self, levels: Sequence[int], *, evenness: float = 0.0) -> None:
        levels = tuple(int(level) for level in levels)
        if not levels or min(levels) < FEWEST_LEVELS:
            raise ConfigError(f"levels {list(levels)}: give at least one, each {FEWEST_LEVELS} or more")
        super().__init__(levels, width=len(levels))
        self.evenness = evenness

    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``z`` [..., D]; gradients pass the rounding unchanged. Computed in fp32, also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            bounded = self._bound(z.float())
            rounded = bounded.round()
            half = self.radix // 2
            codes = self.digits_to_codes(rounded.detach().long() + half)
            points = (bounded + (rounded - bounded).detach()) / half
            uneven = self.training and self.evenness
            loss = self.evenness * self._unevenness(bounded) if uneven else bounded.new_zeros(())
        return Quantised(codes, points.to(z.dtype), bounded, loss, self.use(codes))

    def codes_to_points(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to the fp32 points [..., D] that `forward` gives for them."""
        half = self.radix // 2
        return (self.codes_to_digits(codes) - half) / half

    def points_to_codes(self, points: Tensor) -> Tensor:
        """Inverse of `codes_to_points`."""
        half = self.radix // 2
        return self.digits_to_codes((points.detach().float() * half).round().long() + half)

    def _unevenness(self, bounded: Tensor) -> Tensor:
        """How far the digits of these vectors [..., D] are from even use: for each digit the squared distance to the
        values that all levels in equal shares would have (2-Wasserstein, by sorting), in half ranges; and the squared
        correlations between digits."""
        flat = bounded.flatten(0, -2)
        count, half = len(flat), self.radix // 2
        share = (torch.arange(count, device=flat.device)[:, None] + 0.5) / count
        even = (share * self.radix).floor() - half
        levels = ((flat.sort(dim=0).values - even) / half).square().mean()
        unit = F.normalize(flat - flat.mean(0), dim=0)
        correlations = unit.T @ unit
        pairs = correlations.triu(diagonal=1).square().sum() / max(1, self.width * (self.width - 1) / 2)
        return levels + pairs

    def _bound(self, z: Tensor) -> Tensor:
        """Squash so that rounding yields exactly ``levels`` integers; even levels sit half a step to the left."""
        half = (self.radix - 1) * (1 + EDGE) / 2
        offset = torch.where(self.radix % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset
