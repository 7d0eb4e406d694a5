"""What a quantiser is: vectors in, codes out, and one result type for all of them; its config.

Every cell's vector of D numbers becomes one of ``size`` codes, and a code is read as digits: of mixed radix, the first
digit least significant. FSQ and LFQ have digits of meaning, which a language model may predict one after another; a VQ
code has one digit, itself.

Shape letters: D numbers of a cell, G digits of a code.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vpoet.errors import ConfigError

KINDS = ("fsq", "lfq", "vq")


@dataclass(kw_only=True)
class QuantiserConfig:
    """Which quantiser, and how many codes."""

    kind: str = "fsq"
    """fsq, lfq or vq. FSQ keeps most codes in use without a regulariser; the others are there to compare."""
    codebook: int = 2**16
    """Codes: a power of two from 2^8 to 2^18. FSQ takes the levels of `vpoet.tokenizer.fsq.LEVELS`: about as many."""
    levels: list[int] = field(default_factory=list)
    """FSQ levels of your own, in place of those that ``codebook`` names."""
    commitment: float = 0.25
    """LFQ and VQ: weight of the distance between a vector and its code."""
    entropy: float = 0.1
    """LFQ: weight of the entropy term, which makes each choice sure and all codes equally frequent."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"quantiser.kind is {self.kind!r}; choose one of {', '.join(KINDS)}")
        if self.levels and self.kind != "fsq":
            raise ConfigError(f"quantiser.levels are FSQ's; {self.kind} takes quantiser.codebook")
        if self.codebook not in [2**power for power in range(8, 19)]:
            raise ConfigError(f"quantiser.codebook is {self.codebook}; choose a power of two from 256 to 262144")
        if min(self.commitment, self.entropy) < 0:
            raise ConfigError("quantiser.commitment and quantiser.entropy are weights of a loss: 0 or more")


class Quantised(NamedTuple):
    """What a quantiser returns."""

    codes: Tensor
    """int64 [...] in [0, size)."""
    points: Tensor
    """[..., D]: what the decoder draws from, with gradients to what was quantised."""
    latents: Tensor
    """fp32 [..., D], just before they became codes: of FSQ in steps between levels, of the others as the points."""
    loss: Tensor
    """Scalar, weighted, to be added to the training loss; zero where the quantiser needs none."""
    use: Tensor
    """Scalar in (0, 1]: different codes in this call over the most there can be, min(size, number of codes)."""


class Quantiser(nn.Module, abc.ABC):
    """Base of FSQ, LFQ and VQ: the arithmetic of digits. Subclasses give ``forward`` and ``codes_to_points``."""

    radix: Tensor
    place: Tensor

    def __init__(self, levels: Sequence[int], width: int) -> None:
        super().__init__()
        self.levels = tuple(levels)
        """Radix of each digit, the least significant first; their product is ``size``."""
        self.size = math.prod(self.levels)
        """Number of codes."""
        self.width = width
        """D: numbers of a vector that is quantised."""
        if self.size >= 2**31:
            raise ConfigError(f"levels {list(self.levels)}: {self.size} codes do not fit in int32; use fewer")
        places = [math.prod(self.levels[:digit]) for digit in range(len(self.levels))]
        self.register_buffer("radix", torch.tensor(self.levels), persistent=False)
        self.register_buffer("place", torch.tensor(places), persistent=False)

    @abc.abstractmethod
    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``z`` [..., D]."""

    @abc.abstractmethod
    def codes_to_points(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to the fp32 points [..., D] that ``forward`` gives for them."""

    def codes_to_digits(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to int64 digits [..., G], digit g in [0, levels[g])."""
        return codes.long().unsqueeze(-1) // self.place % self.radix

    def digits_to_codes(self, digits: Tensor) -> Tensor:
        """Inverse of `codes_to_digits`."""
        return (digits.long() * self.place).sum(-1)

    def use(self, codes: Tensor) -> Tensor:
        """`Quantised.use` of these codes."""
        met = torch.zeros(self.size, dtype=torch.float64, device=codes.device)
        # counted where they lie: torch.unique would have the host wait. What is no number has no code of the codebook
        met[codes.flatten().clamp(0, self.size - 1)] = 1
        return (met.sum() / min(self.size, max(1, codes.numel()))).float()
