"""How a long clip drifts: cut into segments as long as the world's clips, each judged as if it were a clip of its own.

    frames      0 ........ 16 ....... 32 ....... 48
    segment 0   [           ]
    segment 1              [           ]
    segment 2                         [           ]

Each window of a long clip starts from what the tokenizer kept of the last (`vpoet.generate.rollout`), so what is lost
adds up. What is measured of a segment, a key each of `measure`:

    bits          per token of its codes, encoded again, given the prompt: what the model thinks of its own clip
    prompt_NAME   what a clip that goes on for ever keeps (`World.kept`) is as the prompt says
    prompt_intact the world could have drawn it
    start_NAME    what it keeps is what the rollout's first segment shows
    contrast      these three as `vpoet.evaluate.looks` has them
    sharpness
    motion
"""

import resource
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.evaluate.adherence import Prompt
from vpoet.evaluate.intervals import mean_interval, wilson
from vpoet.evaluate.looks import looks
from vpoet.evaluate.tables import markdown
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.worlds.world import FAULTS, World

UNSEEN = 10**9
"""The world's clips from this number on are no training data."""
PANELS = {
    "bits per token, minus the real clip's": "bits",
    "as the prompt says, share": "prompt_",
    "as in the first segment, share": "start_",
    "contrast, of 255, minus the real clip's": "contrast",
    "sharpness, of 255, minus the real clip's": "sharpness",
    "motion, of 255, minus the real clip's": "motion",
}
"""What is drawn together: a measure, or all that begin so."""

Row = Mapping[str, Any]
Estimate = tuple[float, float, float]
"""Mean, and the ends of its 95% interval."""


class Segments:
    """Frames of a rollout as they come, cut; no more than a segment is held. Neighbours share a frame."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._held: list[Frames] = []
        self._first = 0

    def add(self, frames: Frames) -> Iterator[tuple[int, Frames]]:
        """The segments that these frames complete: (the first frame's number, uint8 [length, H, W, 3])."""
        for frame in frames:
            self._held.append(frame.copy())  # a view would hold the window that it was decoded in
            if len(self._held) == self._length:
                yield self._first, np.stack(self._held)
                self._held = self._held[-1:]
                self._first += self._length - 1


def lasting(world: World, count: int, seed: int = 0) -> list[Prompt]:
    """Captions of real clips, none of them training data, of what can go on for ever; each states all that is kept.

    DataError for a world in which nothing can.
    """
    if not world.kept:
        raise DataError(f"{world.name}: nothing in this world goes on for ever, so nothing tells how a rollout drifts")
    found: list[Prompt] = []
    number = UNSEEN + seed
    while len(found) < count:
        if world.lasts(number):
            frames, facts = world.clip(number)
            said = [world.stated(facts, phrasing) for phrasing in range(world.phrasings)]
            full = [phrasing for phrasing, stated in enumerate(said) if set(world.kept) <= set(stated)]
            phrasing = full[len(found) % len(full)]
            text = facts["caption"][phrasing]
            found.append(Prompt(type(world), str(number), text, said[phrasing], frames, world.fps))
        number += 1
    return found


def measure(model: Model, world: World, prompt: Prompt, segment: Frames, first: Row | None = None) -> dict[str, Any]:
    """What is measured of a segment of a rollout whose first was ``first``, itself if None, and what is ``seen``."""
    seen = world.see(segment)
    start = seen if first is None else first["seen"]
    seen_in_pixels = looks(segment)
    return {
        "bits": model.score(Video(segment, prompt.fps), prompt.text).per_token.bits,
        **{f"prompt_{name}": seen[name] == prompt.stated[name] for name in world.kept},
        "prompt_intact": not seen[FAULTS],
        **{f"start_{name}": seen[name] == start[name] for name in world.kept},
        **{name: seen_in_pixels[name] for name in ("contrast", "sharpness", "motion")},
        "seen": seen,
    }


def peak_megabytes() -> int:
    """The most memory that this process has had."""
    unit = 1e6 if sys.platform == "darwin" else 1e3  # the operating system counts bytes there, kilobytes elsewhere
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def panels(row: Row) -> dict[str, list[str]]:
    """Of a row's names, those that are measured, by the panel of the figure that shows them."""
    return {
        title: [name for name in row if name == panel or (panel.endswith("_") and name.startswith(panel))]
        for title, panel in PANELS.items()
    }


def estimates(rows: Sequence[Row], beside: Sequence[Row] | None = None) -> dict[str, Estimate]:
    """What is measured, over rows that have nothing to do with each other: of shares Wilson's interval, else Student's,
    and of the differences to the rows ``beside`` if there are any."""
    found = {}
    for name in (name for names in panels(rows[0]).values() for name in names):
        values = [row[name] for row in rows]
        if isinstance(values[0], bool):
            found[name] = (float(np.mean(values)), *wilson(sum(values), len(values)))
        else:
            values = [a - b[name] for a, b in zip(values, beside, strict=True)] if beside else values
            mean, half = mean_interval(values)
            found[name] = (mean, mean - half, mean + half)
    return found


def curve(rows: Sequence[Row], reals: Sequence[Row]) -> list[tuple[int, dict[str, Estimate]]]:
    """(first frame, estimates over the rollouts) of each segment. Rows have ``rollout`` and ``frame`` beside what
    `measure` gives; ``reals`` are the real clips' of each rollout's prompt: a sky has a contrast of its own."""
    found = []
    for frame in sorted({row["frame"] for row in rows}):
        here = [row for row in rows if row["frame"] == frame]
        found.append((frame, estimates(here, [reals[row["rollout"]] for row in here])))
    return found


def table(rows: Sequence[Row], reals: Sequence[Row]) -> str:
    """Real clips; the rollouts' first, middle and last segment; and how the last differs from the first, rollout by
    rollout; with 95% intervals."""
    over_time, real = curve(rows, reals), estimates(reals)
    shown = [over_time[0], over_time[len(over_time) // 2], over_time[-1]]
    ends = [
        sorted((row for row in rows if row["frame"] == frame), key=lambda row: row["rollout"]) for frame, _ in shown
    ]
    change = estimates(ends[-1], ends[0])
    heads = ["", "real clips", *(f"from frame {frame}" for frame, _ in shown), "last less first"]
    lines = []
    for name in real:
        if "_" in name:
            cells = [name.replace("_", ": "), f"{real[name][0]:.2f}"]
            cells += ["{:.2f} ({:.2f} to {:.2f})".format(*each[name]) for _, each in shown] + [""]
        else:
            cells = [f"{name}, minus the real clip's", f"{real[name][0]:.2f}"]
            cells += ["{:+.2f} ({:+.2f} to {:+.2f})".format(*each[name]) for each in (*(e for _, e in shown), change)]
        lines.append(cells)
    return markdown(heads, lines)
