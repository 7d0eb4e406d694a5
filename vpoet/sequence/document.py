"""Documents and their grammar: building token sequences and parsing them back, exactly.

    sequence   <bos> <task:NAME> {span}* <eos>
    text       <context:text> piece* <close:text>
    image      <context:image> time h w code*(h w) <close:image>
    video      <context:video> fps time t h w code*(t h w) <close:video>

``<target:...>`` opens a span that is to be produced (VideoPoet, section 3.2, marks its outputs the same way). The
header comes before the codes, so the modality and the (t, h, w) cell of every later position are known before it is
sampled. Codes stand in raster order, time first. ``time`` is the index of the span's first cell on the clip's time
axis, so one clip may be spread over several spans: a continuation is a context at time 0 and a target that starts
where the context ends.

An image is the first cell of a clip. A context image at a later time j is a *guide*, a picture of the last frame of
cell j: the tokenizer is causal, so the cell itself cannot be had without the frames before it.

A context may hide cells: ``<hidden>`` stands in their place. A later target of the same modality, time and grid
completes it: there only the hidden cells are predicted, and the others are the context's again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints, Mask
from vpoet.errors import ShapeError
from vpoet.sequence.vocabulary import Modality, Vocabulary, task_names

Values = TypeVar("Values")


@dataclass(frozen=True, slots=True)
class Form:
    """How the spans of a modality are written."""

    payload: str
    """The range of the vocabulary that its values are of; it names the head that predicts them, too."""
    header: tuple[str, ...] = ()
    """What the numbers say between the opening token and the payload; none: the payload ends with the closing token."""


FORMS: dict[str, Form] = {
    Modality.TEXT: Form("text"),
    Modality.IMAGE: Form("codes", ("time", "height", "width")),
    Modality.VIDEO: Form("codes", ("fps", "time", "length", "height", "width")),
}
"""A row for each modality, new ones at the end: a kind of token is 1 + its row."""

KINDS = ("structure", *map(str, FORMS))
"""Names of the kinds of token, as `Sequence.kinds` counts them."""
STRUCTURE = 0


def kinds_of(payload: str) -> list[int]:
    """The kinds of token whose values are of this range."""
    return [1 + row for row, form in enumerate(FORMS.values()) if form.payload == payload]


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """One grid of one modality."""

    modality: Modality
    values: Ints
    """Text pieces [n], or visual codes [t, h, w] (t = 1 for an image)."""
    target: bool = False
    """Produced by the model (loss), or given to it (context, no loss)."""
    fps: int = 0
    """Frames per second of a video; 0 for text and images."""
    time: int = 0
    """Index of the first cell on the clip's time axis; 0 for text."""
    hidden: Mask | None = None
    """[t, h, w], True for the cells of a visual context that are not shown, at least one; their codes are 0."""

    def __post_init__(self) -> None:
        axes = 1 if self.modality is Modality.TEXT else 3
        assert self.values.ndim == axes, (self.modality, self.values.shape)
        assert self.modality is not Modality.IMAGE or self.values.shape[0] == 1, self.values.shape
        assert self.modality is Modality.VIDEO or self.fps == 0
        assert self.modality is not Modality.TEXT or self.time == 0
        if self.hidden is not None:
            assert not self.target
            assert self.hidden.shape == self.values.shape, (self.hidden.shape, self.values.shape)
            assert self.hidden.any()
            assert not self.values[self.hidden].any()

    @property
    def in_clip(self) -> bool:
        """Whether its values are cells of the clip: it is neither text, nor a guide, nor has it hidden cells."""
        guide = self.modality is Modality.IMAGE and not self.target and self.time > 0
        return self.modality is not Modality.TEXT and not guide and self.hidden is None

    def completes(self, other: "Span") -> bool:
        """Whether this target shows the cells that ``other`` hides."""
        grids = [(span.modality, span.time, span.values.shape) for span in (self, other)]
        return self.target and other.hidden is not None and grids[0] == grids[1]

    def equals(self, other: "Span") -> bool:
        same = (self.modality, self.target, self.fps, self.time) == (
            other.modality,
            other.target,
            other.fps,
            other.time,
        )
        if not (same and np.array_equal(self.values, other.values)):
            return False
        if self.hidden is None or other.hidden is None:
            return self.hidden is other.hidden
        return np.array_equal(self.hidden, other.hidden)


@dataclass(frozen=True, eq=False, slots=True)
class Document:
    """The spans of one sample, with the task that arranged them."""

    task: str
    spans: tuple[Span, ...]

    def equals(self, other: "Document") -> bool:
        return (
            self.task == other.task
            and len(self.spans) == len(other.spans)
            and all(a.equals(b) for a, b in zip(self.spans, other.spans, strict=True))
        )

    def codes(self) -> Ints:
        """The whole clip [t, h, w]: its spans along the time axis; ShapeError if a cell is missing or double."""
        spans = sorted((s for s in self.spans if s.in_clip), key=lambda s: s.time)
        time = 0
        for span in spans:
            if span.time != time:
                raise ShapeError(
                    f"the clip's visual spans do not join: one starts at cell {span.time}, expected {time}"
                )
            time += span.values.shape[0]
        if not spans:
            raise ShapeError("a document without visual spans has no clip")
        if len(sizes := {span.values.shape[1:] for span in spans}) > 1:
            raise ShapeError(f"the clip's visual spans differ in height and width: {sorted(sizes)}")
        return np.concatenate([span.values for span in spans])

    def predicted(self) -> list[Mask]:
        """For each span, True where a value is predicted: in targets, but for the cells that a context has shown."""
        masks = []
        for i, span in enumerate(self.spans):
            mask = np.full(span.values.shape, span.target)
            for earlier in self.spans[:i]:
                if span.completes(earlier):
                    assert earlier.hidden is not None
                    mask = earlier.hidden
            masks.append(mask)
        return masks


@dataclass(frozen=True, eq=False, slots=True)
class Sequence:
    """A document as tokens: what a pack is made of."""

    ids: Ints
    """[L]"""
    positions: Ints
    """[L, 3]: position on the axes (t, h, w)."""
    kinds: npt.NDArray[np.uint8]
    """[L]: indices of `KINDS`."""
    targets: npt.NDArray[np.bool_]
    """[L]: True where this token is predicted (from the tokens before it)."""
    until: Ints | None = None
    """[L]: index of the token from which on this one is not seen any more (`vpoet.sequence.windows`); None: all are
    seen to the end."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def visual(self) -> npt.NDArray[np.bool_]:
        """[L]: True for the codes of images and videos."""
        return np.isin(self.kinds, kinds_of("codes"))

    @property
    def prefix(self) -> int:
        """Number of tokens before the first predicted one: what a sampler is given, a prefix-LM reads both ways."""
        return int(self.targets.argmax()) if self.targets.any() else len(self.ids)


def build(document: Document, vocabulary: Vocabulary) -> Sequence:
    """Lay a document out as tokens, three-axis positions and targets.

    Text and structure advance the three axes together. The clip has one origin, the position of its first visual
    token; cell (t, h, w) stands at origin + (time + t, h, w) whichever span holds it, so that cells of one clip keep
    their distances when a context and a target share it; a guide stands where the cell whose last frame it shows
    does. After a span the axes go on together behind the furthest of them. Predicted tokens are the codes of visual
    targets that no context has shown, and the pieces and the closing token of text targets: everything else is known
    before it is reached.
    """
    ids: list[Ints] = []
    positions: list[Ints] = []
    kinds: list[npt.NDArray[np.uint8]] = []
    targets: list[npt.NDArray[np.bool_]] = []
    here = 0
    origin: int | None = None

    def lay(tokens: npt.ArrayLike, kind: int, target: bool | Mask, at: Ints | None = None) -> None:
        nonlocal here
        tokens = np.asarray(tokens, dtype=np.int32)
        if at is None:
            at = np.repeat(np.arange(here, here + len(tokens), dtype=np.int32)[:, None], 3, axis=1)
        ids.append(tokens)
        positions.append(at)
        kinds.append(np.full(len(tokens), kind, dtype=np.uint8))
        targets.append(np.broadcast_to(target, len(tokens)))
        here = max(here, int(at.max()) + 1) if len(at) else here

    lay([vocabulary.special("<bos>"), vocabulary.special(f"<task:{document.task}>")], STRUCTURE, False)
    for span, predicted in zip(document.spans, document.predicted(), strict=True):
        role = "target" if span.target else "context"
        lay([vocabulary.special(f"<{role}:{span.modality}>")], STRUCTURE, False)
        form, kind = FORMS[span.modality], KINDS.index(span.modality)
        values = vocabulary.ids(span.values, form.payload)
        if not form.header:
            lay(values, kind, predicted)
        else:
            t, h, w = span.values.shape
            says = {"fps": span.fps, "time": span.time, "length": t, "height": h, "width": w}
            lay([vocabulary.number(says[what], what) for what in form.header], STRUCTURE, False)
            origin = here if origin is None else origin
            cells = np.indices((t, h, w), dtype=np.int32).reshape(3, -1).T
            at = np.asarray(cells + np.array([origin + span.time, origin, origin]), dtype=np.int32)
            if span.hidden is not None:
                values = np.where(span.hidden, np.int32(vocabulary.special("<hidden>")), values)
            lay(values.reshape(-1), kind, predicted.reshape(-1), at)
        closes_target = span.target and not form.header  # where it ends is for the model to say
        lay([vocabulary.special(f"<close:{span.modality}>")], kind if closes_target else STRUCTURE, closes_target)
    lay([vocabulary.special("<eos>")], STRUCTURE, False)
    return Sequence(*(np.concatenate(parts) for parts in (ids, positions, kinds, targets)))  # type: ignore[arg-type]


def parse(ids: npt.ArrayLike, vocabulary: Vocabulary) -> Document:
    """Read a token sequence back: the exact inverse of `build`. ShapeError says where a sequence breaks the grammar."""
    tokens = [int(token) for token in np.asarray(ids)]
    at = 0

    def take(*names: str) -> str:
        nonlocal at
        found = vocabulary.name(tokens[at]) if at < len(tokens) else "the end"
        if found not in names:
            raise ShapeError(f"token {at}: expected {' or '.join(names)}, found {found}")
        at += 1
        return found

    def block(n: int, read: Callable[[list[int]], Values]) -> Values:
        nonlocal at
        if at + n > len(tokens):
            raise ShapeError(f"token {at}: expected {n} more tokens, found {len(tokens) - at}")
        try:
            values = read(tokens[at : at + n])
        except ShapeError as error:
            raise ShapeError(f"tokens {at} to {at + n - 1}: {error}") from None
        at += n
        return values

    def numbers(ids: list[int]) -> list[int]:
        return [vocabulary.to_number(token) for token in ids]

    def payload(ids: list[int]) -> tuple[Ints, Mask]:
        mask = (np.array(ids, dtype=np.int32) == vocabulary.special("<hidden>")) & may_hide
        return vocabulary.values(np.where(mask, vocabulary.ids(0, form.payload), ids), form.payload), mask

    opens = {f"<{role}:{m}>": (role == "target", m) for m in Modality for role in ("context", "target")}
    take("<bos>")
    task = take(*(f"<task:{name}>" for name in task_names())).removeprefix("<task:").removesuffix(">")
    spans: list[Span] = []
    while (name := take("<eos>", *opens)) != "<eos>":
        target, modality = opens[name]
        form = FORMS[modality]
        may_hide = not target and bool(form.header)
        if not form.header:
            close = vocabulary.special(f"<close:{modality}>")
            n = tokens[at:].index(close) if close in tokens[at:] else len(tokens) - at
            spans.append(Span(modality, block(n, payload)[0], target))
        else:
            says = {"fps": 0, "length": 1} | dict(zip(form.header, block(len(form.header), numbers), strict=True))
            size = says["length"], says["height"], says["width"]
            codes, mask = block(math.prod(size), payload)
            hidden = mask.reshape(size) if mask.any() else None
            spans.append(Span(modality, codes.reshape(size), target, says["fps"], says["time"], hidden))
        take(f"<close:{modality}>")
    if at != len(tokens):
        raise ShapeError(f"token {at}: {len(tokens) - at} tokens after <eos>")
    return Document(task, tuple(spans))
