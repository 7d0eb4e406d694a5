"""What decoding lays out before its first step, and how it puts the codes back into the documents afterwards.

Shapes: B documents; N slots of the cache: B, or 2B with guidance (document i and its null prompt in slots i and B + i);
S steps; P rotated pairs of a head, or places where controls add (`vpoet.nn.control`); M sampled codes of a document.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vpoet.arrays import Ints, Mask
from vpoet.errors import PromptError
from vpoet.generate.controlled import controlled
from vpoet.generate.transfer import send
from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import Document, Sequence, Span, build
from vpoet.sequence.vocabulary import Modality


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """A finished document."""

    document: Document
    nats: npt.NDArray[np.float32]
    """[M] -log p of each sampled code under the plain conditional model (no guidance, no filter), in sequence order."""


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """What is known of the steps before the first one."""

    documents: int
    slots: list[Sequence]
    """N: of the documents and, with guidance, of their null prompts."""
    steps: int
    size: int
    """Tokens that a slot of the cache must hold."""
    turn_SN2P: Tensor
    """Rotation of the position of the token that a step makes (`Transformer.rotation`)."""
    place_SN: Tensor
    """Tokens before it in its slot; a finished slot idles at its last."""
    longest: list[int]
    """Tokens in the fullest slot once the step's token is written."""
    ids_SB: Tensor
    known_SB: Tensor
    """True where the token is not to be sampled but taken from ``ids_SB``; so are the idle steps of finished slots."""
    redrawn: list[bool]
    """Of each document: whether it holds codes that it is likely to get again."""
    drawn_SB: Mask
    """The others, in the host's memory."""
    some_known: list[bool]
    control_PSND: Tensor | None
    """What controls add to the token that a step makes; None: there are none."""

    def control(self, steps: Tensor | int) -> Tensor | None:
        """What is added to tokens that go in together, [P, N * W, D]: of steps [N, W], or of one step of all slots."""
        if self.control_PSND is None:
            return None
        if isinstance(steps, int):
            return self.control_PSND[:, steps]
        slot_N1 = torch.arange(len(self.slots), device=steps.device)[:, None]
        return self.control_PSND[:, steps, slot_N1].flatten(1, 2)

    @classmethod
    def of(
        cls, transformer: Transformer, documents: Items[Document], guided: bool, kept: Items[Mask | None] = ()
    ) -> "Plan":
        """``kept`` [M], for each document that holds codes already: which of the predicted ones stay what they are.

        PromptError: a document has targets that are no images or videos.
        """
        vocabulary, device = transformer.vocabulary, transformer.language.weight.device
        for document in documents:
            if any(s.target and s.modality not in (Modality.IMAGE, Modality.VIDEO) for s in document.spans):
                raise PromptError(f"a document of task {document.task} has targets that are no images or videos")
        slots = [build(document, vocabulary) for document in documents]
        if guided and any(
            any(c.strength for c in d.controls) or any(s.modality is Modality.TEXT and len(s.values) for s in d.spans)
            for d in documents
        ):
            slots += [build(document.unprompted(), vocabulary) for document in documents]
        last = [int(np.flatnonzero(s.targets)[-1]) for s in slots]
        counts = np.array([stop - s.prefix + 1 for s, stop in zip(slots, last, strict=True)])
        step_S = np.arange(counts.max())[:, None]
        at_SN = np.minimum(step_S + np.array([s.prefix for s in slots]), last)
        known_SB = np.stack([~s.targets[at_SN[:, i]] for i, s in enumerate(slots[: len(documents)])], axis=1)
        known_SB |= step_S >= counts[: len(documents)]
        for i, kept_M in enumerate(kept):
            if kept_M is not None:
                known_SB[np.flatnonzero(slots[i].targets)[kept_M] - slots[i].prefix, i] = True

        def move(values: npt.NDArray[Any]) -> Tensor:
            return send(values.astype(np.int64), device)

        control_PTD = controlled(transformer, slots, [len(s) for s in slots])
        if control_PTD is not None:
            begins_N = np.cumsum([0, *(len(s) for s in slots[:-1])])
            control_PTD = control_PTD[:, move(at_SN + begins_N)]
        positions_SN3 = move(np.stack([s.positions[at_SN[:, i]] for i, s in enumerate(slots)], axis=1))
        return cls(
            documents=len(documents),
            slots=slots,
            steps=len(step_S),
            size=max(last) + 1,
            turn_SN2P=torch.stack(transformer.rotation(positions_SN3.flatten(0, 1)), dim=1).view(*at_SN.shape, 2, -1),
            place_SN=move(at_SN),
            longest=(at_SN.max(1) + 1).tolist(),
            ids_SB=move(np.stack([s.ids[at_SN[:, i]] for i, s in enumerate(slots[: len(documents)])], axis=1)),
            known_SB=send(known_SB, device),
            redrawn=[kept_M is not None for kept_M in kept] or [False] * len(documents),
            drawn_SB=~known_SB,
            some_known=[bool(known_B.any()) for known_B in known_SB],
            control_PSND=control_PTD,
        )


def filled(document: Document, plan: Plan, index: int, codes: Ints, nats: npt.NDArray[np.float32]) -> Decoded:
    """Put what was sampled in each step of document number ``index``, codes [S] and nats [S], into its targets."""
    sequence = plan.slots[index]
    steps = np.flatnonzero(sequence.targets) - sequence.prefix
    rest = codes[steps]
    spans: list[Span] = []
    for span, predicted in zip(document.spans, document.predicted(), strict=True):
        mine, rest = np.split(rest, [predicted.sum()])
        values = span.values.copy()
        values[predicted] = mine
        spans.append(replace(span, values=values))
    return Decoded(replace(document, spans=tuple(spans)), nats[steps][plan.drawn_SB[steps, index]])
