"""A clip that grows: a request's tokens in, as they are drawn, and frames out, to look at while the rest is made.

tokens   | cell 0 | cell 1       | cell 2       |
seen              | 0            | 1 2 3 4      | 5 6 7 8       to the rounding of a pixel (`vpoet.generate.view`)
filled                                         | 0 1 .. 8      the clip's frames, bit for bit

`vpoet.generate.batching` brings the tokens.
"""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Frames, Mask
from vpoet.generate import in_order
from vpoet.generate.edit import Draws
from vpoet.generate.model import Model
from vpoet.generate.plan import Decoded, Plan, filled
from vpoet.generate.request import Request
from vpoet.generate.sampling import Sampling
from vpoet.generate.threads import few_threads
from vpoet.generate.view import View, frames_before, target_of
from vpoet.sequence.document import Document
from vpoet.tokenizer.contract import Tokenizer

OnPart = Callable[[float], None]
"""Told which part of a clip is made, 0 to 1, with each pass; what it raises ends the work."""


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """Frames uint8 [T, H, W, 3] to look at, from the clip's frame ``first`` on."""

    first: int
    frames: Frames


@dataclass(frozen=True, slots=True)
class Surprise:
    """How much a cell of time surprised the model that drew it."""

    first: int
    """The clip's frame with which it begins."""
    frames: int
    nats: float
    """Of all its codes that were drawn, under the plain conditional model."""
    tokens: int


@dataclass(frozen=True, eq=False, slots=True)
class Filled:
    """A document that is done, and the frames uint8 [T, H, W, 3] that it adds to the clip."""

    decoded: Decoded
    frames: Frames
    surprise: tuple[Surprise, ...]


class Growing:
    """One request on its way. While there is a `document`, hand over its tokens (`take`), or all at once (`finish`)."""

    def __init__(self, model: Model, request: Request, sampling: Sampling, on_part: OnPart = lambda part: None) -> None:
        """The errors are those of `Model.rollout` and `Draws.of`, of `take` and `finish` those of `Rollout.take`."""
        self.model, self.sampling = model, sampling
        self.rollout = model.rollout(request)
        self._on_part = on_part
        self._made, self._documents = 0, 0
        self._begin()

    @property
    def document(self) -> Document | None:
        """The one that is being filled."""
        return self.rollout.document

    @property
    def lot(self) -> int:
        """Tokens of a cell of time: with so many there is something to see."""
        assert self.document is not None
        return math.prod(target_of(self.document).values.shape[1:])

    def on_step(self, step: int, steps: int) -> None:
        """Tell how far the document is."""
        self._on_part((self._documents + step / max(1, steps)) / self.rollout.count)

    def _begin(self) -> None:
        self.plan: Plan | None = None
        """What is known of the document's steps; None where it is filled at once."""
        self._view: View | None = None
        document = self.document
        if document is None or in_order.needed(self.model.decoding, [document]):
            return
        with few_threads(self.model.bundle.transformer):  # of an edit, the noise is read from its clip
            self.draws = Draws.of(self.model.decoding, self.rollout.seed, self.sampling)
        guided = self.sampling.guidance != 1
        self.plan = Plan.of(self.model.bundle.transformer, [document], guided, [self.draws.kept])
        self._ids: list[int] = []
        self._nats: list[float] = []
        if not self.rollout.tiled:
            self._view = View(document, self.plan, self.model.bundle.video)

    def take(self, ids: Items[int], nats: Items[float]) -> Iterator[Seen | Filled]:
        """The tokens of the next steps, and their nats; what there is to see now."""
        assert self.plan is not None
        assert self.document is not None
        self._ids += ids
        self._nats += nats
        self.on_step(len(self._ids), self.plan.steps)
        start = self.model.bundle.transformer.ranges["codes"].start
        for first, frames in self._view.take([token - start for token in ids]) if self._view else ():
            if first + len(frames) > self.rollout.known:
                yield Seen(self._made + first - self.rollout.known, frames)
        if len(self._ids) == self.plan.steps:
            codes = (np.array(self._ids) - start).astype(np.int32)
            surprise = np.array(self._nats, np.float32)
            yield self.finish(filled(self.document, self.plan, 0, codes, surprise))

    def finish(self, decoded: Decoded) -> Filled:
        """The document, filled; `document` is the next one then."""
        skipped, at = self.rollout.known, self._made
        kept = None if self.plan is None else self.draws.kept
        surprise = tuple(
            Surprise(at + first - skipped, frames, nats, tokens)
            for first, frames, nats, tokens in _surprises(decoded, self.model.bundle.video, kept)
            if not self.rollout.tiled
        )
        drawn = None if self._view is None else self._view.whole(decoded.document.codes())
        frames = np.concatenate(list(self.rollout.take(decoded.document, drawn)))
        self._made += len(frames)
        self._documents += 1
        self._begin()
        return Filled(decoded, frames, surprise)


def _surprises(decoded: Decoded, tokenizer: Tokenizer, kept_M: Mask | None) -> Iterator[tuple[int, int, float, int]]:
    """(first frame of the document's clip, frames, nats, tokens) of each cell of which something was drawn; of what is
    predicted, an edit keeps some."""
    nats, target = decoded.nats, target_of(decoded.document)
    (predicted,) = (m for s, m in zip(decoded.document.spans, decoded.document.predicted(), strict=True) if s.target)
    drawn = predicted.copy()
    if kept_M is not None:
        drawn[predicted] = ~kept_M
    for cell, mine in enumerate(drawn, target.time):
        tokens = int(mine.sum())
        if tokens:
            own, nats = np.split(nats, [tokens])
            first = frames_before(cell, tokenizer)
            yield first, tokenizer.frames(cell + 1) - first, float(own.sum()), tokens
