"""One pass of play: tokens of a frame go in, and what stands behind each is drawn: codes, and an outcome.

Shapes: as in `vpoet.generate.step`; S places of a ring (`vpoet.nn.ring`).

All that changes from pass to pass is an input, as there: a pass can be compiled once and serves every game.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vpoet.generate.heads import linear_of
from vpoet.generate.step import Run, Step
from vpoet.nn.cache import attend_where
from vpoet.nn.rope import Rotation
from vpoet.nn.transformer import Transformer

BuildPlay = Callable[["PlayStep", int, int, int], Run]
"""(step, documents, slots, tokens a slot) -> what is called in its place: a compiled one."""


class PlayStep(nn.Module):
    """The network and both draws."""

    def __init__(self, transformer: Transformer, *, filtered: bool) -> None:
        """``transformer`` may be `vpoet.nn.steady`."""
        super().__init__()
        self.step = Step(transformer, filtered=filtered)
        table = transformer.appended["outcomes"]
        assert isinstance(table, nn.Embedding)
        self.outcomes = linear_of(table.weight)

    @property
    def transformer(self) -> Transformer:
        return self.step.transformer

    @property
    def filtered(self) -> bool:
        return self.step.filtered

    def forward(
        self,
        ids_BW: Tensor,
        turn_NW2P: Tensor,
        place_NW: Tensor,
        sees_NWS: Tensor,
        noise_MV: Tensor,
        settings: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The token behind each of ``ids_BW``, drawn as a code and as an outcome, and -log p of each in nats: [2, M],
        [2, M].

        ``place_NW`` and ``sees_NWS`` are those of `RingCache.places`; ``noise_MV`` is that of a code, and behind it
        that of an outcome; the others as in `Step.forward`.
        """
        twice = len(place_NW) // len(ids_BW)
        attend = attend_where(keys, values, place_NW, sees_NWS)
        rotation = Rotation(*turn_NW2P.flatten(0, 1).unbind(1))
        h_ND = self.transformer(ids_BW.repeat(twice, 1).flatten(), rotation, attend)
        logits_NV, codes = self.outcomes(h_ND), sum(self.transformer.visual.radices)
        codes_M, nats_M = self.step.draw(h_ND, noise_MV[:, :codes], settings)
        chosen_M, more_M = self.step.choose(logits_NV, noise_MV[:, codes:], settings)
        first = self.transformer.ranges["outcomes"].start
        return torch.stack((codes_M, chosen_M + first)), torch.stack((nats_M, more_M))
