"""From a stream of frames to clips, and the fields a clip carries: pure functions, no files."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby, islice
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
    cuts: str = ""
    """Name of a detector of shots (`vpoet.media.detectors`): no clip has frames of two. "": films are not cut."""
    min_shot: int = 1
    """The shortest shot that is kept, in frames at ``fps``."""
    controls: str = ""
    """Kinds of control signals that are kept beside each clip, in the order of `vpoet.sequence.controls.KINDS`, with
    commas between them."""
    version: int = 2
    """Of how pixels are made. 1, of folders that do not tell one: frames converted whole, then scaled by Pillow; x264's
    medium. 2: in one step (`vpoet.media.fitted`); x264's veryfast, twice as fast, for files 3% larger."""

    def __post_init__(self) -> None:
        shortest = self.frames if self.min_frames is None else self.min_frames
        if min(self.frames, self.height, self.width, self.step, shortest) < 1 or shortest > self.frames:
            raise DataError("frames, height, width, stride and min-frames are 1 or more, and min-frames at most frames")
        if not (self.fps >= 0 and 0 <= self.crf <= 51):
            raise DataError(f"fps is 0 or more (not {self.fps}) and crf is 0 to 51 (not {self.crf})")

        if self.version not in (1, 2):
            raise DataError(f"clips of version {self.version!r}: this vpoet makes those of 1 and 2")
        if self.min_shot < 1 or (self.min_shot > 1 and not self.cuts):
            raise DataError(f"min-shot is 1 or more (not {self.min_shot}), and for films that are cut: give cuts, too")

    @property
    def size(self) -> tuple[int, int] | None:
        """What frames are read at; None: as they are."""
        return None if self.version == 1 else (self.height, self.width)

    @property
    def preset(self) -> str:
        return "medium" if self.version == 1 else "veryfast"

    @property
    def control_kinds(self) -> tuple[str, ...]:
        return tuple(self.controls.split(",")) if self.controls else ()

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


def shot_windows(
    frames: Iterable[tuple[int | None, Frames]], length: int, step: int, shortest: int, min_shot: int = 1
) -> Iterator[tuple[int, int, Frames]]:
    """(index of the first frame, number of its shot, frames) of the `windows` of each shot, apart from the others.

    ``frames`` come with the number of their shot; those with None belong to none and are left out, as are shots of
    fewer than ``min_shot`` frames.
    """
    for shot, group in groupby(enumerate(frames), key=lambda pair: pair[1][0]):
        head = list(islice(group, min_shot))
        if shot is not None and len(head) == min_shot:
            inside = windows((frame for _, (_, frame) in chain(head, group)), length, step, shortest)
            yield from ((head[0][0] + first, shot, clip) for first, clip in inside)


def clip_fields(
    fields: Mapping[str, Any],
    *,
    source: str,
    first: int,
    frames: int,
    fps: float,
    height: int,
    width: int,
    shot: int | None = None,
) -> dict[str, Any]:
    """The json of a clip: its own facts, and the fields of its source.

    A field of the source that has the name of a fact about the clip (its ``frames`` are not the clip's) is kept as
    ``source_NAME``. ``first`` is the clip's first frame at ``fps``, the rate of the frames that a recording's actions
    and captions speak of (`vpoet.data.recordings`). ``shot``: which of the source's it is part of, where that is known.
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
    own |= {} if shot is None else {"shot": shot}
    timed = recordings.cut(fields, first, frames)
    without = ("caption", "license", "licence", "actions", *timed)
    given = {name: value for name, value in fields.items() if name not in without}
    renamed = {f"source_{name}" if name in own or name == "sha256" else name: value for name, value in given.items()}
    return renamed | own | timed
