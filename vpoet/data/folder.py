"""What a folder of shards holds, shard after shard."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from vpoet.arrays import Frames
from vpoet.data.shards import Manifest, Problems, Sample, read_shard
from vpoet.data.shelf import Shelf
from vpoet.errors import DataError
from vpoet.media.video import Video


def read_samples(
    *folders: str | Path, required: tuple[str, ...] = ("json",), problems: Problems | None = None
) -> Iterator[Sample]:
    """The sound samples of folders of shards, in order; see `read_shard`. DataError: one is no such folder."""
    for folder in folders:
        shelf = Shelf(folder)
        for shard in shelf.manifest().shards:
            path = shelf.path(shard)
            yield from read_shard(path, required=required, problems=problems, samples=shard.samples)


def read_videos(*folders: str | Path, problems: Problems | None = None) -> Iterator[tuple[Sample, Video]]:
    """The samples of folders of raw shards with their clips; one that cannot be decoded is noted in ``problems``."""
    problems = Problems() if problems is None else problems
    for sample in read_samples(*folders, problems=problems):
        try:
            yield sample, Video.read(sample.video)
        except DataError as error:
            problems.add("cannot be decoded", f"{sample.key}: {error}")


def overview(folder: str | Path, count: int) -> list[tuple[str, Frames]]:
    """At most ``count`` clips from all over a folder of raw shards, each with its caption, or else its source."""
    shards = Manifest.load(folder).shards
    rows = []
    for shard in shards[:: max(1, len(shards) // count)][:count]:
        for sample in islice(read_shard(Path(folder) / shard.name), -(-count // len(shards))):
            rows.append(((sample.captions or [sample.json["source"]])[0], Video.read(sample.video).frames))
    return rows[:count]
