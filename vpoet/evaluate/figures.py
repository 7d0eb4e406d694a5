"""What a video tokenizer keeps of the figure in a world's clips, and when its codes change.

Worlds say in a clip's raw json where the figure is: ``truth.boxes``, of each frame what the drawing covers of it,
(left, top, right, bottom) in pixels, half open; and those in which one acts, ``truth.x`` and ``truth.y``, the place of
its feet in units of 1/64 of the shorter side, which the world's judge reads off pixels alone.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet import worlds
from vpoet.arrays import Codes, Frames, Mask
from vpoet.errors import DataError
from vpoet.evaluate.pixels import psnr
from vpoet.tokenizer.pixels import to_float
from vpoet.training.codec.loss import STILL, still_cells
from vpoet.worlds.world import SteppedWorld

NEAR = 0.5
"""Pixels, down and across, within which the judge reads a figure where it is."""


class CodeChanges:
    """Counts of codes that change from one cell of time to the next, by whether the cell's pixels do.

    A pixel changes if it does by more than 4 of 255 levels: compression leaves so much (`loss.STILL`).
    """

    def __init__(self) -> None:
        self.still = self.still_changed = 0
        """Cells whose pixels hold still, and those of them whose codes change all the same."""
        self.steps = self.changed = 0
        """Steps from a cell of time to the next, and codes that change in them."""
        self.figure_steps = self.figure_cells = self.figure_changed = 0
        """The same for steps in which something moves, and nothing outside the figure's boxes; with the cells whose
        pixels change."""

    def update(self, codes: Codes, frames: Frames, boxes: npt.NDArray[np.int64] | None = None) -> None:
        """Count a clip: codes [t, h, w] of frames uint8 [T, H, W, 3], and [T, 4], the figure's box in each frame."""
        t, h, w = codes.shape
        if t < 2:
            return
        still = still_cells(to_float(frames[None]), (t, h, w))[0].numpy()
        changed = codes[1:] != codes[:-1]
        self.still += int(still.sum())
        self.still_changed += int((changed & still).sum())
        self.steps += t - 1
        self.changed += int(changed.sum())
        if boxes is not None:
            alone = _nothing_else_moves(frames, boxes).reshape(t - 1, -1).all(1) & ~still.all((1, 2))
            self.figure_steps += int(alone.sum())
            self.figure_cells += int((~still)[alone].sum())
            self.figure_changed += int(changed[alone].sum())

    def result(self) -> dict[str, float | None]:
        """By name; None where there was nothing to count."""
        return {
            "codes_changed_a_step": _share(self.changed, self.steps),
            "codes_changed_where_still": _share(self.still_changed, self.still),
            "codes_changed_by_the_figure": _share(self.figure_changed, self.figure_steps),
            "cells_moved_by_the_figure": _share(self.figure_cells, self.figure_steps),
        }


class FigureScores:
    """Of the figure in reconstructed frames: PSNR within its boxes, and how often the world's judge reads it."""

    def __init__(self) -> None:
        self._psnrs: list[float] = []
        self._frames = self._read = self._read_before = 0
        self._judges: dict[tuple[str, int, int, float], SteppedWorld | None] = {}

    def add(self, original: Frames, drawn: Frames, facts: Mapping[str, Any], fps: float) -> None:
        """Score a clip uint8 [T, H, W, 3], its reconstruction, and its raw json, as far as that tells of a figure."""
        boxes = figure_boxes(facts, len(original))
        if boxes is not None:
            self._psnrs += [
                psnr(*(clip[number : number + 1, top:bottom, left:right] for clip in (original, drawn)))
                for number, (left, top, right, bottom) in enumerate(boxes.tolist())
                if left < right and top < bottom
            ]
        height, width = original.shape[1:3]
        places, judge = _places(facts, len(original)), self._judge(facts, height, width, fps)
        if places is None or judge is None:
            return
        near = NEAR / (min(height, width) / 64)
        for clip in (original, drawn):
            seen = [(one["x"], one["y"]) for one in judge.see(clip)]
            read = sum(
                x is not None and y is not None and max(abs(x - there[0]), abs(y - there[1])) <= near
                for (x, y), there in zip(seen, places, strict=True)
            )
            if clip is original:
                self._read_before += read
            else:
                self._read += read
        self._frames += len(original)

    def _judge(self, facts: Mapping[str, Any], height: int, width: int, fps: float) -> SteppedWorld | None:
        """The clip's world, which reads its frames one by one; None if it is of none in which one acts."""
        world = worlds.drawn_by(facts)
        if world is None:
            return None
        key = (world.name, height, width, fps)
        if key not in self._judges:
            try:
                self._judges[key] = world.stepped(height, width, fps)
            except DataError:
                self._judges[key] = None
        return self._judges[key]

    def result(self) -> dict[str, float | int]:
        """By name; nothing of what no clip told. Shares are of frames."""
        found: dict[str, float | int] = {}
        if self._psnrs:
            found["psnr_in_boxes"] = float(np.mean(self._psnrs))
        if self._frames:
            found["figures_read"] = self._read / self._frames
            found["figures_read_in_originals"] = self._read_before / self._frames
            found["figures"] = self._frames
        return found


def figure_boxes(facts: Mapping[str, Any], frames: int) -> npt.NDArray[np.int64] | None:
    """The figure's box in each frame, int [T, 4]; None where the raw json does not tell."""
    try:
        boxes = np.asarray(facts["truth"]["boxes"])
    except (KeyError, TypeError, ValueError):
        return None
    return boxes.astype(np.int64) if boxes.shape == (frames, 4) and np.issubdtype(boxes.dtype, np.integer) else None


def _places(facts: Mapping[str, Any], frames: int) -> npt.NDArray[np.float64] | None:
    """Where its feet are in each frame, [T, 2]; None where the raw json does not tell."""
    try:
        places = np.stack([np.asarray(facts["truth"][axis], np.float64) for axis in "xy"], axis=-1)
    except (KeyError, TypeError, ValueError):
        return None
    return places if places.shape == (frames, 2) else None


def _nothing_else_moves(frames: Frames, boxes: npt.NDArray[np.int64]) -> Mask:
    """[T - 1], whether from one frame to the next no pixel changes but in the figure's box before or after."""
    moved = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(-1) > round(STILL * 127.5)
    for number, pair in enumerate(pairwise(boxes.tolist())):
        for left, top, right, bottom in pair:
            moved[number, top:bottom, left:right] = False
    alone: Mask = ~moved.any((1, 2))
    return alone


def _share(count: int, of: int) -> float | None:
    return count / of if of else None
