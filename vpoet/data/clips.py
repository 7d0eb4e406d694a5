"""From a stream of frames to clips, and the fields a clip carries: pure functions, no files."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.data import recordings
from vpoet.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What every clip of a set has in common."""

    frames: int = 17
    """In a clip. A tokenizer of stride r in time wants 1 + r * n."""
    fps: float = 8.0
    """Frames per second to resample to; 0 keeps each file's own rate."""
    height: int = 64
    width: int = 64
    """Pixels; a frame is scaled to cover the size, with its aspect kept, and its centre is cut out."""
    stride: int | None = None
    """Frames from a clip's start to the next one's; None for ``frames``: clips that touch and don't overlap."""
    min_frames: int | None = None
    """The shortest tail of a video that is kept as a clip of its own; None for ``frames``: whole clips only."""
    lossless: bool = False
    crf: int = 18

    def __post_init__(self) -> None:
        shortest = self.frames if self.min_frames is None else self.min_frames
        if min(self.frames, self.height, self.width, self.step, shortest) < 1 or shortest > self.frames:
            raise DataError("frames, height, width, stride and min-frames are 1 or more, and min-frames at most frames")
        if not (self.fps >= 0 and 0 <= self.crf <= 51):
            raise DataError(f"fps is 0 or more (not {self.fps}) and crf is 0 to 51 (not {self.crf})")

    @property
    def step(self) -> int:
        return self.frames if self.stride is None else self.stride

    @property
    def shortest(self) -> int:
        return self.frames if self.min_frames is None else self.min_frames


def windows(frames: Iterable[Frames], length: int, step: int, shortest: int) -> Iterator[tuple[int, Frames]]:
    """(index of the first frame, ``uint8 [T, H, W, 3]``) for each window of ``length`` frames, ``step`` apart.

    A shorter window at the end is kept if it has ``shortest`` frames and shows one at least that no window before did.
    No more than ``length`` frames are held at once::

        length 4, step 3, shortest 2:   0 1 2 3 4 5 6 7 8
                                        [-----]
                                              [-----]
                                                    [-]    kept: 8 is new
    """
    held: list[Frames] = []
    first = seen = covered = 0
    for frame in frames:
        if seen >= first:
            held.append(frame)
        seen += 1
        if len(held) == length:
            yield first, np.stack(held)
            covered = seen
            first += step
            held = held[step:]
    if len(held) >= shortest and seen > covered:
        yield first, np.stack(held)


def clip_fields(
    fields: Mapping[str, Any], *, source: str, first: int, frames: int, fps: float, height: int, width: int
) -> dict[str, Any]:
    """The json of a clip: its own facts, and the fields of its source.

    A field of the source that has the name of a fact about the clip (its ``frames`` are not the clip's) is kept as
    ``source_NAME``. ``first`` is the clip's first frame at ``fps``, the rate of the frames that a recording's actions
    and captions speak of (`vpoet.data.recordings`).
    """
    own: dict[str, Any] = {
        "caption": fields.get("caption") or "",
        "fps": fps,
        "frames": frames,
        "height": height,
        "width": width,
        "source": source,
        "license": fields.get("license") or fields.get("licence") or "",
        "start": round(first / fps, 6) if fps else 0.0,
    }
    timed = recordings.cut(fields, first, frames)
    without = ("caption", "license", "licence", "actions", *timed)
    given = {name: value for name, value in fields.items() if name not in without}
    renamed = {f"source_{name}" if name in own or name == "sha256" else name: value for name, value in given.items()}
    return renamed | own | timed
