"""The training loss of a pack, by kind of token, as sums and counts so that any split of a batch adds up exactly.

Shapes: T packed tokens, D model width, M predicted tokens.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vpoet.nn.attention import Backend, Visibility
from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import IMAGE, KINDS, TEXT, VIDEO
from vpoet.sequence.packing import Pack


@dataclass(frozen=True, eq=False, slots=True)
class PackTensors:
    """A pack on the device of the model."""

    ids_T: Tensor
    positions_T3: Tensor
    before_M: Tensor
    """Indices of the tokens just before the predicted ones: their hidden states predict."""
    after_M: Tensor
    """The predicted ids."""
    kinds_M: Tensor
    """Their kinds."""
    visibility: Visibility

    @classmethod
    def of(cls, row: Pack, device: torch.device) -> "PackTensors":
        (after,) = np.nonzero(row.targets)

        def move(values: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(values.astype(np.int64)).to(device, non_blocking=True)

        return cls(
            ids_T=move(row.ids),
            positions_T3=move(row.positions),
            before_M=move(after - 1),
            after_M=move(row.ids[after]),
            kinds_M=move(row.kinds[after]),
            visibility=Visibility(row.lengths, row.prefixes),
        )


class PackLoss(nn.Module):
    """The model with its loss: what a training engine wraps."""

    def __init__(self, transformer: Transformer, attention: Backend) -> None:
        super().__init__()
        self.transformer = transformer
        self.attention = attention

    def forward(self, tensors: PackTensors) -> Tensor:
        """Sums of -log p in nats over the predicted tokens, one for each kind in `KINDS`: fp32 [4]."""
        nats_M = self.nats(tensors)
        sums = torch.zeros(len(KINDS), device=nats_M.device)
        return sums.index_add(0, tensors.kinds_M, nats_M)

    def nats(self, tensors: PackTensors) -> Tensor:
        """-log p [M] of each predicted token, in the order of the pack, fp32."""
        model, vocabulary = self.transformer, self.transformer.vocabulary
        attend = self.attention(tensors.visibility, tensors.ids_T.device)
        h_MD = model(tensors.ids_T, tensors.positions_T3, attend)[tensors.before_M]
        nats_M = torch.zeros(len(h_MD), device=h_MD.device)
        (text,) = torch.nonzero(tensors.kinds_M == TEXT, as_tuple=True)
        if len(text):
            nats_M = nats_M.index_copy(0, text, model.text_nats(h_MD[text], tensors.after_M[text]))
        visual_kind = (tensors.kinds_M == IMAGE) | (tensors.kinds_M == VIDEO)
        (visual,) = torch.nonzero(visual_kind, as_tuple=True)
        # always called, on no tokens if need be: every process must touch every weight when weights are sharded
        nats = model.visual.nats(h_MD[visual], tensors.after_M[visual] - vocabulary.language)
        return nats_M.index_copy(0, visual, nats)


def counts(row: Pack) -> Tensor:
    """Predicted tokens of a pack for each kind in `KINDS`: fp64 [4]."""
    return torch.from_numpy(np.bincount(row.kinds[row.targets], minlength=len(KINDS)).astype(np.float64))


def losses(split: str, nats: Tensor, targets: Tensor) -> dict[str, float]:
    """Named means from sums of nats and counts by kind: over all tokens and for each kind, in nats and bits."""
    loss = float(nats.sum() / targets.sum())
    row = {f"{split}/loss": loss, f"{split}/bits": loss / math.log(2)}
    for kind, total, count in zip(KINDS, nats.tolist(), targets.tolist(), strict=True):
        if count:
            row[f"{split}/{kind}_nats"] = total / count
            row[f"{split}/{kind}_bits"] = total / count / math.log(2)
    return row
