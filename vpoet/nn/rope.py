"""Rotary position embedding over three axes (t, h, w).

Shapes: T tokens, H head size, P = H/2 rotated pairs.

Pair p turns with frequency base^(-p/P) (RoFormer, section 3.4.3) by its position on axis p mod 3, so each axis has
the whole spectrum. Where the three positions are equal, as in text, this is the one-axis rotary embedding, exactly.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """How far each pair of a token's heads is turned."""

    cos_TP: Tensor
    sin_TP: Tensor


def rotations(positions_T3: Tensor, head: int, base: float) -> Rotation:
    """The rotation, in fp32, for integer positions [T, 3].

    Double positions have their angles computed in double precision: those of fp32 are off by 0.006 at position 100,000,
    and what a token sees near it would be turned by as much.
    """
    dtype = torch.promote_types(positions_T3.dtype, torch.float32)
    pairs = head // 2
    index = torch.arange(pairs, device=positions_T3.device)
    frequency_P = base ** (-index.float() / pairs)
    angle_TP = positions_T3[:, index % 3].to(dtype) * frequency_P
    return Rotation(angle_TP.cos().float(), angle_TP.sin().float())


def rotate(x_TNH: Tensor, cos_TP: Tensor, sin_TP: Tensor) -> Tensor:
    """Turn pairs (x[p], x[p + P]) of each head; keeps dtype, computes in fp32."""
    a, b = x_TNH.float().chunk(2, dim=-1)
    cos, sin = cos_TP[:, None], sin_TP[:, None]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x_TNH.dtype)
