"""What a cell's codes have told so far: a state that encoder and decoder both keep, so that a still scene is refined.

Without it, a cell that does not change is told the same code again and again. With it, each code is asked for in view
of what those before it have told, as a codec sends the difference from its own last picture: the encoder runs the
decoder's side of the loop as well (differential coding, here of learned features). Codes stay causal, an image is
still the first frame, and chunks give what the whole gives: the state is part of `Past`.

Shape letters: B clips, t, h, w cells, F features of the encoder, D numbers of a code's point, M numbers of the state.
"""

import torch
from torch import Tensor, nn

from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.quantiser import Quantised, Quantiser

HIDDEN = 256


class Memory(nn.Module):
    """The state of each cell, and the two networks around it, each of one hidden layer and the cell alone."""

    def __init__(self, features: int, vector: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.ask = nn.Sequential(nn.Linear(features + width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, vector))
        """Features and state to the vector that is quantised."""
        self.tell = nn.Sequential(nn.Linear(vector + width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 2 * width))
        """A code's point and the state to what moves the state."""

    def quantise(self, features_BthwF: Tensor, quantiser: Quantiser, past: Past | None = None) -> Quantised:
        """Quantise cell after cell in time, each in view of the state that the codes before it have left."""
        state = self._begin(features_BthwF, past)
        steps = []
        for features in features_BthwF.unbind(1):
            steps.append(quantiser(self.ask(torch.cat([features, state.to(features.dtype)], -1))))
            state = self._next(state, steps[-1].points)
        if past is not None:
            past[self] = state
        codes, points = (torch.stack([getattr(step, name) for step in steps], 1) for name in ("codes", "points"))
        loss, use = (torch.stack([getattr(step, name) for step in steps]).mean() for name in ("loss", "use"))
        return Quantised(codes, points, loss, use)

    def recall(self, points_BthwD: Tensor, past: Past | None = None) -> Tensor:
        """The decoder's side: the states [B, t, h, w, M] after each code, from the points of the codes alone."""
        state = self._begin(points_BthwD, past)
        states = []
        for points in points_BthwD.unbind(1):
            state = self._next(state, points)
            states.append(state)
        if past is not None:
            past[self] = state
        return torch.stack(states, 1).to(points_BthwD.dtype)

    def _begin(self, x_BthwC: Tensor, past: Past | None) -> Tensor:
        if past is not None and self in past:
            state: Tensor = past[self]
            return state
        batch, _, height, width, _ = x_BthwC.shape
        return torch.zeros(batch, height, width, self.width, device=x_BthwC.device)

    def _next(self, state: Tensor, points: Tensor) -> Tensor:
        """A gated mean of old and new, in fp32 and within (-1, 1): a film of any length cannot make it overflow."""
        gate, new = self.tell(torch.cat([points, state.to(points.dtype)], -1)).float().chunk(2, -1)
        moved: Tensor = state + gate.sigmoid() * (new.tanh() - state)
        return moved
