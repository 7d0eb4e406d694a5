"""Who is decoded when: requests come and go at any time, and each clip is that of its request alone.

OneByOne    a request runs to its end before the next one begins
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from vpoet.generate.decode import stream
from vpoet.generate.growing import Filled, Growing, Seen
from vpoet.generate.threads import few_threads


class OneByOne:
    """Requests in the order in which they came."""

    MOST = 1
    """Requests at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Growing, Iterator[Seen | Filled | None]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def join(self, growing: Growing) -> None:
        self._waiting.append((growing, _grow(growing)))

    def leave(self, growing: Growing) -> None:
        """It is made no further."""
        self._waiting = [(each, parts) for each, parts in self._waiting if each is not growing]

    def step(self) -> list[tuple[Growing, Seen | Filled | Exception]]:
        """One pass over the network, and what came of it; who has failed, or has no document left, has left."""
        if not self._waiting:
            return []
        growing, parts = self._waiting[0]
        try:
            part = next(parts)
        except Exception as error:
            self.leave(growing)
            return [(growing, error)]
        if growing.document is None:
            self.leave(growing)
        return [] if part is None else [(growing, part)]


def _grow(growing: Growing) -> Iterator[Seen | Filled | None]:
    """What comes of a request, and None after each pass that gave nothing to see."""
    model, sampling = growing.model, growing.sampling
    while (document := growing.document) is not None:
        if (plan := growing.plan) is None:
            (decoded,) = model.decode([document], [growing.rollout.seed], sampling, growing.on_step)
            yield growing.finish(decoded)
            continue
        tokens = stream(model.decoding, plan, [growing.rollout.seed], sampling)
        while growing.plan is plan:
            lot: list[tuple[Tensor, Tensor]] = []
            while len(lot) < growing.lot:
                with few_threads(model.bundle.transformer):
                    more = list(itertools.islice(tokens, 1))
                if not more:
                    break
                lot += more
                yield None
            ids, nats = zip(*lot, strict=True)
            # a GPU is waited for once a cell
            yield from growing.take(torch.stack(ids)[:, 0].tolist(), torch.stack(nats)[:, 0].tolist())
