"""Samples of tars that others made: webdataset, as img2dataset and video2dataset write it, and as they come.

    000000001.mp4  000000001.txt  000000001.json        video2dataset
    000000002.jpg  000000002.txt  000000002.json        img2dataset

The caption is that of the json (`caption`, or `text`), else the .txt; further fields of the json travel along. What a
sample says is data: no name in it is looked for on this machine.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vpoet.data import recordings
from vpoet.data.fields import check_caption, parse_json, printable
from vpoet.data.shards import Problems
from vpoet.data.tar import Grouped, read_groups
from vpoet.errors import DataError
from vpoet.files import open_file
from vpoet.media.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

MEDIA = tuple(suffix.removeprefix(".") for suffix in (*sorted(VIDEO_SUFFIXES), *sorted(IMAGE_SUFFIXES)))
LONGEST_TEXT = 1 << 22
"""Bytes of a .txt or .json that is read."""


class ForeignSample(NamedTuple):
    name: str
    """TAR/KEY, for reports and the clip's json."""
    data: bytes
    """Of the video or image."""
    fields: dict[str, Any]


def foreign_samples(path: Path, name: str, problems: Problems) -> Iterator[ForeignSample]:
    """The samples of a tar, in order; those that give nothing are noted. DataError: it cannot be opened."""
    try:
        stream = open_file(path)
    except OSError as error:
        raise DataError(f"{name}: cannot be opened: {error.strerror}") from None
    with stream:
        for group in read_groups(stream, lambda reason, member: problems.add(reason, f"{name}: {member}")):
            told = f"{name}/{printable(group.key)}"
            try:
                yield ForeignSample(told, *_read(group))
            except DataError as error:
                # a name with dots is a key that ends at the first, as webdataset has it
                problems.add(str(error), f"{told} ({printable(', '.join(group.parts))})")


def _read(group: Grouped) -> tuple[bytes, dict[str, Any]]:
    key = PurePosixPath(group.key)
    if key.is_absolute() or ".." in key.parts:
        raise DataError("a name that leads out of its folder")
    if group.twice:
        raise DataError(f"{group.twice[0]} comes twice")
    data = next((group.parts[suffix] for suffix in MEDIA if suffix in group.parts), None)
    if data is None:
        raise DataError("no video or image in it")
    if any(len(group.parts.get(kind, b"")) > LONGEST_TEXT for kind in ("json", "txt")):
        raise DataError("too long a text")
    fields = parse_json(group.parts["json"]) if "json" in group.parts else {}
    if not isinstance(fields, dict):
        raise DataError("its json is not an object")
    caption = fields.get("caption") or fields.get("text") or group.parts.get("txt", b"").decode("utf-8", "replace")
    check_caption(caption)
    # a text in place of a recording would be taken for the name of a file
    fields = {key: each for key, each in fields.items() if not (key in recordings.NAMES and isinstance(each, str))}
    return data, {**{key: each for key, each in fields.items() if key != "segments"}, "caption": caption}
