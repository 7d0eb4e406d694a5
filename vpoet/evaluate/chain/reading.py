"""How many clips sources give, and how long it takes to read and to measure them: found out on a few of them."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean

import av
import numpy as np

from vpoet.arrays import Frames
from vpoet.data.clips import ClipSettings
from vpoet.data.curate.measuring import measure
from vpoet.data.making import maker
from vpoet.data.remote import address
from vpoet.data.shards import ShardWriter
from vpoet.data.sources import MADE, Item
from vpoet.errors import BackendError, DataError
from vpoet.media.detectors import detector
from vpoet.media.shots import stream_shots
from vpoet.media.video import IMAGE_SUFFIXES, Video, resize_frame, stream_frames
from vpoet.nn.judges import judges

LOOKED_AT, READ = 64, 6
"""Sources whose length is looked up, and sources that are read from, at most."""
EXCERPT = 20.0
"""Seconds that are read of a source."""
UNKNOWN = 60.0
"""Seconds of a source whose length cannot be looked up, as it is a tar or lies elsewhere: a guess, which is told."""
MEASURED = (2, 8)
"""Clips that are measured for selection: the second takes longer than the first by what clips take."""
LEAST = 1e-3
"""Seconds that measuring a clip takes at least."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What the sources give."""

    clips: int
    """In all of them, by their lengths; what cuts and damage take away is not known before."""
    seconds: float
    """Of one process, for each of these clips, with the decoding of what lies between them."""
    found: list[Frames]
    """A few of them, uint8 [T, H, W, 3]."""
    guessed: int
    """Sources whose length is a guess."""


def read(items: Sequence[Item], settings: ClipSettings) -> Reading:
    """Look at some of the sources, and read a little of fewer. DataError: none of these gives a clip."""
    made = [item for item in items if item.path.startswith(MADE)]
    if made:
        began = time.perf_counter()
        drawn = [maker(item.path, settings)(item.seed)[0] for item in made[:READ]]
        for clip in drawn:
            Video(clip, settings.fps).encode(".mp4", lossless=True)
        return Reading(len(items), (time.perf_counter() - began) / len(drawn), drawn, 0)
    looked = _evenly([item for item in items if not item.problem], LOOKED_AT)
    lengths = [(item, _seconds(item)) for item in looked]
    known = [length for _, length in lengths if length is not None]
    guessed = round(len(items) * (len(lengths) - len(known)) / max(1, len(lengths)))
    each = [UNKNOWN if length is None else length for _, length in lengths]
    clips = round(len(items) * mean(_clips(length, settings) for length in each)) if each else 0
    readable = [item for item, length in lengths if length is not None and _clips(length, settings)]
    found: list[Frames] = []
    took, lasted, problem = 0.0, 0.0, ""
    for item in _evenly(readable, READ):
        try:
            began = time.perf_counter()
            frames = _excerpt(item, settings)
            if len(frames) >= settings.frames:
                found.append(frames[: settings.frames])
                for _ in range(_clips(len(frames) / settings.fps, settings)):
                    Video(found[-1], settings.fps).encode(".mp4", crf=settings.crf)
            took += time.perf_counter() - began
            lasted += len(frames) / settings.fps
        except DataError as error:
            problem = str(error)
    if not found and not guessed:
        shortest = settings.frames / settings.fps
        raise DataError(
            f"none of the {len(looked)} sources that were looked at gives a clip of {shortest:.1f} seconds"
            f"{': ' if problem else ''}{problem}; `vpoet ingest` says why of each"
        )
    whole = len(items) * mean(each)
    return Reading(max(clips, 1), whole * (took / lasted if lasted else 0.1) / max(clips, 1), found, guessed)


def measuring(found: Sequence[Frames], fps: float) -> tuple[float, float]:
    """Seconds that it takes to measure a clip for selection, with an embedding and without; (0, 0): packages for it are
    not there."""
    if not found:
        return 0.0, 0.0
    try:
        for_each = []
        for embedding in (True, False):
            few, many = (_measuring(found, fps, embedding, count) for count in MEASURED)
            for_each.append(max(many - few, 0.0) / (MEASURED[1] - MEASURED[0]))  # without loading networks
    except (BackendError, ImportError):
        return 0.0, 0.0
    return max(for_each[0], LEAST), max(for_each[1], LEAST)


def _measuring(found: Sequence[Frames], fps: float, embedding: bool, count: int) -> float:
    """Seconds that it takes to measure so many clips."""
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), kind="raw") as writer:
            for number in range(count):
                clip = Video(found[number % len(found)], fps).encode(".mp4")
                writer.write(str(number), {"mp4": clip, "json": {"caption": "", "fps": fps}})
        writer.manifest().save(Path(folder))
        began = time.perf_counter()
        measure(Path(folder), partial(judges, embedding, False, None, None), 1)
        return time.perf_counter() - began


def _evenly(items: Sequence[Item], count: int) -> list[Item]:
    return [items[at * len(items) // count] for at in range(count)] if len(items) > count else list(items)


def _clips(seconds: float, settings: ClipSettings) -> int:
    """Clips of a source that is never cut; of an image (0 seconds) one, which is no clip to measure by."""
    frames = int(seconds * settings.fps)
    return 0 if frames < settings.frames else 1 + (frames - settings.frames) // settings.step


def _seconds(item: Item) -> float | None:
    """How long a source lasts; None if that cannot be known without reading all of it."""
    if not item.path or item.is_tar or address(item.path):
        return None
    if Path(item.path).suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        return 0.0
    try:
        with av.open(item.path) as container:
            return container.duration / av.time_base if container.duration else None
    except (OSError, ValueError, av.FFmpegError):
        return 0.0


def _excerpt(item: Item, settings: ClipSettings) -> Frames:
    """The first frames of a source, read as ingest reads them: uint8 [T, H, W, 3]; T is 0 if it has none."""

    def resized(frame: Frames) -> Frames:
        return resize_frame(frame, settings.height, settings.width)

    count = int(EXCERPT * settings.fps)
    if settings.cuts:
        _, shown = stream_shots(Path(item.path), detector(settings.cuts), resized, fps=settings.fps)
        frames = [frame for _, frame in islice(shown, count)]
    else:
        _, plain = stream_frames(Path(item.path), fps=settings.fps)
        frames = [resized(frame) for frame in islice(plain, count)]
    return np.stack(frames) if frames else np.zeros((0, settings.height, settings.width, 3), np.uint8)
