"""What a source gives: the clips of a video, an image, a sample in a tar, a row of a list, or a world."""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.data import control_parts, recordings, segments
from vpoet.data.clips import ClipSettings, clip_fields, shot_windows
from vpoet.data.foreign import foreign_samples
from vpoet.data.jobs import MISSING, seen
from vpoet.data.remote import UNREACHED, address, fetched
from vpoet.data.shards import Problems
from vpoet.data.sources import MADE, Item
from vpoet.errors import DataError
from vpoet.media.detectors import detector
from vpoet.media.shots import stream_shots
from vpoet.media.video import Video, frame_rate, resize_frame, stream_frames

AWAY = "away: asked for again when this command is run again"
"""Of a source on a server that cannot be reached."""

Made = tuple[dict[str, bytes], dict[str, Any]]
"""Payloads by extension, and the json, of a clip."""


def made(item: Item, settings: ClipSettings, problems: Problems) -> Iterator[Made]:
    """The clips of an item. Whatever gives none, or breaks off, is noted."""
    if item.path.startswith(MADE):
        yield from _world_samples(item, settings, problems)
    elif item.problem:
        problems.add(f"bad row: {item.problem}", item.name)
    elif seen(item) is None:
        problems.add(MISSING, item.name)
    elif not item.path:
        yield from _interleaved(item, settings, problems)
    else:
        try:
            url = address(item.path)
            with fetched(url) if url else nullcontext(Path(item.path)) as path:
                if item.is_tar:
                    yield from _tar_samples(path, item, settings, problems)
                else:
                    yield from _clips(path, item, settings, problems)
        except DataError as error:
            problems.add(AWAY if UNREACHED in str(error) else "cannot be fetched", f"{item.name}: {error}")


def _tar_samples(path: Path, item: Item, settings: ClipSettings, problems: Problems) -> Iterator[Made]:
    """Each clip of each sample of a tar that others made; a sample is told as TAR/KEY."""
    for sample in foreign_samples(path, item.name, problems):
        fields = {**item.fields, **sample.fields}
        yield from _clips(sample.data, Item(sample.name, sample.name, fields), settings, problems)


def _clips(source: Path | bytes, item: Item, settings: ClipSettings, problems: Problems) -> Iterator[Made]:
    """Each clip of a video or image, of which the item tells. One that gives none, or breaks off, is noted."""
    size = {"height": settings.height, "width": settings.width}
    kept = 0
    try:
        rate, frames = _frames(source, settings)
        fields = _timed(item, source, rate, problems)
        if not rate:
            for _, frame in frames:
                image = Video(frame[None], 0.0).encode(".png")
                kept += 1
                told = clip_fields(fields, source=item.name, first=0, frames=1, fps=0.0, **size)
                yield {"png": image, **control_parts.pictured(settings.control_kinds, frame[None], 0.0)}, told
        else:
            lengths = settings.frames, settings.step, settings.shortest, settings.min_shot
            for first, shot, clip in shot_windows(frames, *lengths):
                video = Video(clip, rate).encode(
                    ".mp4", lossless=settings.lossless, crf=settings.crf, preset=settings.preset
                )
                kept += 1
                told = clip_fields(
                    fields, source=item.name, first=first, frames=len(clip), fps=rate,
                    shot=shot if settings.cuts else None, **size,
                )  # fmt: skip
                yield {"mp4": video, **control_parts.pictured(settings.control_kinds, clip, rate)}, told
        if not kept:
            problems.add("too short", item.name)
    except DataError as error:
        why = str(error).removeprefix(f"{source}: ") if isinstance(source, Path) else str(error)
        reason = "breaks off: the clips before that are kept" if kept else "cannot be decoded"
        problems.add(reason, f"{item.name}: {why}")


def _frames(source: Path | bytes, settings: ClipSettings) -> tuple[float, Iterator[tuple[int | None, Frames]]]:
    """The rate, and the frames of a source at the settings' size, each with the number of its shot."""
    rate = settings.fps or None

    def resized(frame: Frames) -> Frames:
        return resize_frame(frame, settings.height, settings.width)

    if settings.cuts:
        return stream_shots(source, detector(settings.cuts), resized, fps=rate, size=settings.size)
    found, frames = stream_frames(source, fps=rate, size=settings.size)
    return found, ((0, resized(frame)) for frame in frames)


def _timed(item: Item, source: Path | bytes, fps: float, problems: Problems) -> dict[str, Any]:
    """The item's fields, with actions, outcomes and captions as they are of its frames at ``fps``; what cannot be told
    at that rate, or is broken, is left out and noted."""
    try:
        fields = recordings.loaded(item.fields)
        if not recordings.is_timed(fields):
            return fields
        own = frame_rate(source)
        if not own:
            raise DataError("an image has no steps, and no time")
        frames = sum(1 for _ in stream_frames(source)[1]) if "actions" in fields else 0
        fields = recordings.resampled(fields, frames=frames, own=own, fps=fps)
        if isinstance(fields.get("actions"), list):
            recordings.parts(fields, len(fields["actions"]) + 1)
        return fields
    except DataError as error:
        problems.add("actions, outcomes and captions in time left out", f"{item.name}: {error}")
        return {name: value for name, value in item.fields.items() if name not in recordings.NAMES}


def _interleaved(item: Item, settings: ClipSettings, problems: Problems) -> Iterator[Made]:
    """The one sample of a row with segments."""
    try:
        yield segments.made(item.fields, item.name, settings)
    except DataError as error:
        problems.add("segments left out", f"{item.name}: {error}")


def _world_samples(item: Item, settings: ClipSettings, problems: Problems) -> Iterator[Made]:
    """One clip of a world, without loss: its pixels are the truth that its fields speak of.

    One that ends early is a shorter clip, which ``min_frames`` can be too much for.
    """
    frames, fields = maker(item.path, settings)(item.seed)
    if settings.min_frames is not None and len(frames) < settings.min_frames:
        problems.add("its end comes too soon", item.name)
    else:
        fps = fields["fps"]
        drawn = control_parts.pictured(settings.control_kinds, frames, fps, known_controls(item, settings))
        yield {"mp4": Video(frames, fps).encode(".mp4", lossless=True), **drawn}, fields


def known_controls(item: Item, settings: ClipSettings) -> control_parts.Exact:
    """What is known of a source's clip; of what is filmed, and of environments, nothing."""
    if not item.path.startswith(worlds.WORLD):
        return control_parts.nobody
    world = worlds.find(item.path.removeprefix(worlds.WORLD))
    return partial(world(settings.height, settings.width, settings.fps, settings.frames).control, item.seed)


def maker(source: str, settings: ClipSettings) -> worlds.Maker:
    return worlds.maker(source, settings.height, settings.width, settings.fps, settings.frames)
