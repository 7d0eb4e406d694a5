"""The frames of a document while its tokens come: cell after cell, so that they can be looked at before it is done.

    tokens   | cell 0 | cell 1       | cell 2
    frames            | 0            | 1 2 3 4      | 5 6 7 8

Where a machine draws a clip cell by cell with the same bits as at once, they are the clip's, and are drawn only once.
"""

import functools
import math
from collections.abc import Hashable
from collections.abc import Sequence as Items

import numpy as np
import torch

from vpoet.arrays import Codes, Frames
from vpoet.generate.plan import Plan
from vpoet.generate.threads import few_threads
from vpoet.sequence.document import Document
from vpoet.sequence.spans import Span
from vpoet.tokenizer.contract import CHUNK, Tokenizer
from vpoet.tokenizer.layers import Past
from vpoet.tokenizer.network import Network


class View:
    """What there is to see of a document's clip while its tokens come."""

    def __init__(self, document: Document, plan: Plan, tokenizer: Tokenizer) -> None:
        (sequence, *_), target = plan.slots, target_of(document)
        given = [span.values for span in document.spans if span.in_clip and not span.target]
        self._tokenizer, self._past = tokenizer, Past()
        self._drawn: list[Frames] = []
        """Of each cell."""
        self._codes = np.concatenate([*given, target.values])
        self._size = math.prod(self._codes.shape[1:])
        # the target is the last visual span of its document
        begin = int(np.flatnonzero(sequence.visual)[-target.values.size])
        self._known = self._codes.size - target.values.size + sequence.prefix - begin

    def take(self, codes: Items[int]) -> list[tuple[int, Frames]]:
        """The next codes; (first frame of the document's clip, frames) of each cell that is whole."""
        self._codes.reshape(-1)[self._known : self._known + len(codes)] = codes
        self._known += len(codes)
        if not _by_cells(self._tokenizer):
            return []
        return [self._draw(self._codes) for _ in range(len(self._drawn), self._known // self._size)]

    def _draw(self, codes: Codes) -> tuple[int, Frames]:
        at = len(self._drawn)
        with few_threads(self._tokenizer.model):
            self._drawn.append(self._tokenizer.decode_next(codes[at : at + 1], self._past))
        return frames_before(at, self._tokenizer), self._drawn[-1]

    def whole(self, codes: Codes) -> Frames | None:
        """The frames uint8 [T, H, W, 3] of the document's clip, which has come to these codes [t, h, w]; None where
        they have to be drawn at once."""
        shown = len(self._drawn)
        if not (_by_cells(self._tokenizer) and np.array_equal(codes[:shown], self._codes[:shown])):
            return None
        assert isinstance(self._tokenizer, Hashable)
        if not same_by_cells(self._tokenizer, codes.shape, torch.get_num_threads()):
            return None
        while len(self._drawn) < len(codes):
            self._draw(codes)
        return np.concatenate(self._drawn)


def target_of(document: Document) -> Span:
    """The span that is made."""
    (target,) = (span for span in document.spans if span.target)
    return target


def frames_before(cell: int, tokenizer: Tokenizer) -> int:
    """Frames of a clip before this cell of time."""
    return tokenizer.frames(cell) if cell else 0


def _by_cells(tokenizer: Tokenizer) -> bool:
    """A network that is not causal, or that sees ahead, shows nothing before all is there."""
    return tokenizer.causal and not getattr(tokenizer.model, "sees_ahead", False)


@functools.lru_cache(64)
@torch.no_grad()
def same_by_cells(tokenizer: Tokenizer, grid: tuple[int, ...], threads: int) -> bool:
    """Whether this machine draws a clip of these cells (t, h, w) one after the other, with `few_threads`, with the bits
    of `Tokenizer.decode` with so many threads. Kernels are chosen by sizes, so a clip of random codes is tried."""
    network = tokenizer.model
    if tokenizer.device.type != "cpu" or not isinstance(network, Network):
        return False
    random = np.random.default_rng(0).integers(0, tokenizer.codebook_size, (1, *grid))
    codes = torch.from_numpy(random)

    def drawn(cells: int) -> torch.Tensor:
        past: Past = {}
        pieces = codes.split(cells, 1)  # type: ignore[no-untyped-call]
        return torch.cat([network.decode(piece, past) for piece in pieces], 2)

    with few_threads(network):
        by_cells = drawn(1)
    return torch.equal(by_cells, drawn(CHUNK))
