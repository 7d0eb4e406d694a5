"""The loss of a pack, by kind of token, as sums and counts so that any split of a batch adds up exactly; and of packs
held out, by all processes together.

Shapes: M predicted tokens, K kinds of token.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from vpoet.nn.nats import CHUNK, PackTensors, pack_nats
from vpoet.nn.transformer import RunBlock, Transformer, run_block
from vpoet.nn.visibility import Backend
from vpoet.sequence.document import KINDS
from vpoet.sequence.packing import Pack
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share


class PackLoss(nn.Module):
    """The model with its loss: what a training engine wraps."""

    def __init__(
        self,
        transformer: Transformer,
        attention: Backend,
        z_loss: float = 0.0,
        chunk: int = CHUNK,
        run: RunBlock = run_block,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.attention = attention
        self.z_loss = z_loss
        self.chunk = chunk
        self.run = run

    def forward(self, tensors: PackTensors) -> Tensor:
        """Sums of -log p in nats over the predicted tokens, one for each kind in `KINDS`: fp32 [K]."""
        nats_M = self.nats(tensors)
        sums = torch.zeros(len(KINDS), device=nats_M.device)
        # index_add gives other bits each time on a GPU
        return sums.index_put((tensors.kinds_M,), nats_M, accumulate=True)

    def nats(self, tensors: PackTensors) -> Tensor:
        """-log p [M] of each predicted token, in the order of the pack, fp32."""
        return pack_nats(self.transformer, self.attention, tensors, z_loss=self.z_loss, chunk=self.chunk, run=self.run)


def counts(row: Pack) -> Tensor:
    """Predicted tokens of a pack for each kind in `KINDS`: fp64 [K]."""
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


def heldout_losses(trainer: Engine, packs: Sequence[Pack], share: Share) -> dict[str, float]:
    """Means over the predicted tokens of all ``packs``, as `losses` names them.

    Every process takes as many passes, as sharded weights need; a pack that is there twice for that counts once.
    """
    targets = torch.zeros(len(KINDS), dtype=torch.double)
    sums = torch.zeros_like(targets, device=trainer.device)
    for first in range(0, len(packs), share.groups):
        pack = packs[(first + share.group) % len(packs)]
        nats = trainer.evaluate(share.piece(PackTensors.of(pack, trainer.device))).double()
        if first + share.group < len(packs):
            sums, targets = sums + nats, targets + counts(pack)
    return losses("heldout", trainer.total(sums), trainer.total(targets) / share.pieces)
