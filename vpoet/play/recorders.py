"""What is written of plans: actions by name, all that was tried as a table, frames side by side."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.play.control import Episode
from vpoet.play.futures import Actions
from vpoet.play.planners import Planned
from vpoet.sequence.actions import ActionSpace

COLUMNS = ("search", "rank", "round", "cost", "steps", "actions")
GAP = 4
"""Pixels between what is side by side."""


def named(actions: Actions, space: ActionSpace) -> list[Any]:
    """Names, or vectors as lists."""
    return [space.names[action] if space.names else action for action in actions.tolist()]


def candidates(searches: Sequence[Planned], space: ActionSpace) -> Iterator[dict[str, Any]]:
    """A row of `COLUMNS` for every plan that was tried; in each search the best has rank 0."""
    for number, planned in enumerate(searches):
        for rank, tried in enumerate(planned.candidates):
            row = number, rank, tried.round, tried.cost, tried.steps, named(tried.actions, space)
            yield dict(zip(COLUMNS, row, strict=True))


def as_csv(rows: Iterator[dict[str, Any]]) -> str:
    """With the actions apart by blanks; the numbers of a vector by commas."""
    file = io.StringIO()
    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    table.writeheader()
    for row in rows:
        words = (each if isinstance(each, str) else ",".join(f"{x:.4g}" for x in each) for each in row["actions"])
        table.writerow(row | {"cost": f"{row['cost']:.6g}", "actions": " ".join(words)})
    return file.getvalue()


def side_by_side(columns: Sequence[Frames]) -> Frames:
    """Clips uint8 [T, H, W, 3] of one size as one; of a shorter one the last frame stays."""
    longest = max(map(len, columns))
    parts = []
    for clip in columns:
        still = np.repeat(clip[-1:], longest - len(clip), axis=0)
        parts.append(np.pad(np.concatenate([clip, still]), ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255))
    return np.concatenate(parts, axis=2)[:, :, :-GAP]


def imagined_and_real(episode: Episode, goal: Frames | None = None) -> Frames:
    """uint8 [T + 1, H, W', 3]: what was expected, what came of it, and the goal's picture where there is one."""
    goals = [] if goal is None else [goal[None]]
    return side_by_side([episode.imagined, episode.seen.frames, *goals])
