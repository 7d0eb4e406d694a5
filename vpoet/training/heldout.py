"""Losses on held-out packs, by all processes together."""

from collections.abc import Sequence

import torch

from vpoet.nn.nats import PackTensors
from vpoet.sequence.document import KINDS
from vpoet.sequence.packing import Pack
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import counts, losses


def evaluate(trainer: Engine, packs: Sequence[Pack], share: Share) -> dict[str, float]:
    """Means over the predicted tokens of all ``packs``, as `losses` names them.

    Every process takes as many passes, as sharded weights need; a pack that is there twice for that counts once.
    """
    sums, targets = torch.zeros(len(KINDS), dtype=torch.double), torch.zeros(len(KINDS), dtype=torch.double)
    for first in range(0, len(packs), share.groups):
        pack = packs[(first + share.group) % len(packs)]
        nats = trainer.evaluate(share.piece(PackTensors.of(pack, trainer.device))).double().cpu()
        if first + share.group < len(packs):
            sums, targets = sums + nats, targets + counts(pack)
    return losses("heldout", trainer.total(sums), trainer.total(targets) / share.pieces)
