"""Speculative decoding that reproduces sequential sampling exactly: codes are guessed, several a pass, and tested.

A code is the largest of logits + noise, and a document's seed fixes the noise of each step (`draw`): given what stands
before it, it is determined. So the next codes may be guessed, however badly. One pass over the last code that is known
and K guesses behind it draws the K + 1 codes after them; those that were drawn behind right guesses alone are the
sample itself, with its guidance, temperature and filters.

    goes in     c7  g8  g9  g10 g11        c7 is known, K = 4
    is drawn        d8  d9  d10 d11 d12
                    =   =   no             g8 and g9 were right: d8, d9 and d10 are codes 8, 9 and 10

A pass adds one code at least, so there are never more passes than codes. What was drawn behind a wrong guess, d11 and
d12, is the next pass's guess: drawn with the noise of its step, it mostly stays what it is once the code before it is
corrected (Jacobi iteration coupled by Gumbel noise: So et al., arXiv:2510.24211). A step that was never drawn is
guessed to be as the same place one cell of time before it, since much of a video stands still; or, where a clip is
drawn again (`vpoet.generate.edit`), as what it was.

The codes are those of one code a pass bit for bit, as far as a token comes out the same alone and beside others. On a
CPU, uncompiled, it does (`vpoet.nn.steady`, `vpoet.nn.cache.TILE`), in fp32, bf16 and int8. A compiled step and a GPU
choose kernels by the number of tokens, and their rounding may turn a near tie: rare in fp32, a matter of course in
bf16, where what is drawn is another sample.

Keys and values of wrong guesses need no care. The next pass begins at or before the first of them and ends behind the
last, so it writes over all of them before any is read (`attend_ahead`).

Shapes: B documents; N slots of the cache, B or, with guidance, 2B; W = K + 1 tokens of a pass; S steps; D model width;
V logits of all groups; L tokens of a document.
"""

from collections.abc import Iterator
from collections.abc import Sequence as Items

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Floats, Ints, Longs
from vpoet.generate.decoder import Decoder
from vpoet.generate.noise import Noise
from vpoet.generate.plan import Plan
from vpoet.generate.transfer import send
from vpoet.sequence.document import Sequence

_BEFORE = ((1, 0, 0), (0, 0, 1), (0, 1, 0))
"""Where a first guess is taken from, (t, h, w) back: the cell before in time, or else that to the left, or above."""


def speculate(decoder: Decoder, plan: Plan, noises: Items[Noise]) -> Iterator[tuple[Tensor, Tensor]]:
    """The tokens of each step and their nats, [B], [B], ``plan.steps`` times.

    Each document goes on as far as its own guesses were right; a step is handed out when all have passed it.
    """
    device, width = decoder.device, decoder.width
    drafts = [Draft(plan, i, width, noise) for i, noise in enumerate(noises)]
    sources = len(plan.slots) // len(drafts)
    slot_N1 = torch.arange(len(plan.slots), device=device)[:, None]

    def noise(count: int) -> Tensor:
        return send(np.concatenate([draft.noise(count) for draft in drafts]), device)

    drawn = decoder.draw(noise(1))
    passed = 0
    while True:
        ids, nats = torch.stack([x.double() for x in drawn]).view(2, len(drafts), -1).cpu().numpy()  # one wait, not two
        for draft, ids_W, nats_W in zip(drafts, ids, nats, strict=True):
            draft.take(ids_W, nats_W)
        until = min(draft.done for draft in drafts)
        for at in range(passed, until):
            codes, surprise = zip(*(draft.of(at) for draft in drafts), strict=True)
            yield torch.tensor(codes), torch.tensor(surprise)
        passed = until
        if passed == plan.steps:
            return

        step_NW = np.stack(
            [np.minimum(draft.done - 1 + np.arange(width), plan.steps - 1) for draft in drafts] * sources
        )
        at_NW = send(step_NW, device)
        turn_NW2P, place_NW = plan.turn_SN2P[at_NW, slot_N1], plan.place_SN[at_NW, slot_N1]
        ids_BW = send(np.stack([draft.guess(width) for draft in drafts]), device)
        longest = plan.longest[int(step_NW.max())]
        drawn = decoder.step(ids_BW, turn_NW2P, place_NW, longest, noise(width), plan.control(at_NW))


class Draft:
    """One document: its codes as far as they are known, and guesses from there on."""

    def __init__(self, plan: Plan, index: int, width: int, noise: Noise) -> None:
        sequence, steps = plan.slots[index], plan.steps
        self.done = 0
        """Steps whose token is final."""
        self._prefix, self._steps, self._fresh = sequence.prefix, steps, noise
        # a document that is finished before others goes on with tokens that nothing depends on
        room = max(0, sequence.prefix + steps + width - len(sequence))
        self._ids_L: Longs = np.pad(sequence.ids, (0, room)).astype(np.int64)
        self._predicted_L = np.zeros(len(self._ids_L), np.bool_)
        self._predicted_L[self._prefix : self._prefix + steps] = plan.drawn_SB[:, index]
        self._nats_L = np.zeros(len(self._ids_L), np.float32)
        self._origins_L = np.arange(len(sequence)) if plan.redrawn[index] else origins(sequence)
        self._guessed = sequence.prefix
        """Tokens that are known or have been guessed or drawn."""
        self._noise_WV = noise(0)

    def noise(self, count: int) -> Floats:
        """Of the next ``count`` steps, [count, V]."""
        held = len(self._noise_WV)
        if held < count:
            self._noise_WV = np.concatenate([self._noise_WV, self._fresh(count - held)])
        return self._noise_WV[:count]

    def guess(self, width: int) -> Longs:
        """The last final token and guesses behind it, [width]."""
        first = self._prefix + self.done - 1
        for at in range(self._guessed, first + width):
            if self._predicted_L[at]:
                self._ids_L[at] = self._ids_L[self._origins_L[at]]
        self._guessed = max(self._guessed, first + width)
        return self._ids_L[first : first + width]

    def take(self, ids_W: Longs, nats_W: Floats) -> None:
        """What was drawn for the next W steps behind the guesses: final as far as these were right, guesses beyond."""
        first, width = self._prefix + self.done, len(ids_W)
        here = slice(first, first + width)
        ids_W = np.where(self._predicted_L[here], ids_W, self._ids_L[here])
        right_K = ids_W[:-1] == self._ids_L[here][:-1]
        self._ids_L[here], self._nats_L[here] = ids_W, nats_W
        self._guessed = max(self._guessed, first + width)
        final = 1 + int(right_K.cumprod().sum())
        self.done = min(self.done + final, self._steps)
        self._noise_WV = self._noise_WV[final:]

    def of(self, step: int) -> tuple[int, float]:
        """The token of a step and its nats."""
        return int(self._ids_L[self._prefix + step]), float(self._nats_L[self._prefix + step])


def origins(sequence: Sequence) -> Ints:
    """[L]: the earlier token that each predicted one is first guessed to be like; 0 for all others.

    It stands in the place before in time, or, where nothing has been there, to the left or above; else it is the token
    before, whatever that is.
    """
    found = np.zeros(len(sequence), np.int32)
    visual = np.flatnonzero(sequence.visual)
    latest: dict[tuple[int, int, int], int] = {}
    positions, targets = sequence.positions[visual].tolist(), sequence.targets[visual].tolist()
    for at, (t, h, w), target in zip(visual.tolist(), positions, targets, strict=True):
        if target:
            near = (latest.get((t - dt, h - dh, w - dw)) for dt, dh, dw in _BEFORE)
            found[at] = next((other for other in near if other is not None), at - 1)
        latest[t, h, w] = at
    return found
