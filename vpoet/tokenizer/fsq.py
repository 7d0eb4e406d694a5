"""Finite scalar quantisation (Mentzer et al., "FSQ: VQ-VAE Made Simple", arXiv:2309.15505).

A vector of D numbers is bounded, and each is rounded to one of a few levels; the D digits, read as a mixed-radix number
with the first digit least significant, are the code. There is no learned codebook, so nothing in it can die.

Shape letters: D digits of a code (``len(levels)``).
"""

from collections.abc import Sequence

import torch
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
    """The quantiser; it has no parameters. ConfigError when a level is below 3 or the codebook exceeds int32."""

    def __init__(self, levels: Sequence[int]) -> None:
        levels = tuple(int(level) for level in levels)
        if not levels or min(levels) < FEWEST_LEVELS:
            raise ConfigError(f"levels {list(levels)}: give at least one, each {FEWEST_LEVELS} or more")
        super().__init__(levels, width=len(levels))

    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``z`` [..., D]; gradients pass the rounding unchanged. Computed in fp32, also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            bounded = self._bound(z.float())
            rounded = bounded.round()
            half = self.radix // 2
            codes = self.digits_to_codes(rounded.detach().long() + half)
            points = (bounded + (rounded - bounded).detach()) / half
        return Quantised(codes, points.to(z.dtype), z.new_zeros(()), self.use(codes))

    def codes_to_points(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to the fp32 points [..., D] that `forward` gives for them."""
        half = self.radix // 2
        return (self.codes_to_digits(codes) - half) / half

    def _bound(self, z: Tensor) -> Tensor:
        """Squash so that rounding yields exactly ``levels`` integers; even levels sit half a step to the left."""
        half = (self.radix - 1) * (1 + EDGE) / 2
        offset = torch.where(self.radix % 2 == 0, 0.5, 0.0)
        return (z + (offset / half).atanh()).tanh() * half - offset
