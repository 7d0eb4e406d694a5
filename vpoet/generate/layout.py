"""What decoding lays out before its first step, and how it puts the codes back into the documents afterwards.

Shapes: B documents; N slots of the cache: B, or 2B with guidance (document i and its null prompt in slots i and B + i);
S steps; T tokens of all prompts; M sampled codes of a document.
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vpoet.nn.transformer import Transformer
from vpoet.sequence.document import Document, Sequence, Span, build
from vpoet.sequence.vocabulary import Ints, Modality


@dataclass(frozen=True, eq=False, slots=True)
class Decoded:
    """A finished document."""

    document: Document
    nats: npt.NDArray[np.float32]
    """[M] -log p of each sampled code under the plain conditional model (no guidance, no filter), in sequence order."""


def null_prompt(document: Document) -> Document:
    """The same document without its text: what guidance leads away from, and what training sees of a dropped one."""
    spans = (replace(s, values=s.values[:0]) if s.modality is Modality.TEXT else s for s in document.spans)
    return replace(document, spans=tuple(spans))


@dataclass(frozen=True, eq=False, slots=True)
class Plan:
    """All that is known before the first step."""

    sequences: list[Sequence]
    """Of the documents, B."""
    prompts: tuple[int, ...]
    """Tokens that each slot is given, N."""
    size: int
    """Tokens that a slot of the cache must hold."""
    prompt_T: Tensor
    prompt_T3: Tensor
    positions_SN3: Tensor
    ids_SB: Tensor
    known_SB: Tensor
    """True where the token is not to be sampled but taken from ``ids_SB``; so are the idle steps of finished slots."""
    some_known: list[bool]
    alive: list[list[int]]
    """For each step and slot: 1 if the token that was made there is followed by another, else 0."""

    @classmethod
    def of(cls, transformer: Transformer, documents: Items[Document], guided: bool) -> "Plan":
        vocabulary, device = transformer.vocabulary, transformer.language.weight.device
        sequences = [build(document, vocabulary) for document in documents]
        slots = list(sequences)
        if guided and any(s.modality is Modality.TEXT and len(s.values) for d in documents for s in d.spans):
            slots += [build(null_prompt(document), vocabulary) for document in documents]
        prompts = tuple(s.prefix for s in slots)
        last = [int(np.flatnonzero(s.targets)[-1]) for s in slots]
        counts = [stop - start + 1 for start, stop in zip(prompts, last, strict=True)]
        at_SN = np.minimum(np.arange(max(counts))[:, None] + np.array(prompts), last)
        known_SB = np.stack([~s.targets[at_SN[:, i]] for i, s in enumerate(sequences)], axis=1)
        known_SB |= np.arange(max(counts))[:, None] >= np.array(counts[: len(sequences)])

        def move(values: npt.NDArray[np.int32]) -> Tensor:
            return torch.from_numpy(values.astype(np.int64)).to(device)

        return cls(
            sequences=sequences,
            prompts=prompts,
            size=max(last) + 1,  # an idle slot still writes, behind its end
            prompt_T=move(np.concatenate([s.ids[: s.prefix] for s in slots])),
            prompt_T3=move(np.concatenate([s.positions[: s.prefix] for s in slots])),
            positions_SN3=move(np.stack([s.positions[at_SN[:, i]] for i, s in enumerate(slots)], axis=1)),
            ids_SB=move(np.stack([s.ids[at_SN[:, i]] for i, s in enumerate(sequences)], axis=1)),
            known_SB=torch.from_numpy(known_SB).to(device),
            some_known=[bool(row.any()) for row in known_SB],
            alive=(np.arange(max(counts))[:, None] < np.array(counts) - 1).astype(int).tolist(),
        )


def filled(document: Document, sequence: Sequence, codes: Ints, nats: npt.NDArray[np.float32]) -> Decoded:
    """Put what was sampled in each step, codes [S] and nats [S], into the document's targets."""
    steps = np.flatnonzero(sequence.targets) - sequence.prefix
    rest = codes[steps]
    spans: list[Span] = []
    for span in document.spans:
        if span.target:
            mine, rest = np.split(rest, [span.values.size])
            span = replace(span, values=mine.reshape(span.values.shape))
        spans.append(span)
    return Decoded(replace(document, spans=tuple(spans)), nats[steps])
