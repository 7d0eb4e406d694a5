"""How probable a clip is: -log p of each of its codes under the model, exactly, in one forward pass.

The codes of a clip are drawn one after another, so -log p of the clip is the sum over them, each given the prompt and
all codes before it: the very terms that training sums up, at temperature 1, without guidance and filters.

It is the likelihood of the *codes*, not of the pixels: what the tokenizer leaves out costs nothing. Figures compare
clips and prompts under one tokenizer; bits per pixel are no match for those of a pixel model, nor for a codec's unless
both tell what they leave out (`vpoet.evaluate.reconstruction` does). A clip that was sampled, written and read again
has other codes than those that were drawn, as far as the tokenizer is not exact.

Shapes: t, h, w cells of a clip in time, height and width.
"""

import math
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vpoet.arrays import Doubles, Floats
from vpoet.errors import ShapeError
from vpoet.nn.nats import PackTensors, pack_nats
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Backend
from vpoet.sequence.document import Document, Sequence, build
from vpoet.sequence.packing import BestFit, pack
from vpoet.sequence.windows import windowed


@dataclass(frozen=True, slots=True)
class Information:
    """An amount of it."""

    nats: float

    @property
    def bits(self) -> float:
        return self.nats / math.log(2)


@dataclass(frozen=True, eq=False, slots=True)
class Likelihood:
    """-log p of the codes of one clip."""

    task: str
    """What the model was asked to do, a name of `vpoet.sequence.tasks.TABLE`."""
    cells: Doubles
    """[t, h, w]: nats of each code; NaN where the code was given and not predicted."""
    stride: tuple[int, int, int]
    """(r, s, s): frames, pixels down and pixels across that a code stands for."""
    first: int = 1
    """Frames of the first cell of time."""

    @property
    def edges(self) -> npt.NDArray[np.int64]:
        """[t + 1]: cell i in time stands for the frames from ``edges[i]`` up to, not with, ``edges[i + 1]``."""
        return np.concatenate(([0], self.first + self.stride[0] * np.arange(len(self.cells))))

    @property
    def tokens(self) -> int:
        """Codes that were predicted."""
        return int(self._predicted.sum())

    @property
    def frames(self) -> int:
        """Frames that the predicted codes stand for."""
        return int(np.diff(self.edges)[self._predicted.any(axis=(1, 2))].sum())

    @property
    def pixels(self) -> int:
        """Pixels, over all frames, that the predicted codes stand for."""
        codes = self._predicted.sum(axis=(1, 2))
        return int((codes * np.diff(self.edges)).sum()) * self.stride[1] * self.stride[2]

    @property
    def total(self) -> Information:
        """-log p of the clip's predicted codes together."""
        return Information(float(np.nansum(self.cells)))

    @property
    def per_token(self) -> Information:
        return Information(self.total.nats / self.tokens)

    @property
    def per_frame(self) -> Information:
        return Information(self.total.nats / self.frames)

    @property
    def per_pixel(self) -> Information:
        return Information(self.total.nats / self.pixels)

    @property
    def by_time(self) -> Doubles:
        """[t]: nats of each cell in time, NaN where all of it was given; they add up to the total."""
        return np.where(self._predicted.any(axis=(1, 2)), np.nansum(self.cells, axis=(1, 2)), np.nan)

    @property
    def surprise(self) -> Doubles:
        """[t]: mean bits of the codes of each cell in time, NaN where all of it was given.

        A mean over codes, not over frames: the first cell spends as many codes on its one frame as others on r.
        """
        bits: Doubles = self.by_time / math.log(2) / self._predicted.sum(axis=(1, 2))
        return bits

    @property
    def _predicted(self) -> npt.NDArray[np.bool_]:
        return ~np.isnan(self.cells)


def likelihoods(
    transformer: Transformer,
    documents: Items[Document],
    *,
    attention: Backend,
    stride: tuple[int, int, int],
    first: int = 1,
    length: int,
    bidirectional: bool = False,
    window: int = 0,
) -> list[Likelihood]:
    """The likelihood of the visual targets of each document, given its other spans; the arguments are those of
    `token_nats` and `Likelihood`. ShapeError: a document without a visual target."""
    sequences = [build(document, transformer.vocabulary) for document in documents]
    for document, sequence in zip(documents, sequences, strict=True):
        if not (sequence.targets & sequence.visual).any():
            raise ShapeError(f"a document of task {document.task} without an image or video to predict has no score")
    how: dict[str, Any] = {"length": length, "bidirectional": bidirectional, "window": window}
    scored = zip(documents, sequences, token_nats(transformer, documents, attention, **how), strict=True)
    return [Likelihood(one.task, _on_grid(one, sequence, nats), stride, first) for one, sequence, nats in scored]


@torch.inference_mode()
def token_nats(
    transformer: Transformer,
    documents: Items[Document],
    attention: Backend,
    *,
    length: int,
    bidirectional: bool = False,
    window: int = 0,
) -> list[Floats]:
    """For each document [M]: -log p of each token that is predicted in it, codes, texts, actions and outcomes, in the
    order of its sequence; of one that was decoded they are what `Decoded.nats` says.

    Documents are packed into rows of ``length`` tokens, as in training, or of the longest one's length; what comes out
    does not depend on the others but for rounding. ``bidirectional``: the model reads prompts both ways. ``window``:
    frames for which it sees a frame, 0 if to the end.
    """
    assert not transformer.training, "dropout would be scored too: call eval() first"
    sequences = [windowed(build(document, transformer.vocabulary), document, window) for document in documents]
    rows = BestFit[int](max(length, *map(len, sequences), 1), max(len(sequences), 1))
    for index, sequence in enumerate(sequences):
        rows.add(len(sequence), index)
    found: dict[int, Floats] = {}
    device = transformer.language.weight.device
    while members := rows.take():
        parts = [sequences[i] for i in members]
        row = pack(parts, sum(map(len, parts)), bidirectional=bidirectional)
        nats = pack_nats(transformer, attention, PackTensors.of(row, device)).cpu().numpy()
        ends = np.cumsum([part.targets.sum() for part in parts])
        found |= zip(members, np.split(nats, ends[:-1]), strict=True)
    return [found[i] for i in range(len(documents))]


def posterior(scores: Items[Likelihood]) -> Doubles:
    """[n]: p(prompt | clip) of the n prompts that a clip was scored with, if one of them is true and each was as
    probable before (Bayes' rule)."""
    nats = np.array([score.total.nats for score in scores])
    weights = np.exp(nats.min() - nats)
    shares: Doubles = weights / weights.sum()
    return shares


def _on_grid(document: Document, sequence: Sequence, nats: npt.NDArray[np.float32]) -> Doubles:
    """The nats [M] of a document's predicted tokens, laid on the clip's grid [t, h, w] by the codes' positions."""
    visual = sequence.visual
    cells = np.full(document.codes().shape, np.nan)
    at = sequence.positions[sequence.targets & visual] - sequence.positions[visual].min(axis=0)
    cells[tuple(at.T)] = nats[visual[sequence.targets]]
    return cells
