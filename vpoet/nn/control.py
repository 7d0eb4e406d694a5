"""What a network makes of controls (`vpoet.sequence.controls`): features that are added to states before some blocks.

Shapes: G cells of controls; C of them whose cell of the clip is predicted; K kinds; T tokens; P places, blocks before
which is added; D model width; E size of a cell's embedding; N = 27 cells in the neighbourhood of one.

A cell's code is embedded as the clip's codes are: one tokenizer made both. It is read with its neighbours, those that
come later included: all of a control is known before the first code is drawn. ControlAR adds at three depths, and so
does this. The last map is zero at the start, so that a model that begins to learn controls is what it was (ControlNet,
Zhang et al., ICCV 2023, section 3.1). Features depend on no code that is drawn: decoding makes all of them before its
first step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.sequence.controls import KINDS, NEAR, NONE, ControlCells
from vpoet.sequence.layout import Layout

EMBEDDING, HIDDEN = 64, 128
"""Sizes of a cell's embedding, and of what its neighbourhood comes to."""


def places(depth: int) -> tuple[int, ...]:
    """The blocks before which controls are added, of so many."""
    return tuple(sorted({depth * i // 3 for i in range(3)}))


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

    def __init__(self, width: int, places: int) -> None:
        super().__init__()
        self.places = places
        self.narrow = nn.Linear(width, EMBEDDING, bias=False)
        self.mix = nn.Linear(NEAR * EMBEDDING, HIDDEN, bias=False)
        self.out = nn.Linear(EMBEDDING + HIDDEN, places * width, bias=False)

    def forward(self, x_GD: Tensor, near_CN: Tensor, strength_C: Tensor) -> Tensor:
        """[P, C, D], from the embeddings of the codes, their neighbours, and the strengths."""
        x_GE = _normed(self.narrow(_normed(x_GD)))
        x_GE = F.pad(x_GE, (0, 0, 0, 1))  # beyond the border is nothing: zeros
        x_CNE = x_GE[torch.where(near_CN == NONE, len(x_GE) - 1, near_CN)]
        # the cell itself goes straight on: among 27 it would be one voice of many until the mixture has learned
        x_CE = torch.cat((x_CNE[:, NEAR // 2], F.silu(self.mix(x_CNE.flatten(1)))), dim=-1)
        # of so many inputs, else a few of AdamW's steps, each of which moves all alike, would drown the states
        x_CPD = self.out(x_CE / x_CE.shape[-1] ** 0.5).unflatten(-1, (self.places, -1))
        x_PCD: Tensor = (x_CPD * strength_C[:, None, None].to(x_CPD.dtype)).transpose(0, 1)
        return x_PCD


class Controls(nn.ModuleDict):
    """Those of several kinds, by name."""

    def __init__(self, kinds: Sequence[str], width: int, places: int) -> None:
        super().__init__({kind: ControlFeatures(width, places) for kind in kinds})

    def added(self, cells: ControlTensors, embed: Callable[[Tensor], Tensor], tokens: int) -> Tensor:
        """What is added to the states of so many tokens, [P, T, D]: the sum over kinds, nothing where no cell is
        predicted. ``embed`` makes [G, D] of codes: as the clip's own, whose tokenizer made them."""
        kinds = ((KINDS.index(kind), features) for kind, features in self.items())
        each = [
            # where there is no code, its strength is 0
            features(embed(cells.codes_KG[k].clamp(min=0)), cells.near_CN, cells.strengths_KC[k])
            for k, features in kinds
        ]
        x_PCD = torch.stack(each).sum(0)
        x_PTD = x_PCD.new_zeros(len(x_PCD), tokens, x_PCD.shape[-1])
        place_P1 = torch.arange(len(x_PCD), device=x_PCD.device)[:, None]
        return x_PTD.index_put((place_P1, cells.at_C), x_PCD)  # index_add gives other bits each time on a GPU


def _normed(x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)
