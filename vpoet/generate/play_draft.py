"""A frame that is being drawn behind guesses (`vpoet.generate.speculate`).

Shapes: R tokens of a frame; W of a pass.
"""

import numpy as np

from vpoet.arrays import Floats, Longs


class Draft:
    """A frame of one document: its tokens as far as they are final, and guesses from there on."""

    def __init__(self, ids_R: Longs, nats_R: Floats, at: int, final: int, width: int) -> None:
        self._ids_R, self._nats_R, self._final, self._width = ids_R, nats_R, final, width
        self._at = at
        """Tokens that are final, and in the cache."""

    @property
    def through(self) -> bool:
        return self._at == len(self._ids_R)

    def offsets(self) -> Longs:
        """[W]: the tokens that go in next. Behind the frame's last one, it idles."""
        return np.minimum(self._at + np.arange(self._width), len(self._ids_R) - 1)

    def take(self, drawn_W: Longs, nats_W: Floats) -> None:
        """What was drawn behind them: final as far as they were right, guesses beyond."""
        start, size = self._at, len(self._ids_R)
        behind = min(start + self._width, size)
        right = True
        while right and self._at < behind:
            self._at += 1
            if self._final <= self._at < size:
                drawn = drawn_W[self._at - 1 - start]
                right = bool(self._ids_R[self._at] == drawn)
                self._ids_R[self._at], self._nats_R[self._at] = drawn, nats_W[self._at - 1 - start]
                self._final = self._at + 1
        for at in range(self._at + 1, min(behind + 1, size)):
            self._ids_R[at] = drawn_W[at - 1 - start]
