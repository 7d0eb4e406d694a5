"""Spans and documents: what a sequence says, before it is tokens. `vpoet.sequence.document` says how it is written."""

import math
from dataclasses import dataclass, replace
from enum import IntFlag

import numpy as np

from vpoet.arrays import Ints, Mask
from vpoet.errors import ShapeError
from vpoet.sequence.conditions import Pairs
from vpoet.sequence.controls import Control
from vpoet.sequence.vocabulary import Modality


@dataclass(frozen=True, slots=True)
class Form:
    """How the spans of a modality are written, or what stands beside the codes in one."""

    payload: str
    """The range of the vocabulary that its values are of; it names the head that predicts them, too."""
    header: tuple[str, ...] = ()
    """What the numbers say between the opening token and the payload; none: the payload ends with the closing token."""


FORMS: dict[str, Form] = {
    Modality.TEXT: Form("text"),
    Modality.IMAGE: Form("codes", ("time", "height", "width")),
    Modality.VIDEO: Form("codes", ("fps", "time", "length", "height", "width")),
    Modality.PLAY: Form("codes", ("fps", "time // 256", "time % 256", "actions", "height", "width", "produced")),
    "action": Form("actions"),
    "outcome": Form("outcomes"),
}
"""A row for each modality, and for what a play span holds beside its codes; new ones at the end: a kind of token is 1 +
its row. A vocabulary may lack the ranges of some."""

KINDS = ("structure", *map(str, FORMS))
"""Names of the kinds of token, as `Sequence.kinds` counts them."""
STRUCTURE = 0


def kinds_of(payload: str) -> list[int]:
    """The kinds of token whose values are of this range."""
    return [1 + row for row, form in enumerate(FORMS.values()) if form.payload == payload]


class Part(IntFlag):
    """What a play span holds, and a target of it may produce."""

    NOTHING = 0
    ACTIONS = 1
    OUTCOMES = 2
    FRAMES = 4


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """One grid of one modality."""

    modality: Modality
    values: Ints
    """Text pieces [n], or visual codes [t, h, w] (t = 1 for an image), or what was played [t, a + 1 + h * w]: a row for
    each frame, its actions, its outcome, its codes."""
    target: bool = False
    """Produced by the model (loss), or given to it (context, no loss)."""
    fps: int = 0
    """Frames per second of a video or of play; 0 for text and images."""
    time: int = 0
    """Index of the first cell on the clip's time axis; 0 for text."""
    hidden: Mask | None = None
    """[t, h, w], True for the cells of a visual context that are not shown, at least one; their codes are 0."""
    grid: tuple[int, int] = (0, 0)
    """Height and width of the frames of play, in cells; 0 and 0 where it holds no frames."""
    produced: Part = Part.NOTHING
    """Of a target of play: which parts are predicted, at least one."""

    def __post_init__(self) -> None:
        axes = {Modality.TEXT: 1, Modality.PLAY: 2}.get(self.modality, 3)
        assert self.values.ndim == axes, (self.modality, self.values.shape)
        assert self.modality is not Modality.IMAGE or self.values.shape[0] == 1, self.values.shape
        assert self.modality in (Modality.VIDEO, Modality.PLAY) or self.fps == 0
        assert self.modality is not Modality.TEXT or self.time == 0
        if self.modality is Modality.PLAY:
            assert self.arity >= 0, (self.values.shape, self.grid)
            assert self.target == bool(self.produced)
            assert self.hidden is None
        else:
            assert (self.grid, self.produced) == ((0, 0), Part.NOTHING)
        if self.hidden is not None:
            assert not self.target
            assert self.hidden.shape == self.values.shape, (self.hidden.shape, self.values.shape)
            assert self.hidden.any()
            assert not self.values[self.hidden].any()

    @property
    def arity(self) -> int:
        """Action tokens of each frame of play."""
        return int(self.values.shape[1]) - 1 - math.prod(self.grid)

    @property
    def codes(self) -> Ints:
        """[t, h, w]: of a visual span, those of a play span beside its actions and outcomes."""
        if self.modality is not Modality.PLAY:
            return self.values
        return self.values[:, self.arity + 1 :].reshape(len(self.values), *self.grid)

    @property
    def in_clip(self) -> bool:
        """Whether it holds cells of the clip: it is neither text, nor a guide, nor has it hidden cells, nor none."""
        guide = self.modality is Modality.IMAGE and not self.target and self.time > 0
        blind = self.modality is Modality.PLAY and 0 in self.grid
        return not (self.modality is Modality.TEXT or guide or blind) and self.hidden is None

    def completes(self, other: "Span") -> bool:
        """Whether this target shows the cells that ``other`` hides."""
        grids = [(span.modality, span.time, span.values.shape) for span in (self, other)]
        return self.target and other.hidden is not None and grids[0] == grids[1]

    def equals(self, other: "Span") -> bool:
        mine, others = (
            (span.modality, span.target, span.fps, span.time, span.grid, span.produced) for span in (self, other)
        )
        if not (mine == others and np.array_equal(self.values, other.values)):
            return False
        if self.hidden is None or other.hidden is None:
            return self.hidden is other.hidden
        return np.array_equal(self.hidden, other.hidden)


@dataclass(frozen=True, eq=False, slots=True)
class Document:
    """The spans of one sample, with the task that arranged them."""

    task: str
    spans: tuple[Span, ...]
    conditions: Pairs = ()
    """What is told of the clip before all spans."""
    controls: tuple[Control, ...] = ()
    """What is known of its one clip beside the tokens, each kind at most once."""

    def equals(self, other: "Document") -> bool:
        return (
            (self.task, self.conditions) == (other.task, other.conditions)
            and len(self.spans) == len(other.spans)
            and all(a.equals(b) for a, b in zip(self.spans, other.spans, strict=True))
            and len(self.controls) == len(other.controls)
            and all(a.equals(b) for a, b in zip(self.controls, other.controls, strict=True))
        )

    def unprompted(self) -> "Document":
        """Without the words that are given, those of contexts, and without controls: what guidance leads away from, and
        what training sees of a document whose caption is dropped. Conditions stay: guidance leads to what the words
        say, and to no more motion than was asked for."""
        spans = (
            replace(span, values=span.values[:0]) if span.modality is Modality.TEXT and not span.target else span
            for span in self.spans
        )
        return replace(self, spans=tuple(spans), controls=())

    @property
    def cells(self) -> int:
        """Of time, that its clip reaches."""
        return max(span.time + len(span.codes) for span in self.spans if span.modality is not Modality.TEXT)

    def codes(self) -> Ints:
        """The whole clip [t, h, w]: its spans along the time axis; ShapeError if a cell is missing or double.

        Play starts at any time, everything else at 0.
        """
        spans = sorted((s for s in self.spans if s.in_clip), key=lambda s: s.time)
        time = spans[0].time if spans and spans[0].modality is Modality.PLAY else 0
        for span in spans:
            if span.time != time:
                raise ShapeError(
                    f"the clip's visual spans do not join: one starts at cell {span.time}, expected {time}"
                )
            time += span.codes.shape[0]
        if not spans:
            raise ShapeError("a document without visual spans has no clip")
        if len(sizes := {span.codes.shape[1:] for span in spans}) > 1:
            raise ShapeError(f"the clip's visual spans differ in height and width: {sorted(sizes)}")
        return np.concatenate([span.codes for span in spans])

    def predicted(self) -> list[Mask]:
        """For each span, True where a value is predicted: in targets, but for the cells that a context has shown, the
        parts of play that are given, and what leads to the very first frame of play, which nothing does."""
        masks = []
        begun = False
        for i, span in enumerate(self.spans):
            mask = np.full(span.values.shape, span.target)
            if span.modality is Modality.PLAY:
                mask[:, : span.arity] = Part.ACTIONS in span.produced
                mask[:, span.arity] = Part.OUTCOMES in span.produced
                mask[:, span.arity + 1 :] = Part.FRAMES in span.produced
                mask[: 0 if begun else 1, : span.arity + 1] = False
                begun = True
            for earlier in self.spans[:i]:
                if span.completes(earlier):
                    assert earlier.hidden is not None
                    mask = earlier.hidden
            masks.append(mask)
        return masks
