"""How a long clip drifts: cut into segments as long as the world's clips, each judged as if it were a clip of its own.

    frames      0 ........ 16 ....... 32 ....... 48
    segment 0   [           ]
    segment 1              [           ]
    segment 2                         [           ]

Each window of a long clip starts from what the tokenizer kept of the last (`vpoet.generate.rollout`), so what is lost
adds up. What is measured of a segment, a key each of `measure`:

    bits          a token of its codes, encoded again, given the prompt: what the model thinks of its own clip
    prompt_NAME   who, ground, sky are as the prompt says
    prompt_intact the world could have drawn it: order, presence, opacity, nothing unasked (`consistency`)
    start_NAME    they are what the rollout's first segment shows
    contrast      deviation of the pixels of a frame, of 255
    sharpness     mean absolute difference of neighbouring pixels
    motion        mean absolute difference of successive frames
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.evaluate.adherence import Prompt, judge, stated
from vpoet.evaluate.intervals import mean_interval, wilson
from vpoet.evaluate.tables import markdown
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.worlds.platformer.sight import Witness
from vpoet.worlds.platformer.world import Platformer

LASTING = "jump"
"""What a character can do for ever, and has to be drawn anew for all the time. Who walks, climbs or falls soon leaves
the picture or stands, and no real clip says how that goes on; who stands can be copied."""
UNSEEN = 10**9
"""The world's clips from this number on are no training data."""
KEPT = ("who", "ground", "sky")
PANELS = {
    "bits a token, less the real clip's": ("bits",),
    "as the prompt says, share": tuple(f"prompt_{name}" for name in (*KEPT, "intact")),
    "as in the first segment, share": tuple(f"start_{name}" for name in KEPT),
    "contrast, of 255, less the real clip's": ("contrast",),
    "sharpness, of 255, less the real clip's": ("sharpness",),
    "motion, of 255, less the real clip's": ("motion",),
}
"""What is drawn together."""
MEASURES = tuple(name for names in PANELS.values() for name in names)

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


def lasting(world: Platformer, count: int, seed: int = 0) -> list[Prompt]:
    """Captions of real clips, none of them training data, of a character that jumps up and down, alone."""
    found: list[Prompt] = []
    number = UNSEEN + seed
    while len(found) < count:
        about = world.attributes(number)
        if about["action"] == LASTING and not about["creature"]:
            frames, facts = world.clip(number)
            phrasing = 1 + len(found) % 2  # those that also name the sky
            said = stated(facts["truth"], phrasing)
            found.append(Prompt(str(number), facts["caption"][phrasing], said, frames, world.fps))
        number += 1
    return found


def measure(
    model: Model, witness: Witness, prompt: Prompt, segment: Frames, first: Row | None = None
) -> dict[str, Any]:
    """`MEASURES` of a segment of a rollout whose first was ``first``, itself if None; ``seen`` is what it shows."""
    seen = judge(witness, segment)
    start = seen if first is None else first["seen"]
    pixels = segment.astype(np.float32)
    beside = [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (1, 2)]
    return {
        "bits": model.score(Video(segment, prompt.fps), prompt.text).per_token.bits,
        **{f"prompt_{name}": seen[name] == prompt.stated[name] for name in KEPT},
        "prompt_intact": not seen["faults"],
        **{f"start_{name}": seen[name] == start[name] for name in KEPT},
        "contrast": float(pixels.std(axis=(1, 2)).mean()),
        "sharpness": float(np.mean(beside)),
        "motion": float(np.abs(np.diff(pixels, axis=0)).mean()),
        "seen": seen,
    }


def estimates(rows: Sequence[Row], beside: Sequence[Row] | None = None) -> dict[str, Estimate]:
    """`MEASURES` over rows that have nothing to do with each other: of shares Wilson's interval, else Student's, and of
    the differences to the rows ``beside`` if there are any."""
    found = {}
    for name in MEASURES:
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
    for name in MEASURES:
        if "_" in name:
            cells = [name.replace("_", ": "), f"{real[name][0]:.2f}"]
            cells += ["{:.2f} ({:.2f} to {:.2f})".format(*each[name]) for _, each in shown] + [""]
        else:
            cells = [f"{name}, less the real clip's", f"{real[name][0]:.2f}"]
            cells += ["{:+.2f} ({:+.2f} to {:+.2f})".format(*each[name]) for each in (*(e for _, e in shown), change)]
        lines.append(cells)
    return markdown(heads, lines)
