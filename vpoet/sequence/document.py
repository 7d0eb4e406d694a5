"""Documents and their grammar: building token sequences and parsing them back, exactly.

    sequence   <bos> <task:NAME> {condition}* {span}* <eos>
    condition  <condition:NAME> number
    text       <context:text> piece* <close:text>
    image      <context:image> time h w code*(h w) <close:image>
    video      <context:video> fps time t h w code*(t h w) <close:video>
    play       <context:play> fps time1 time0 a h w produced {action*a outcome code*(h w)}* <close:play>

``<target:...>`` opens a span that is to be produced (VideoPoet, section 3.2, marks its outputs the same way). The
header comes before the codes, so the modality and the (t, h, w) cell of every later position are known before it is
sampled. Codes stand in raster order, time first. ``time`` is the index of the span's first cell on the clip's time
axis, so one clip may be spread over several spans: a continuation is a context at time 0 and a target that starts
where the context ends.

An image is the first cell of a clip. A context image at a later time j is a *guide*, a picture of the last frame of
cell j: the tokenizer is causal, so the cell itself cannot be had without the frames before it.

A context may hide cells: ``<hidden>`` stands in their place. A later target of the same modality, time and grid
completes it: there only the hidden cells are predicted, and the others are the context's again.

A play span tells a clip frame by frame with what was done in it: the action that leads to a frame (a tokens), its
outcome, its codes (`vpoet.sequence.actions`). It is open: its header says how a frame is written and not how many come,
and ``<close:play>`` stands where the next frame would begin. It is not predicted: who acts says when to stop, and
whether a recording has ended is an outcome. ``produced`` says which of the three a target predicts (`Part`); its time
is 256 time1 + time0. A grid of 0x0 leaves the codes out: actions for a video that is told before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints, Mask
from vpoet.errors import ShapeError
from vpoet.sequence import controls
from vpoet.sequence.controls import ControlCells
from vpoet.sequence.spans import FORMS, KINDS, STRUCTURE, Document, Part, Span, kinds_of
from vpoet.sequence.vocabulary import Modality, Vocabulary, condition_names, task_names

__all__ = ["FORMS", "KINDS", "STRUCTURE", "Document", "Part", "Sequence", "Span", "build", "kinds_of", "parse"]

Values = TypeVar("Values")


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
    read: Ints | None = None
    """[L]: what a network reads in place of ``ids``, which it predicts all the same (`vpoet.sequence.misreading`);
    None: what is there."""
    controls: ControlCells | None = None
    """What is known of the cells that it predicts; None: nothing."""

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
    does. Where a second first cell is told, a new clip begins, with an origin of its own. What leads to frame t of play
    stands in a column left of it, its actions at origin + (time + t, 0 .. a - 1, -1) and its outcome below them. After
    a span the axes go on together behind the furthest of them. Predicted tokens are those of `Document.predicted`, and
    the closing token of text targets: everything else is known before it is reached. Controls are laid beside the
    tokens whose states predict their cells. ShapeError: a number that a header does not hold, a range that the
    vocabulary lacks, or controls that do not fit the clip.
    """
    ids: list[Ints] = []
    positions: list[Ints] = []
    kinds: list[npt.NDArray[np.uint8]] = []
    targets: list[npt.NDArray[np.bool_]] = []
    here = 0
    origin: int | None = None
    begun = False

    def lay(tokens: npt.ArrayLike, kind: int | npt.ArrayLike, target: bool | Mask, at: Ints | None = None) -> None:
        nonlocal here
        tokens = np.asarray(tokens, dtype=np.int32)
        if at is None:
            at = np.repeat(np.arange(here, here + len(tokens), dtype=np.int32)[:, None], 3, axis=1)
        ids.append(tokens)
        positions.append(at)
        kinds.append(np.broadcast_to(np.asarray(kind, dtype=np.uint8), len(tokens)))
        targets.append(np.broadcast_to(target, len(tokens)))
        here = max(here, int(at.max()) + 1) if len(at) else here

    lay([vocabulary.special("<bos>"), vocabulary.special(f"<task:{document.task}>")], STRUCTURE, False)
    for name, number in document.conditions:
        lay([vocabulary.special(f"<condition:{name}>"), vocabulary.number(number, name)], STRUCTURE, False)
    for span, predicted in zip(document.spans, document.predicted(), strict=True):
        role = "target" if span.target else "context"
        lay([vocabulary.special(f"<{role}:{span.modality}>")], STRUCTURE, False)
        form, kind = FORMS[span.modality], KINDS.index(span.modality)
        if not form.header:
            lay(vocabulary.ids(span.values, form.payload), kind, predicted)
        else:
            lay([vocabulary.number(_says(span)[what], what) for what in form.header], STRUCTURE, False)
            second = begun and span.in_clip and span.time == 0
            origin = here if origin is None or second else origin
            begun |= span.in_clip and span.time == 0
            tokens, their_kinds, at = _grid(span, vocabulary)
            lay(tokens, their_kinds, predicted.reshape(-1), at + np.int32(origin))
        closes_target = span.target and not form.header  # where it ends is for the model to say
        lay([vocabulary.special(f"<close:{span.modality}>")], kind if closes_target else STRUCTURE, closes_target)
    lay([vocabulary.special("<eos>")], STRUCTURE, False)
    sequence = Sequence(*(np.concatenate(parts) for parts in (ids, positions, kinds, targets)))  # type: ignore[arg-type]
    if not document.controls:
        return sequence
    assert origin is not None, "controls are of a clip"
    cells = np.flatnonzero(sequence.targets & sequence.visual).astype(np.int32)
    return replace(
        sequence, controls=controls.lay(document.controls, sequence.positions[cells] - np.int32(origin), cells - 1)
    )


def _says(span: Span) -> dict[str, int]:
    """What the numbers of a span's header may say, by the names of `FORMS`."""
    length, height, width = span.codes.shape
    now = {"time": span.time, "time // 256": span.time // 256, "time % 256": span.time % 256}
    size = {"length": length, "height": height, "width": width}
    played = {"actions": span.arity, "produced": int(span.produced)} if span.modality is Modality.PLAY else {}
    return {"fps": span.fps} | now | size | played


def _grid(span: Span, vocabulary: Vocabulary) -> tuple[Ints, npt.NDArray[np.uint8], Ints]:
    """Ids [n] and kinds [n] of what a span with a header holds, and their positions [n, 3] from the clip's origin."""
    t, h, w = span.codes.shape
    ids = vocabulary.ids(span.codes, "codes").reshape(t, h * w)
    cells = np.indices((t, h, w), dtype=np.int32).reshape(3, t, h * w).transpose(1, 2, 0)
    kinds = np.full(h * w, KINDS.index(span.modality), dtype=np.uint8)
    if span.hidden is not None:
        ids = np.where(span.hidden.reshape(t, h * w), np.int32(vocabulary.special("<hidden>")), ids)
    if span.modality is Modality.PLAY:
        done = np.split(span.values[:, : span.arity + 1], [span.arity], axis=1)
        ids = np.hstack([vocabulary.ids(done[0], "actions"), vocabulary.ids(done[1], "outcomes"), ids])
        column = np.full((t, span.arity + 1, 3), -1, dtype=np.int32)
        column[..., 0], column[..., 1] = np.arange(t)[:, None], np.arange(span.arity + 1)
        cells = np.concatenate([column, cells], axis=1)
        before = [KINDS.index("action")] * span.arity + [KINDS.index("outcome")]
        kinds = np.concatenate([np.array(before, dtype=np.uint8), kinds])
    at = cells.reshape(-1, 3) + np.array([span.time, 0, 0], dtype=np.int32)
    return ids.reshape(-1), np.tile(kinds, t), at


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

    def play(target: bool) -> Span:
        nonlocal at
        fps, high, low, arity, height, width, produced = block(len(form.header), numbers)
        if produced not in (range(1, 1 + sum(Part)) if target else range(1)):
            raise ShapeError(f"token {at - 1}: produced = {produced}, where a target says 1 to 7 and a context 0")
        size = arity + 1 + height * width
        close = vocabulary.special("<close:play>")
        frames = next((n for n, token in enumerate(tokens[at::size]) if token == close), len(tokens[at::size]))

        def values(ids: list[int]) -> Ints:
            columns = np.split(np.array(ids, dtype=np.int32).reshape(frames, size), [arity, arity + 1], axis=1)
            ranges = ("actions", "outcomes", "codes")
            return np.hstack([vocabulary.values(ids, name) for ids, name in zip(columns, ranges, strict=True)])

        played = block(frames * size, values)
        time, grid = 256 * high + low, (height, width)
        return Span(Modality.PLAY, played, target, fps, time, grid=grid, produced=Part(produced))

    opens = {f"<{role}:{m}>": (role == "target", m) for m in Modality for role in ("context", "target")}
    take("<bos>")
    task = take(*(f"<task:{name}>" for name in task_names())).removeprefix("<task:").removesuffix(">")
    spans: list[Span] = []
    conditions: list[tuple[str, int]] = []
    told = {f"<condition:{name}>": name for name in condition_names()}
    while (name := take("<eos>", *opens, *told)) != "<eos>":
        if name in told:
            conditions.append((told[name], block(1, numbers)[0]))
            told = {later: told[later] for later in list(told)[list(told).index(name) + 1 :]}
            continue
        told = {}
        target, modality = opens[name]
        form = FORMS[modality]
        may_hide = not target and bool(form.header)
        if modality is Modality.PLAY:
            spans.append(play(target))
        elif not form.header:
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
    return Document(task, tuple(spans), tuple(conditions))
