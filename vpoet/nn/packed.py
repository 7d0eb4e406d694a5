"""A pack on the model's device, and -log p of every token in it that the model predicts.

Training sums it up, scoring reports it.

Shapes: T packed tokens, D model width, M predicted tokens.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vpoet.nn.attention import Backend, Visibility
from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import IMAGE, TEXT, VIDEO
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


def pack_nats(transformer: Transformer, attention: Backend, tensors: PackTensors) -> Tensor:
    """-log p [M] of each predicted token given all before it, in the order of the pack, fp32."""
    attend = attention(tensors.visibility, tensors.ids_T.device)
    h_MD = transformer(tensors.ids_T, tensors.positions_T3, attend)[tensors.before_M]
    nats_M = torch.zeros(len(h_MD), device=h_MD.device)
    (text,) = torch.nonzero(tensors.kinds_M == TEXT, as_tuple=True)
    if len(text):
        nats_M = nats_M.index_copy(0, text, transformer.text_nats(h_MD[text], tensors.after_M[text]))
    visual_kind = (tensors.kinds_M == IMAGE) | (tensors.kinds_M == VIDEO)
    (visual,) = torch.nonzero(visual_kind, as_tuple=True)
    # always called, on no tokens if need be: every process must touch every weight when weights are sharded
    codes_M = tensors.after_M[visual] - transformer.vocabulary.language
    return nats_M.index_copy(0, visual, transformer.visual.nats(h_MD[visual], codes_M))
