"""Documents of any targets, filled in their order: texts, whose length is the model's to say, images, videos, actions
and outcomes; with a window, where the model was trained with one.

    <bos> .. <target:text> | p0 p1 <close:text> <target:image> header | c0 c1 .. <close:image> <context:text> ..
    read as a pack           one a step, until known: read at once    one a step known: read at once
                             it closes

`vpoet.generate.decode` hands over what needs this; documents of images and videos alone are faster in its batches.
Documents are filled one after the other. A text target is laid out as long as it may become, and closed where the
model closes it: nothing before it moves, and what follows is laid out again.

Shapes: L tokens of a document; N tracks: the document, and with guidance its null prompt; S places of a cache; D width.
"""

import warnings
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from vpoet.arrays import Ints
from vpoet.errors import VpoetWarning
from vpoet.generate.controlled import controlled
from vpoet.generate.decoder import Decoding
from vpoet.generate.heads import Heads
from vpoet.generate.plan import Decoded
from vpoet.generate.sampling import Sampling
from vpoet.nn.cache import KVCache, attend_where
from vpoet.nn.steady import steady
from vpoet.nn.visibility import Visibility
from vpoet.sequence.document import FORMS, KINDS, Document, Sequence, build, parse
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.sequence.windows import windowed

LONGEST = 64
"""Pieces of a text target at most, unless others are asked for."""
_VISUAL = (Modality.IMAGE, Modality.VIDEO)


def needed(decoding: Decoding, documents: Items[Document]) -> bool:
    """Whether documents have other targets than images and videos, or their model a window."""
    targets = (span for document in documents for span in document.spans if span.target)
    return decoding.window > 0 or any(span.modality not in _VISUAL for span in targets)


@torch.inference_mode()
def fill(
    decoding: Decoding,
    documents: Items[Document],
    seeds: Items[int],
    sampling: Sampling,
    on_step: Callable[[int, int], None] | None = None,
    longest: int = LONGEST,
) -> list[Decoded]:
    """Fill the targets of ``documents``, as `vpoet.generate.decode.decode` does; what they hold is ignored.

    A text target that the model has not closed after ``longest`` pieces is closed, with a VpoetWarning. The build
    and the guesses of `Decoding` are for batches of steps, and not used here.
    """
    network = steady(decoding.transformer)
    decoding, heads = replace(decoding, transformer=network), Heads(network, sampling)
    blank = [_blank(document, longest) for document in documents]
    total = sum(int(build(document, network.vocabulary).targets.sum()) for document in blank)
    filled: list[Decoded] = []
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step:
            on_step(done, total)

    if on_step:
        on_step(0, total)
    for document, seed in zip(blank, seeds, strict=True):
        generator = np.random.default_rng(seed)
        filled.append(_Filling(decoding, heads, document, sampling.guidance != 1).run(generator, longest, step))
    if on_step and done < total:
        on_step(total, total)
    return filled


def _blank(document: Document, longest: int) -> Document:
    """With text targets as long as they may become."""
    room = np.zeros(longest, np.int32)
    spans = (replace(s, values=room) if s.target and s.modality is Modality.TEXT else s for s in document.spans)
    return replace(document, spans=tuple(spans))


class Track:
    """A document on a cache of its own, and how far it has been read."""

    def __init__(self, decoding: Decoding, document: Document) -> None:
        self._decoding = decoding
        self.lay(document, [])
        config, weight = decoding.transformer.config, decoding.transformer.language.weight
        self._cache = KVCache(
            layers=config.depth,
            slots=1,
            size=len(self.sequence),
            kv_heads=config.kv_heads,
            head=config.head,
            like=weight,
        )
        self._read = 0

    @property
    def vocabulary(self) -> Vocabulary:
        return self._decoding.transformer.vocabulary

    def lay(self, document: Document, drawn: list[int]) -> None:
        """The document anew, with the tokens that have been drawn; what has been read of it stays as it was."""
        transformer = self._decoding.transformer
        sequence = windowed(build(document, transformer.vocabulary), document, self._decoding.window)
        self.predicted = np.flatnonzero(sequence.targets)
        self.sequence: Sequence = replace(sequence, ids=sequence.ids.copy())
        self.sequence.ids[self.predicted[: len(drawn)]] = drawn
        self._control_PTD = controlled(transformer, [sequence], [len(sequence)])

    def before(self, number: int) -> Tensor:
        """The state [1, D] that predicts the ``number``-th predicted token: all before it is read."""
        return self.read(int(self.predicted[number]))[-1:]

    def read(self, stop: int) -> Tensor:
        """The states [W, D] of the tokens up to, not with, ``stop`` that had not been read; there is one at least. The
        first call reads the prompt alone: a model that reads prompts both ways takes all of it for one."""
        assert stop > self._read
        here = slice(self._read, stop)
        ids_T, positions_T3 = (
            torch.from_numpy(x[here].astype(np.int64)).to(self._cache.keys[0].device)
            for x in (self.sequence.ids, self.sequence.positions)
        )
        attend = self._prefill(stop) if self._read == 0 else self._extend(here)
        self._read = stop
        control_PTD = None if self._control_PTD is None else self._control_PTD[:, here]
        h_TD: Tensor = self._decoding.transformer(ids_T, positions_T3, attend, control_PTD=control_PTD)
        return h_TD

    def _prefill(self, stop: int) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        until = None if self.sequence.until is None else (self.sequence.until[:stop],)
        visibility = Visibility((stop,), (stop if self._decoding.bidirectional else 0,), until)
        return self._cache.prefill(visibility, self._decoding.attention(visibility, self._cache.keys[0].device))

    def _extend(self, here: slice) -> Callable[[int, Tensor, Tensor, Tensor], Tensor]:
        device = self._cache.keys[0].device
        place_1W = torch.arange(here.start, here.stop, device=device)[None]
        reach_S = self._cache.reach(here.stop)
        sees_1WS = reach_S <= place_1W[:, :, None]
        if self.sequence.until is not None:
            until_S = torch.zeros(len(reach_S), dtype=torch.int64, device=device)
            until_S[: here.stop] = torch.from_numpy(self.sequence.until[: here.stop].astype(np.int64)).to(device)
            sees_1WS = sees_1WS & (place_1W[:, :, None] < until_S)
        return attend_where(self._cache.keys, self._cache.values, place_1W, sees_1WS)


class _Filling:
    """One document, with what has been drawn for it so far."""

    def __init__(self, decoding: Decoding, heads: Heads, document: Document, guided: bool) -> None:
        self._transformer, self._heads, self._document, self._guided = decoding.transformer, heads, document, guided
        self._tracks = [Track(decoding, one) for one in self._laid()]
        self._drawn: list[int] = []
        self._nats: list[float] = []

    def run(self, generator: np.random.Generator, longest: int, step: Callable[[], None]) -> Decoded:
        vocabulary = self._transformer.vocabulary
        texts = [i for i, span in enumerate(self._document.spans) if span.target and span.modality is Modality.TEXT]
        pieces: list[int] = []
        """Of the text that is being drawn."""
        while len(self._drawn) < len(self._tracks[0].predicted):
            number = len(self._drawn)
            payload = FORMS[KINDS[self._tracks[0].sequence.kinds[self._tracks[0].predicted[number]]]].payload
            h_ND = torch.cat([track.before(number) for track in self._tracks])
            full = payload == "text" and len(pieces) == longest
            token, nats = self._close(h_ND, longest) if full else self._draw(payload, h_ND, generator)
            self._drawn.append(token)
            self._nats.append(nats)
            for track in self._tracks:
                track.sequence.ids[track.predicted[number]] = token
            if payload == "text" and token == vocabulary.special("<close:text>"):
                self._end(texts.pop(0), vocabulary.values(pieces, "text"))
                pieces = []
            elif payload == "text":
                pieces.append(token)
            step()
        document = parse(self._tracks[0].sequence.ids, vocabulary)
        document = replace(document, controls=self._document.controls)
        return Decoded(document, np.array(self._nats, np.float32))

    def _draw(self, payload: str, h_ND: Tensor, generator: np.random.Generator) -> tuple[int, float]:
        noise_1V = torch.from_numpy(self._heads.noise(payload, generator, 1)).to(h_ND.device)
        ids_1, nats_1 = self._heads.draw(payload, h_ND, noise_1V)
        return int(ids_1), float(nats_1)

    def _close(self, h_ND: Tensor, longest: int) -> tuple[int, float]:
        """The closing token of a text that has become as long as it may, and its nats."""
        warnings.warn(f"a text was not ended after {longest} pieces, and is cut there", VpoetWarning, stacklevel=5)
        close = self._transformer.vocabulary.special("<close:text>")
        nats_1 = self._transformer.head("text")(h_ND[:1], torch.tensor([close], device=h_ND.device), 0.0)
        return close, float(nats_1)

    def _end(self, index: int, pieces: Ints) -> None:
        """A text target has its pieces; what follows is laid out behind them."""
        spans = list(self._document.spans)
        spans[index] = replace(spans[index], values=pieces)
        self._document = replace(self._document, spans=tuple(spans))
        for track, document in zip(self._tracks, self._laid(), strict=True):
            track.lay(document, self._drawn)

    def _laid(self) -> list[Document]:
        return [self._document, *([self._document.unprompted()] if self._guided else [])]
