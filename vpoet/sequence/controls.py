"""Controls: what is known of each cell of a clip before it is drawn (ControlAR, Li et al., ICLR 2025).

A control is a grid of codes as large as the clip's: those of a picture of its edges, depth ... (`vpoet.media.control`),
by the clip's own tokenizer. It takes no tokens. What a network makes of a cell of it, and of the cells around, is
added to the state that predicts the same cell of the clip (`vpoet.nn.control`):

    tokens      ..  header  c0  c1  c2
    predicts         c0     c1  c2  c3
    is added        f(0)   f(1) f(2) f(3)        f(i): of the control's cell i and its neighbours, times the strength

Several kinds go together. Lengths: G cells of the controls; C of them whose cell of the clip is predicted; K kinds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Floats, Ints
from vpoet.errors import ShapeError

KINDS = ("edges", "depth", "segmentation", "flow", "pose", "grey", "sketch")
"""All that there are; new ones are appended."""
NEAR = 27
"""Cells that one is read with: itself and those beside it, in time, too."""
NONE = -1
"""In the place of a code or of a cell that is not there."""
_AROUND = np.indices((3, 3, 3), dtype=np.int32).reshape(3, NEAR) - 1


@dataclass(frozen=True, eq=False, slots=True)
class Control:
    """One kind, for the whole clip of a document."""

    kind: str
    """One of `KINDS`."""
    codes: Ints
    """[t, h, w], time counted as `Span.time` does."""
    strength: float = 1.0
    """What the network adds counts so many times; in training, how far the control is to be trusted."""

    def __post_init__(self) -> None:
        assert self.kind in KINDS, self.kind
        assert self.codes.ndim == 3, self.codes.shape
        assert self.strength >= 0, self.strength

    def equals(self, other: "Control") -> bool:
        mine, others = ((each.kind, each.strength) for each in (self, other))
        return mine == others and np.array_equal(self.codes, other.codes)


@dataclass(frozen=True, eq=False, slots=True)
class ControlCells:
    """The controls of some tokens, a document's or a pack's, as a network reads them."""

    codes: Ints
    """[K, G]: for each of `KINDS`, `NONE` where there is none."""
    strengths: Floats
    """[K, C]: 0 where there is none."""
    near: Ints
    """[C, 27]: indices of cells, itself in the middle; `NONE` beyond the clip's border."""
    at: Ints
    """[C]: index of the token whose state predicts the cell, ascending."""

    def up_to(self, stop: int) -> "ControlCells":
        """Those of the first tokens alone."""
        count = int(self.at.searchsorted(stop))
        return ControlCells(self.codes, self.strengths[:, :count], self.near[:count], self.at[:count])


def lay(controls: Sequence[Control], cells_C3: Ints, at: Ints) -> ControlCells:
    """What the tokens ``at`` [C], ascending, are told of the cells (t, h, w) of the clip [C, 3] that they predict.

    ShapeError: controls differ in size, a kind comes twice, or a cell lies beyond them.
    """
    size = controls[0].codes.shape
    kinds = [control.kind for control in controls]
    if any(control.codes.shape != size for control in controls) or len(set(kinds)) < len(kinds):
        told = ", ".join(f"{control.kind} {'x'.join(map(str, control.codes.shape))}" for control in controls)
        raise ShapeError(f"controls of one clip are of one size, each kind once, not {told}")
    if len(cells_C3) and (cells_C3.max(0) >= size).any():
        t, h, w = cells_C3.max(0) + 1
        raise ShapeError(f"controls of {'x'.join(map(str, size))} cells, and the clip has {t}x{h}x{w} at least")
    codes = np.full((len(KINDS), int(np.prod(size))), NONE, np.int32)
    strengths = np.zeros((len(KINDS), len(at)), np.float32)
    for control in controls:
        codes[KINDS.index(control.kind)] = control.codes.reshape(-1)
        strengths[KINDS.index(control.kind)] = control.strength
    around_C3N = cells_C3[:, :, None] + _AROUND
    inside_CN = ((around_C3N >= 0) & (around_C3N < np.array(size)[:, None])).all(1)
    index_CN = np.ravel_multi_index(tuple(np.moveaxis(around_C3N, 1, 0)), size, mode="clip")
    return ControlCells(codes, strengths, np.where(inside_CN, index_CN, NONE).astype(np.int32), at.astype(np.int32))


def join(parts: Sequence[ControlCells | None], lengths: Sequence[int]) -> ControlCells | None:
    """Those of documents of so many tokens, laid end to end; None: no document has any."""
    found = []
    tokens = cells = 0
    for part, length in zip(parts, lengths, strict=True):
        if part is not None:
            near = np.where(part.near == NONE, NONE, part.near + np.int32(cells))
            found.append(ControlCells(part.codes, part.strengths, near, part.at + np.int32(tokens)))
            cells += part.codes.shape[1]
        tokens += length
    if not found:
        return None
    return ControlCells(
        np.concatenate([part.codes for part in found], axis=1),
        np.concatenate([part.strengths for part in found], axis=1),
        np.concatenate([part.near for part in found]),
        np.concatenate([part.at for part in found]),
    )


def draw(
    codes: Mapping[str, Ints], chances: Mapping[str, float], dropped: float, random: np.random.Generator
) -> tuple[Control, ...]:
    """What training gives of a clip's controls, by kind: with probability ``dropped`` none, which guidance needs, else
    each with its own chance, at a strength that is 1 for half of them and anything below for the others.

    A strength says how far a control is to be trusted: of a control of strength s, a share 1 - s of the cells, chosen
    at random, is shuffled, so that a code is the right one about as often. A model that is told less learns to add more
    of its own, and not just to listen to a lower voice.
    """
    kept = random.random() >= dropped
    found = []
    for kind in sorted(chances):
        given, strength = random.random() < chances[kind], min(1.0, 2 * random.random())
        if kept and given and kind in codes:
            found.append(Control(kind, _shuffled(codes[kind], 1 - strength, random), strength))
    return tuple(found)


def _shuffled(codes: Ints, share: float, random: np.random.Generator) -> Ints:
    chosen = np.flatnonzero(random.random(codes.size) < share)
    flat = codes.reshape(-1).astype(np.int32)
    flat[chosen] = flat[random.permutation(chosen)]
    return flat.reshape(codes.shape)
