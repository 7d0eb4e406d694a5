"""How probable each frame is given those before it, as soon as it is there (VIPER: Escontrela et al., 2023,
arXiv:2305.14343, section 3.2).

Frames are the cells of a clip that is scored (`vpoet.generate.likelihood`): a cell goes through the cache in one pass,
and what comes out is what `Model.score` says of the whole clip. A stream has no end, but a document has: when it is
full, its last half begins the next one, read again in one pass and not told twice.

Shapes: C codes of a cell, D width of the model, V logits.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Codes, Frames
from vpoet.bundle import Bundle
from vpoet.errors import ShapeError
from vpoet.generate.asks.table import served
from vpoet.generate.decoder import Decoding
from vpoet.generate.in_order import Track
from vpoet.generate.observe import observe
from vpoet.generate.threads import few_threads
from vpoet.nn.transformer import VisualHead


@dataclass(frozen=True, slots=True)
class Reward:
    """Of one cell: the frames that came since the one before it."""

    frames: int
    tokens: int
    nats: float
    """-log p of its codes, given the prompt and the cells before: the less, the better."""
    entropy: float
    """Nats that were to be expected: the entropy of each group of digits, given the digits before it."""


class Rewards:
    """A stream: give it frames, one after the other."""

    def __init__(self, bundle: Bundle, decoding: Decoding, prompt: str = "") -> None:
        """PromptError: the model was not trained to make videos of a prompt, or of none."""
        config = bundle.config
        self._bundle, self._decoding = bundle, decoding
        self._size = config.height, config.width
        grid = bundle.video.grid(config.frames, config.height, config.width)
        blank = np.zeros(grid, np.int32)
        self._document = served(bundle, *observe(bundle, blank, float(config.fps), prompt, 0))
        self._cells = grid[0]
        self._recent = deque[Frames](maxlen=bundle.video.frames(max(grid[0] // 2, 1)))
        self._begin()

    def __call__(self, frame: Frames) -> Reward | None:
        """The cell that a frame uint8 [H, W, 3] makes whole; None if it makes none so. ShapeError: the frame is of
        another size than the model's."""
        if frame.shape != (*self._size, 3) or frame.dtype != np.uint8:
            high, wide = self._size
            raise ShapeError(f"frames of this model are uint8 [{high}, {wide}, 3], not {frame.dtype} {frame.shape}")
        if self._done == self._cells:
            self._begin()
            if self._cells > 1:
                self._go_on()
        told = self._take(frame)
        self._recent.append(frame)
        return told

    def _begin(self) -> None:
        self._track = Track(self._decoding, self._document)
        self._waiting, self._done = deque[Frames](), 0
        self._codes = self._bundle.video.encode_stream(self._given(), chunk_cells=1)

    def _go_on(self) -> None:
        """The last frames begin the document; they are read in one pass with the cell that comes next."""
        self._waiting.extend(self._recent)
        with few_threads(self._bundle.transformer):
            known = np.concatenate([next(self._codes) for _ in range(self._cells // 2)])
            self._track.before(0)
        ids = self._decoding.transformer.vocabulary.ids(known.reshape(-1), "codes")
        self._track.sequence.ids[self._track.predicted[: known.size]] = ids
        self._done = len(known)

    def _given(self) -> Iterator[Frames]:
        while True:
            yield self._waiting.popleft()

    def _take(self, frame: Frames) -> Reward | None:
        self._waiting.append(frame)
        wanted = self._bundle.video.stride[0] if self._done else 1
        if len(self._waiting) < wanted:
            return None
        with few_threads(self._bundle.transformer):
            told = self._read(next(self._codes)[0], wanted)
        self._done += 1
        return told

    @torch.inference_mode()
    def _read(self, codes: Codes, frames: int) -> Reward:
        transformer, track, count = self._decoding.transformer, self._track, codes.size
        predicted = track.predicted[self._done * count : (self._done + 1) * count]
        ids = transformer.vocabulary.ids(codes.reshape(-1), "codes")
        states = [] if self._done else [track.before(0)]
        track.sequence.ids[predicted] = ids
        if self._done or count > 1:
            states.append(track.read(int(predicted[-1])))
        h_CD = torch.cat(states)[-count:]
        ids_C = torch.from_numpy(ids.astype(np.int64)).to(h_CD.device)
        nats = float(transformer.head("codes")(h_CD, ids_C, 0.0).sum())
        return Reward(frames, count, nats, entropy(transformer.visual, h_CD, ids_C - transformer.ranges["codes"].start))


def entropy(head: VisualHead, h_CD: Tensor, codes_C: Tensor) -> float:
    """Nats, summed over codes and groups of digits: the entropy of each group given the digits before it."""
    digits = head.digits(codes_C)
    logits_CV, total = head.first(h_CD), 0.0
    for group in range(len(digits)):
        if group:
            h_CD, logits_CV = head.following(group, h_CD, digits[group - 1])
        log_CV = logits_CV.float().log_softmax(-1)
        total -= float((log_CV.exp() * log_CV).sum())
    return total
