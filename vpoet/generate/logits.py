"""From logits to a token: pure functions over [..., V].

What a filter removes becomes -inf, so filters chain in any order and `draw` never returns what one of them removed.
"""

import torch
from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans, arXiv:2207.12598, equation 6, with scale = 1 + w).

    0 is the unconditional model, 1 the conditional one; above 1 goes on in the direction from the first to the second.
    """
    return unconditional + scale * (conditional - unconditional)


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Divide by ``temperature`` >= 0; at 0 only the largest logit (the first of equals) is left."""
    return top_k(logits, 1) if temperature == 0 else logits / temperature


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the ``k`` largest, exactly k also where some are equal; 0 keeps all."""
    if not 0 < k < logits.shape[-1]:
        return logits
    values, index = logits.max(-1, keepdim=True) if k == 1 else logits.topk(k, dim=-1)
    return torch.full_like(logits, -torch.inf).scatter(-1, index, values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the minimal nucleus: the fewest of the most probable whose mass is at least ``p``, 0 < p <= 1
    (Holtzman et al., arXiv:1904.09751, section 3.1). In double precision, for a large vocabulary's sums round."""
    if p >= 1:
        return logits
    probabilities, index = logits.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    more_probable = probabilities.cumsum(-1).roll(1, -1)
    more_probable[..., 0] = 0
    removed = torch.empty_like(more_probable, dtype=torch.bool).scatter_(-1, index, more_probable >= p)
    return logits.masked_fill(removed, -torch.inf)


def draw(logits: Tensor, gumbel: Tensor) -> Tensor:
    """A sample [...] of softmax(logits), given independent standard Gumbel noise of the logits' shape.

    The largest of logits + noise is distributed so (Maddison et al., arXiv:1411.0030, section 2). The noise is handed
    in, so that each document of a batch can bring its own.
    """
    return (logits + gumbel).argmax(-1)
