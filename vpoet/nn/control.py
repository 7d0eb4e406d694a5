"""What a network makes of controls (`vpoet.sequence.controls`): features that are added to states before some blocks.

Shapes: G cells of controls; C of them whose cell of the clip is predicted; K kinds; T tokens; P places, blocks before
which is added; D model width; E numbers that a cell is read as; N = 27 cells in the neighbourhood of one.

A cell is read as the point on the tokenizer's grid that its code is, with its neighbours, those that come later
included: all of a control is known before the first code is drawn. Points that are near mean pictures that are alike,
which tables of codes would have to learn code by code. ControlAR adds at three depths, and so does this. The last map
is zero at the start, so that a model that begins to learn controls is what it was (ControlNet, Zhang et al., ICCV 2023,
section 3.1). Features depend on no code that is drawn: decoding makes all of them before its first step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.sequence.controls import KINDS, NEAR, NONE, ControlCells
from vpoet.sequence.layout import Layout

HIDDEN = 256
"""Size of what a neighbourhood comes to."""
GAIN = 5.0
"""Of the last map: AdamW moves all weights alike, and beside trained ones those that begin at zero have far to go."""


def places(depth: int) -> tuple[int, ...]:
    """The blocks before which controls are added, of so many.

    Never the first, where there are more: embeddings are small beside the states that blocks make of them (0.1 and 1.5
    to 5 in the model that ships, root mean squares), and drown in what is added before it means anything.
    """
    return tuple(sorted({min(depth - 1, 1 + (depth - 1) * i // 3) for i in range(3)}))


@dataclass(frozen=True, eq=False, slots=True)
class ControlTensors:
    """`ControlCells` on the model's device."""

    codes_KG: Tensor
    strengths_KC: Tensor
    near_CN: Tensor
    at_C: Tensor

    @classmethod
    def of(cls, cells: ControlCells, device: torch.device) -> Self:
        codes, near, at = (torch.from_numpy(x).long().to(device) for x in (cells.codes, cells.near, cells.at))
        return cls(codes, torch.from_numpy(cells.strengths).to(device), near, at)

    @classmethod
    def none(cls, device: torch.device) -> Self:
        """Of nothing."""
        none = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(none.view(len(KINDS), 0), none.view(len(KINDS), 0).float(), none.view(0, NEAR), none)

    @classmethod
    def laid(cls, layout: Layout, flat: Tensor) -> Self | None:
        """From a copy of a pack's flat array, in which strengths are the bits of their fp32; None, if it has no
        controls."""
        if "control_at" not in layout.places:
            return None
        codes, near, at = (layout.part(f"control_{name}", flat).long() for name in ("codes", "near", "at"))
        return cls(codes, layout.part("control_strengths", flat).view(torch.float32), near, at)

    def piece(self, first: int, start: int, stop: int) -> Self:
        """Of the cells ``start`` to ``stop``, whose tokens are counted from ``first`` on."""
        here = slice(start, stop)
        return replace(
            self, strengths_KC=self.strengths_KC[:, here], near_CN=self.near_CN[here], at_C=self.at_C[here] - first
        )


class ControlFeatures(nn.Module):
    """Those of one kind."""

    def __init__(self, seen: int, width: int, places: int) -> None:
        super().__init__()
        self.places = places
        self.near = nn.Linear(NEAR * seen, HIDDEN, bias=False)
        self.mix = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, places * width, bias=False)

    def forward(self, x_GE: Tensor, near_CN: Tensor, strength_C: Tensor) -> Tensor:
        """[P, C, D], from the cells, their neighbours, and the strengths."""
        x_GE = F.pad(x_GE, (0, 0, 0, 1))  # beyond the border is nothing: zeros
        x_CNE = x_GE[torch.where(near_CN == NONE, len(x_GE) - 1, near_CN)]
        x_CH = F.silu(_normed(self.near(x_CNE.flatten(1))))
        x_CH = F.silu(_normed(self.mix(x_CH)))
        x_CPD = self.out(GAIN * x_CH).unflatten(-1, (self.places, -1))
        x_PCD: Tensor = (x_CPD * strength_C[:, None, None].to(x_CPD.dtype)).transpose(0, 1)
        return x_PCD


class Controls(nn.ModuleDict):
    """Those of several kinds, by name. ``levels`` are those of a code's digits; a code of one digit, as VQ's, is a name
    and no point, and is read by its embedding."""

    def __init__(self, kinds: Sequence[str], levels: tuple[int, ...], width: int, places: int) -> None:
        self.levels = levels if len(levels) > 1 else ()
        seen = 1 + (len(self.levels) or width)
        super().__init__({kind: ControlFeatures(seen, width, places) for kind in kinds})

    def added(self, cells: ControlTensors, embed: Callable[[Tensor], Tensor], tokens: int) -> Tensor:
        """What is added to the states of so many tokens, [P, T, D]: the sum over kinds, nothing where no cell is
        predicted. ``embed`` makes [G, D] of codes as the clip's own are embedded, whose tokenizer made them."""
        kinds = ((KINDS.index(kind), features) for kind, features in self.items())
        each = [
            # where there is no code, its strength is 0
            features(self._seen(cells.codes_KG[k].clamp(min=0), embed), cells.near_CN, cells.strengths_KC[k])
            for k, features in kinds
        ]
        x_PCD = torch.stack(each).sum(0)
        x_PTD = x_PCD.new_zeros(len(x_PCD), tokens, x_PCD.shape[-1])
        place_P1 = torch.arange(len(x_PCD), device=x_PCD.device)[:, None]
        return x_PTD.index_put((place_P1, cells.at_C), x_PCD)  # index_add gives other bits each time on a GPU

    def _seen(self, codes_G: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """[G, E]: where the code's digits lie between their ends, -1 and 1, or else its embedding; behind it a 1, which
        tells a cell from what is beyond the border."""
        if not self.levels:
            return F.pad(_normed(embed(codes_G)), (0, 1), value=1.0)
        digits = []
        for level in self.levels:
            digits.append((codes_G % level) * (2 / (level - 1)) - 1)
            codes_G = codes_G // level
        return F.pad(torch.stack(digits, dim=-1).to(embed(codes_G[:0]).dtype), (0, 1), value=1.0)


def _normed(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)
