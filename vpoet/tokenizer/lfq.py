"""Lookup-free quantisation (MAGVIT-v2, Yu et al., arXiv:2310.05737, section 3.1).

Each of D numbers becomes its sign; the signs, read as binary digits with the first least significant, are the code. The
codebook is fixed, so what keeps it in use is a loss on entropies.

Shape letters: N vectors of a call, D numbers of a vector (log2 of the codebook), C codes (2^D).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.tokenizer.quantiser import Quantised, Quantiser

INV_TEMPERATURE = 100.0
"""How sharply the entropies tell codes apart (as in vector-quantize-pytorch): 0.01 is a bit that is 98 % sure."""

SMALLEST = torch.finfo(torch.float32).tiny
"""A probability may underflow to zero; the gradient of its logarithm must stay finite."""


class LFQ(Quantiser):
    """The quantiser; it has no parameters. ConfigError when ``codebook`` is no power of two from 4 to 2^30.

    The loss, in training only, is ``entropy`` * (E H(p) - H(E p)) + ``commitment`` * E (z - point)^2, with E the mean
    over this process's vectors (and, in the last term, their numbers), H the entropy in nats, and
    p(code | z) = softmax over all codes of -INV_TEMPERATURE * |z - point of the code|^2.
    """

    def __init__(self, codebook: int, *, entropy: float, commitment: float) -> None:
        bits = codebook.bit_length() - 1
        if bits < 2 or codebook != 2**bits:
            raise ConfigError(f"codebook is {codebook}; LFQ needs a power of two, 4 or more")
        super().__init__((2,) * bits, width=bits)
        self.entropy = entropy
        self.commitment = commitment

    def forward(self, z: Tensor) -> Quantised:
        """Quantise ``z`` [..., D]; gradients pass the sign unchanged. Computed in fp32, also under autocast."""
        with torch.autocast(z.device.type, enabled=False):
            numbers = z.float()
            digits = numbers > 0
            codes = self.digits_to_codes(digits)
            signs = 2.0 * digits - 1
            points = signs + (numbers - numbers.detach())
            loss = numbers.new_zeros(())
            if self.training:
                sure, spread = entropies(numbers.reshape(-1, self.width))
                loss = self.entropy * (sure - spread) + self.commitment * F.mse_loss(numbers, signs)
        return Quantised(codes, points.to(z.dtype), numbers, loss, self.use(codes))

    def codes_to_points(self, codes: Tensor) -> Tensor:
        """Integer codes [...] to the fp32 points [..., D] of -1 and 1 that `forward` gives for them."""
        return 2.0 * self.codes_to_digits(codes) - 1


def entropies(z_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean entropy of the vectors' codes, and entropy of their mean distribution, in nats; exact, over all C codes.

    Given a vector, the bits of its code are independent: bit d is one with probability sigmoid(4 INV_TEMPERATURE z_d).
    So its entropy is the sum of its bits'; and the mean distribution, arranged as lower by upper bits, is one matrix
    product, which needs room for 2 N sqrt(C) + C numbers instead of N C.
    """
    size_ND = 4 * INV_TEMPERATURE * z_ND.abs()
    # the entropy of a bit in terms that do not cancel where it is sure
    sure = (F.softplus(-size_ND) + size_ND * (-size_ND).sigmoid()).sum(-1).mean()
    lower, upper = (_probabilities(half) for half in z_ND.tensor_split([z_ND.shape[-1] // 2], dim=-1))
    mean = lower.T @ upper / len(z_ND)
    return sure, -(mean * mean.clamp(min=SMALLEST).log()).sum()


def _probabilities(z: Tensor) -> Tensor:
    """Probability [N, 2^B] of each value of the B bits of ``z`` [N, B], in any fixed order of the values."""
    signs = torch.cartesian_prod(*[z.new_tensor([-1.0, 1.0])] * z.shape[-1]).reshape(-1, z.shape[-1])
    return (2 * INV_TEMPERATURE * z @ signs.T).softmax(-1)
