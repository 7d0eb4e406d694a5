"""The jobs of an ingest: what one has to do, what came of it, and the record by which a later run knows."""

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vpoet.data.clips import ClipSettings
from vpoet.data.remote import address
from vpoet.data.shards import Problems, ShardInfo
from vpoet.data.sources import Item
from vpoet.files import CHUNK, read_json, write_atomic
from vpoet.sequence.actions import ActionSpace

RECORDS = ".jobs"
MISSING = "missing file"
Seen = list[int] | None
"""Size and time of a source, or None if it could not be read."""


@dataclass
class Result:
    """What came of the sources of a job, or of a whole side."""

    sources: int = 0
    clips: int = 0
    seconds: float = 0.0
    """Of video kept; overlapping clips count in full."""
    shards: list[ShardInfo] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)
    spaces: list[ActionSpace] = field(default_factory=list)
    """The different action spaces of the clips, in the order in which they came."""

    def add_space(self, space: ActionSpace | None) -> None:
        if space is not None and space not in self.spaces:
            self.spaces.append(space)

    def add(self, other: "Result") -> None:
        self.sources += other.sources
        self.clips += other.clips
        self.seconds += other.seconds
        self.shards += other.shards
        self.problems.update(other.problems)
        for space in other.spaces:
            self.add_space(space)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    def summary(self) -> dict[str, object]:
        """For a report."""
        return {
            "sources": self.sources,
            "clips": self.clips,
            "hours": round(self.seconds / 3600, 4),
            "shards": len(self.shards),
            "bytes": self.bytes,
            "skipped": self.problems.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        return {
            "sources": self.sources,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "shards": [asdict(shard) for shard in self.shards],
            "problems": self.problems.to_dict(),
        } | ({"action_spaces": [space.told() for space in self.spaces]} if self.spaces else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        """ValueError, KeyError, TypeError or AttributeError for what `to_dict` never gave."""
        shards = [ShardInfo.from_dict(shard) for shard in values["shards"]]
        clips, seconds = sum(shard.samples for shard in shards), float(values["seconds"])
        if values["clips"] != clips or not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError("figures that do not fit the shards")
        spaces = [ActionSpace.of(told) for told in values.get("action_spaces", [])]
        return cls(int(values["sources"]), clips, seconds, shards, Problems.from_dict(values["problems"]), spaces)


@dataclass(frozen=True, eq=False)
class Job:
    number: int
    folder: str
    items: tuple[Item, ...]
    settings: ClipSettings
    samples_per_shard: int

    @property
    def record(self) -> Path:
        return Path(self.folder) / RECORDS / f"{self.number:05d}.json"

    def keep(self, result: Result, found: list[Seen]) -> None:
        """Record that the job is done; ``found``: what `seen` gave of each item before it was read."""
        write_atomic(self.record, json.dumps(result.to_dict() | {"seen": found}, ensure_ascii=False))


def recorded(job: Job) -> Result | None:
    """The result of a job that is finished, with its shards still there, and no source other than it was."""
    try:
        record = read_json(job.record)
        result = Result.from_dict(record)
        paths = [(Path(job.folder) / shard.name, shard.bytes) for shard in result.shards]
        whole = all(path.is_file() and path.stat().st_size == size for path, size in paths)
        nows = [seen(item) for item in job.items]
        # older records do not tell what they saw
        thens = record.get("seen", [None] * len(nows) if MISSING in result.problems.counts else nows)
        changed = any(now not in (None, then) for now, then in zip(nows, thens, strict=True))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):  # damaged: the job is done again
        return None
    mine = all(shard.name.startswith(f"raw-{job.number:05d}-") for shard in result.shards)
    return result if whole and mine and not changed and result.sources == len(job.items) else None


def seen(item: Item) -> Seen:
    """Size and time of a source that is a file and may be read (of several: their sum, and the latest); a source that
    was none is looked at again. One that lies elsewhere is always the same: [-1, 0]."""
    if any(map(address, item.files)):
        return [-1, 0]
    try:
        abouts = [Path(path).stat() for path in item.files]
        there = all(stat.S_ISREG(about.st_mode) for about in abouts)
        there &= all(os.access(path, os.R_OK) for path in item.files)
    except (OSError, ValueError):
        return None
    if not (there and abouts):
        return None
    return [sum(about.st_size for about in abouts), max(about.st_mtime_ns for about in abouts)]


def is_readable(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            while file.read(CHUNK):
                pass
    except OSError:
        return False
    return True
