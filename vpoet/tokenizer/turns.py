"""Codes that take turns: of every P codes of a cell in a row, each describes what the others leave out.

A cell that holds still is otherwise told the same code again and again. Taking turns, P codes in a row come from P
different projections of the encoder's features, and the decoder sees the newest code of each turn: a scene that holds
still for P codes is drawn from P times the digits. Which turn it is follows from the position in time alone, so codes
stay causal and are made in parallel, an image is still the first frame, and chunks give what the whole gives.

Shape letters: B clips, t, h, w cells, P turns, D numbers of a vector or point.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vpoet.tokenizer.layers import Past


class Turns(nn.Module):
    """The bookkeeping of turns; it has no parameters. With one turn both directions are the identity."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.clock = nn.Identity()
        """Stands in `Past` for the number of codes so far, as this module does for the last of them."""

    def width(self, vector: int) -> int:
        """Numbers that `recall` makes of points of ``vector``."""
        return self.turns * (vector + 1) if self.turns > 1 else vector

    def choose(self, vectors: Tensor, past: Past | None = None) -> Tensor:
        """Of P vectors for each cell, [B, t, h, w, P*D], the one whose turn it is: [B, t, h, w, D]."""
        if self.turns == 1:
            return vectors
        turn = self._clock(vectors, past) % self.turns
        by_turn = vectors.reshape(*vectors.shape[:4], self.turns, -1)
        place = turn[None, :, None, None, None, None].expand(*vectors.shape[:4], 1, by_turn.shape[-1])
        return by_turn.gather(4, place).squeeze(4)

    def recall(self, points: Tensor, past: Past | None = None) -> Tensor:
        """Points [B, t, h, w, D] to [B, t, h, w, P*(D+1)]: of each turn the newest point, or zeros before its first.

        Then P numbers more, a one where it is that turn's.
        """
        if self.turns == 1:
            return points
        batch, t, height, width, vector = points.shape
        before = None if past is None else past.get(self)
        if before is None:
            before = points.new_zeros(batch, self.turns - 1, height, width, vector)
        known = torch.cat([before, points], 1)
        if past is not None:
            past[self] = known[:, t:].clone()
        clock = self._clock(points, past)
        age = (clock[:, None] - torch.arange(self.turns, device=clock.device)) % self.turns
        newest = torch.arange(t, device=clock.device)[:, None] + self.turns - 1 - age
        slots = known[:, newest].permute(0, 1, 3, 4, 2, 5).flatten(4)
        whose = F.one_hot(clock % self.turns, self.turns).to(points.dtype)
        return torch.cat([slots, whose[None, :, None, None].expand(batch, -1, height, width, -1)], -1)

    def _clock(self, x: Tensor, past: Past | None) -> Tensor:
        """The index of each cell in time, from the start of the film; moves it on."""
        begun = 0 if past is None or self.clock not in past else int(past[self.clock])
        if past is not None:
            past[self.clock] = torch.tensor(begun + x.shape[1])
        return begun + torch.arange(x.shape[1], device=x.device)
