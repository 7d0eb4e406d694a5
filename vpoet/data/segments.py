"""Samples that interleave texts, images and videos in any order, each image and video encoded on its own.

    a list's row    {"segments": [{"text": "a dog"}, {"image": "dog.png"}, {"video": "dog.mp4", "start": 2.0}, ...]}
    raw shard       KEY.json with these ``segments``, KEY.segment-1.png, KEY.segment-2.mp4, ...
    token shard     KEY.json with these ``segments``, KEY.segment-1.codes.npy, KEY.segment-2.codes.npy, ...

A segment may say ``"target": true``: then training has those produced that do, and gives the others; where none does,
it draws where the model begins. A video gives its first frames from ``start`` seconds on, no more than a clip has.
"""

from collections.abc import Callable, Container, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Codes
from vpoet.data.clips import ClipSettings, clip_fields
from vpoet.data.npy import codes_to_npy, npy_to_codes
from vpoet.data.shards import PICTURE_PARTS
from vpoet.errors import DataError
from vpoet.media.video import Video, first_frame, resize_frame, stream_frames

MOST = 1000
"""Segments of a sample."""
KINDS = ("text", "image", "video")


class TokenSegment(NamedTuple):
    """A text, or an image or video in codes [t, h, w] (``fps`` is 0 for an image)."""

    text: str
    codes: npt.NDArray[Any] | None
    fps: int
    target: bool | None


def checked(segments: object) -> list[dict[str, Any]]:
    """The segments of a row or of a raw json; DataError names the first that is none, by its place."""
    if not isinstance(segments, list) or not 1 <= len(segments) <= MOST:
        raise DataError(f"segments: a list of 1 to {MOST}, each with a text, an image or a video")
    for number, segment in enumerate(segments):
        kinds = [kind for kind in KINDS if isinstance(segment, Mapping) and kind in segment]
        if len(kinds) != 1 or not isinstance(segment[kinds[0]], str):
            raise DataError(f"segment {number}: says one of text, image or video, as a text or the name of a file")
        if not isinstance(segment.get("target", False), bool):
            raise DataError(f"segment {number}: target is true or false, not {segment['target']!r}")
        start = segment.get("start", 0)
        if isinstance(start, bool) or not isinstance(start, int | float) or start < 0:
            raise DataError(f"segment {number}: start is a time in seconds, not {start!r}")
    if not any("text" not in segment for segment in segments):
        raise DataError("segments: texts alone; one at least is an image or a video")
    return [dict(segment) for segment in segments]


def from_list(segments: object, folder: Path, told: Callable[[str], str]) -> list[dict[str, Any]]:
    """A row's segments with the paths of their files, from the list's ``folder``; ``told`` names a file for shards."""
    found = checked(segments)
    for segment in found:
        segment.pop("path", None)  # a text's own, which names no file of this sample
        for kind in ("image", "video"):
            if kind in segment:
                segment |= {kind: told(segment[kind]), "path": str(folder / segment[kind])}
    return found


def interleaves(fields: Mapping[str, Any], payloads: Container[str]) -> bool:
    """Whether a shard's sample is of segments: it says so and is no whole clip, whose ``segments`` would be a column
    of its list (those of a transcript)."""
    return "segments" in fields and not any(part in payloads for part in (*PICTURE_PARTS, "codes.npy"))


def files(segments: list[dict[str, Any]]) -> list[str]:
    """The files that a row's segments are made of."""
    return [segment["path"] for segment in segments if "path" in segment]


def made(fields: Mapping[str, Any], source: str, settings: ClipSettings) -> tuple[dict[str, bytes], dict[str, Any]]:
    """A row's sample for a raw shard: payloads by extension, and the json. DataError: a file that cannot be read, or a
    video that is too short."""
    parts: dict[str, bytes] = {}
    told, total, rates = [], 0, [0.0]
    for number, segment in enumerate(fields["segments"]):
        about = {name: value for name, value in segment.items() if name != "path"}
        if "path" in segment:
            try:
                video = _pictures(segment, settings)
            except DataError as error:
                raise DataError(f"segment {number}: {str(error).removeprefix(segment['path'] + ': ')}") from None
            suffix = ".mp4" if "video" in segment else ".png"
            payload = video.encode(suffix, lossless=settings.lossless, crf=settings.crf, preset=settings.preset)
            parts[f"segment-{number}{suffix}"] = payload
            about |= {"frames": len(video)} | ({"fps": video.fps} if video.fps else {})
            total += len(video)
            rates.append(video.fps)
        told.append(about)
    rest = {name: value for name, value in fields.items() if name != "segments"}
    size = {"height": settings.height, "width": settings.width}
    return parts, clip_fields(rest, source=source, first=0, frames=total, fps=max(rates), **size) | {"segments": told}


def _pictures(segment: Mapping[str, Any], settings: ClipSettings) -> Video:
    if "image" in segment:
        return Video(resize_frame(first_frame(segment["path"]), settings.height, settings.width)[None], 0.0)
    start = float(segment.get("start", 0))
    rate, frames = stream_frames(segment["path"], fps=settings.fps or None, start=start, size=settings.size)
    taken = [resize_frame(frame, settings.height, settings.width) for frame in islice(frames, settings.frames)]
    if len(taken) < settings.shortest or not rate:
        raise DataError(f"a video of {len(taken)} frames; a clip has {settings.shortest} at least")
    return Video(np.stack(taken), rate)


def encoded(fields: Mapping[str, Any], payloads: Mapping[str, bytes], encode: Callable[[Any], Codes]) -> dict[str, Any]:
    """What a token shard holds of a raw shard's sample, by extension, and its ``json`` with the grid of each segment.

    DataError: a segment is missing, cannot be decoded, or fits no grid.
    """
    parts: dict[str, Any] = {}
    told = checked(fields["segments"])
    for number, segment in enumerate(told):
        if "text" not in segment:
            name = f"segment-{number}.{'mp4' if 'video' in segment else 'png'}"
            if name not in payloads:
                raise DataError(f"missing {name}")
            codes = encode(np.asarray(Video.read(payloads[name])))
            parts[f"segment-{number}.codes.npy"] = codes_to_npy(codes)
            segment["grid"] = list(codes.shape)
    return parts | {"json": {**fields, "segments": told}}


def from_parts(fields: Mapping[str, Any], held: Mapping[str, bytes]) -> tuple[TokenSegment, ...]:
    """The segments of a token shard's sample; DataError for what `encoded` does not give."""
    found = []
    for number, segment in enumerate(checked(fields["segments"])):
        codes, fps = None, 0
        if "text" not in segment:
            name = f"segment-{number}.codes.npy"
            if name not in held:
                raise DataError(f"missing {name}")
            codes = npy_to_codes(held[name])
            fps = round(segment["fps"]) if "video" in segment and isinstance(segment.get("fps"), int | float) else 0
            if not codes.size or (fps < 1 and "video" in segment) or ("image" in segment and len(codes) != 1):
                raise DataError(f"{name}: no codes, or no fps")
        found.append(TokenSegment(segment.get("text", ""), codes, fps, segment.get("target")))
    return tuple(found)
