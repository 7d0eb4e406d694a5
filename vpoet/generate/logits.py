"""From logits to a token: pure functions over [..., V].

What a filter removes becomes -inf, so that `draw` never returns it. Settings are numbers or tensors of no axes: a
compiled step takes them as inputs, and serves all of them.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Setting = float | Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: Setting) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv:2207.12598, equation 6, with scale = 1 + w).

    0 is the unconditional model, 1 the conditional one; above 1 goes on in the direction from the first to the second.
    """
    return unconditional + scale * (conditional - unconditional)


COLDEST = 1e-30
"""A temperature below is no other, down to 0: logits divided by less would pass fp32's range, and inf - inf is no
number."""


def temper(logits: Tensor, temperature: Setting) -> Tensor:
    """Divide by ``temperature``; at 0 the logits stay as they are, and `draw` adds no noise."""
    given = torch.as_tensor(temperature)
    return logits / torch.where(given > 0, given.clamp_min(COLDEST), 1.0)


def keep(logits: Tensor, *, top_k: Setting = 0, top_p: Setting = 1.0, min_p: Setting = 0.0) -> Tensor:
    """Three filters in this order, each on what the ones before it left; the likeliest token always stays.

    ``top_k``: the k largest, exactly k also where some are equal; 0 keeps all. ``top_p``: the minimal nucleus, the
    fewest of the most probable whose mass is at least p, 0 < p <= 1 (Holtzman et al., arXiv:1904.09751, section 3.1).
    ``min_p``: those at least m times as probable as the likeliest, 0 <= m <= 1 (Nguyen et al., arXiv:2407.01082).
    """
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(logits.shape[-1], device=logits.device)
    kept = (rank < top_k) | (torch.as_tensor(top_k, device=logits.device) == 0)
    # In double precision: a large vocabulary's sums round, and would lose what a flat nucleus ends with.
    probabilities = ordered.double().masked_fill(~kept, -torch.inf).softmax(-1)
    more_probable = probabilities.cumsum(-1) - probabilities
    kept = kept & ((more_probable < top_p) | (torch.as_tensor(top_p, device=logits.device) >= 1))
    kept = kept & (probabilities >= min_p * probabilities[..., :1])
    kept = torch.empty_like(kept).scatter(-1, index, kept | (rank == 0))
    return logits.masked_fill(~kept, -torch.inf)


def draw(logits: Tensor, gumbel: Tensor, temperature: Setting = 1.0) -> Tensor:
    """A sample [...] of softmax(logits), given independent standard Gumbel noise of the logits' shape.

    The largest of logits + noise is distributed so (Maddison et al., arXiv:1411.0030, section 2). The noise is handed
    in, so that each document of a batch can bring its own. ``temperature`` 0 takes the largest logit; any other was
    applied by `temper`.
    """
    return (logits + gumbel * (torch.as_tensor(temperature, device=logits.device) > 0)).argmax(-1)


def explain(logits: Tensor, choice: Tensor, gumbel: Tensor) -> Tensor:
    """Noise [..., V] with which `draw` takes ``choice`` [...] from these logits, distributed as noise is given that it
    was taken; from independent standard Gumbel noise of the logits' shape.

    The largest of logits + noise is a Gumbel at their log-sum-exp, whichever it is, and all others are Gumbels at their
    logits, truncated there (Maddison et al., arXiv:1411.0030, section 3, top-down). Where a logit is -inf, noise is
    free and stays as it is; that of ``choice`` must be finite.
    """
    exact, free = logits.double(), logits == -torch.inf
    chosen = torch.zeros_like(free).scatter(-1, choice[..., None], True)
    largest = exact.logsumexp(-1, keepdim=True) + gumbel.double().gather(-1, choice[..., None])
    below = -torch.logaddexp(-(exact + gumbel.double()).masked_fill(free, 0.0), -largest)
    noise = torch.where(free, gumbel, (torch.where(chosen, largest, below) - exact).to(gumbel.dtype))
    # Rounding may lift one of the others to the largest, or above it: it goes down by as little as can be seen.
    top, slack = (logits + noise).gather(-1, choice[..., None]), torch.finfo(noise.dtype).eps
    while (over := (logits + noise >= top) & ~chosen).any():
        noise = torch.where(over, noise - slack * (1 + noise.abs() + logits.abs()), noise)
        slack *= 2
    return noise


def gumbel(generator: np.random.Generator | None, steps: int, size: int) -> npt.NDArray[np.float32]:
    """Noise [steps, size] for `draw`, the same in however many calls; from the CPU, so that a seed means the same on
    every device. None: zeros, for temperature 0, which uses none."""
    noise = np.zeros((steps, size), np.float32)
    if generator is not None:
        # in double precision: a float32 exponential is 0 once in 2^23 draws, and its Gumbel infinite
        row = np.empty(size)
        for each in noise:  # row by row in one small buffer: memory that is touched once costs more than the logarithm
            generator.standard_exponential(out=row)
            np.log(row, out=row)
            np.negative(row, out=each, casting="same_kind")
    return noise
