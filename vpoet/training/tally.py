"""What all processes have before them in a step, in one sum, which nobody waits for before the device has done it."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vpoet.sequence.document import KINDS
from vpoet.sequence.packing import Pack
from vpoet.training.engine.base import Engine
from vpoet.training.engine.ulysses import Share
from vpoet.training.loss import counts

PARTS = ("tokens", "padding", "flops", "waited", "signal", "apart")


class Tally:
    """The sum of one step; every process must make it. What is read of it waits for the device: first within the step.

    ``flops``, seconds ``waited`` for data and the stop ``signal`` (0: none) are this process's.
    """

    def __init__(
        self, trainer: Engine, share: Share, packs: Sequence[Pack], *, flops: float, waited: float, signal: int
    ) -> None:
        self._share = share
        mine = (sum(map(len, packs)), sum(pack.padding for pack in packs), flops, waited, signal, share.code(packs))
        self._sum = trainer.total(
            torch.cat((torch.stack([*map(counts, packs)]).sum(0), torch.tensor(mine, dtype=torch.double)))
        )

    @property
    def divisor(self) -> Tensor:
        """Predicted tokens of the global batch, on the device: fp32, as the losses that it divides."""
        return (self._sum[: len(KINDS)] / self._share.pieces).sum().float()

    @cached_property
    def _read(self) -> Tensor:
        read = self._sum.cpu()
        self._share.check(float(read[-1]))
        return read / self._share.pieces  # a group counts each pack so often

    @property
    def targets(self) -> Tensor:
        """Predicted tokens of the global batch by kind: fp64 [4] on the CPU. DataError as `Share.check`."""
        return self._read[: len(KINDS)]

    @property
    def predicted(self) -> float:
        """Predicted tokens of the global batch."""
        return float(self.targets.sum())

    @property
    def kind(self) -> str:
        """What most of them are."""
        return KINDS[int(self.targets.argmax())]

    def __getitem__(self, part: str) -> float:
        """The sum of one of `PARTS`."""
        return float(self._read[len(KINDS) + PARTS.index(part)])
