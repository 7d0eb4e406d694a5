"""Sources (videos, images, folders, lists, worlds) to folders of raw shards.

Sources are divided in order into fixed jobs, and a job writes its own shards: the result is the same, byte for byte,
for any number of worker processes. A finished job leaves a record, so a second run with the same settings does only
what is left, and again those of a source that was away and is there now. A file that cannot be read is skipped, counted
and named; it never stops the others.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vpoet.data import recordings
from vpoet.data.clips import ClipSettings
from vpoet.data.jobs import RECORDS, Job, Result, Seen, is_readable, recorded, seen
from vpoet.data.making import AWAY, known_controls, made, maker
from vpoet.data.remote import address
from vpoet.data.shards import MANIFEST, Manifest, ShardWriter
from vpoet.data.sources import MADE, Item
from vpoet.data.spool import Made, Some
from vpoet.data.workers import Progress, Workers, share_out
from vpoet.errors import DataError
from vpoet.files import LOCK, locked, read_json, sweep, write_atomic, writing
from vpoet.media.control import MAKERS
from vpoet.media.detectors import detector
from vpoet.worlds import WORLD

SETTINGS = "ingest.json"
LATER = {"cuts": "", "min_shot": 1, "version": 1, "controls": ""}
"""Settings that older folders do not tell, and what these were made with."""


def ingest(
    sides: Mapping[str, Sequence[Item]],
    out: str | Path,
    settings: ClipSettings,
    *,
    workers: int | Workers = 1,
    samples_per_shard: int = 512,
    progress: Progress = lambda sources, clips: None,
) -> dict[str, Result]:
    """Write each side of `divide` as a folder of raw shards under ``out``, with a manifest; the result of each side.

    DataError if ``out`` was made from other sources or settings, or if a side comes out empty; OutputError if it cannot
    be written, or another process is writing there.
    """
    out = Path(out)
    for source in {item.path for items in sides.values() for item in items if item.path.startswith(MADE)}:
        maker(source, settings)  # a wrong one is found before anything is written
    if settings.cuts:
        detector(settings.cuts)  # likewise
    if drawn := set(settings.control_kinds).difference(MAKERS):
        every = (item for items in sides.values() for item in items)
        for first in {item.path.startswith(WORLD) and item.path: item for item in every}.values():
            for kind in drawn:
                known_controls(first, settings)(kind)  # likewise
    with locked(out):
        settings = _as_begun(out, settings)
        _claim(out, sides, settings, samples_per_shard)
        return _ingest(sides, out, settings, workers, samples_per_shard, progress)


def _ingest(
    sides: Mapping[str, Sequence[Item]],
    out: Path,
    settings: ClipSettings,
    workers: int | Workers,
    samples_per_shard: int,
    progress: Progress,
) -> dict[str, Result]:
    jobs = _Jobs(sides, out, settings, samples_per_shard)
    done = {at: record for at in range(len(jobs)) if (record := recorded(jobs[at])) is not None}
    todo = [at for at in range(len(jobs)) if at not in done]
    for folder in {jobs.folder(at) for at in todo}:  # from now on until its manifest lists what is there, no set
        with writing(folder):
            (folder / MANIFEST).unlink(missing_ok=True)
        for part in (folder, folder / RECORDS):
            sweep(part)
    progress(sum(result.sources for result in done.values()), sum(result.clips for result in done.values()))
    for job, found in share_out(_run_job, Some(jobs, todo), workers, progress):
        done[jobs.place(job)] = found
    results = {}
    for side in sides:
        result = results[side] = Result()
        for at in range(len(jobs)):
            if jobs.folder(at) == out / side:
                result.add(done[at])
        if not result.clips:
            raise DataError(f"{out / side}: nothing to keep from {result.sources} sources: {result.problems}")
        if len(result.spaces) > 1:
            told = " and ".join(json.dumps(space.told()) for space in result.spaces[:2])
            raise DataError(f"{out / side}: different action spaces, {told}: ingest each into a folder of its own")
        Manifest("raw", result.shards, actions=next(iter(result.spaces), None)).save(out / side)
        _remove_others(out / side, {shard.name for shard in result.shards})
    return results


def _remove_others(folder: Path, listed: set[str]) -> None:
    """Shards of a job that was done again and has fewer now."""
    with writing(folder):
        for path in folder.glob("raw-*.tar"):
            if re.fullmatch(r"raw-\d{5,}-\d{5,}\.tar", path.name) and path.name not in listed:
                path.unlink()


class _Jobs(Made[Job]):
    """The jobs of all sides, each made when it is asked for: its sources need not all be in memory.

    Of a side about 32, of 8 to 512 sources: enough to share out, and no crowd of tiny shards. It knows no workers.
    """

    def __init__(
        self, sides: Mapping[str, Sequence[Item]], out: Path, settings: ClipSettings, samples_per_shard: int
    ) -> None:
        self._sides, self._out, self._settings, self._samples_per_shard = sides, out, settings, samples_per_shard
        sizes = {side: min(512, max(8, -(-len(items) // 32))) for side, items in sides.items()}
        self._parts = [
            (side, number, slice(first, first + sizes[side]))
            for side, items in sides.items()
            for number, first in enumerate(range(0, len(items), sizes[side]))
        ]
        self._places = {(str(out / side), number): at for at, (side, number, _) in enumerate(self._parts)}

    def __len__(self) -> int:
        return len(self._parts)

    def at(self, place: int) -> Job:
        side, number, part = self._parts[place]
        items = tuple(self._sides[side][part])
        return Job(number, str(self._out / side), items, self._settings, self._samples_per_shard)

    def folder(self, at: int) -> Path:
        """Where a job writes."""
        return self._out / self._parts[at][0]

    def place(self, job: Job) -> int:
        return self._places[job.folder, job.number]


def _as_begun(out: Path, settings: ClipSettings) -> ClipSettings:
    """The settings, with pixels made in the way in which those in ``out`` are."""
    with suppress(OSError, ValueError, AttributeError):  # there is nothing, or what `_claim` finds damaged
        return replace(settings, version=read_json(out / SETTINGS).get("version", LATER["version"]))
    return settings


def _claim(out: Path, sides: Mapping[str, Sequence[Item]], settings: ClipSettings, samples_per_shard: int) -> None:
    """Note in ``out`` what it is made of; refuse it if it is made of something else."""
    digest = hashlib.sha256()
    for part in _listed(sides):
        digest.update(part.encode())
    wanted = {
        **{name: value for name, value in asdict(settings).items() if name not in LATER or value != LATER[name]},
        "samples_per_shard": samples_per_shard,
        "sources": sum(len(items) for items in sides.values()),
        "sources_sha256": digest.hexdigest(),
    }
    path = out / SETTINGS
    if path.exists():
        try:
            found = read_json(path)
            keys = [*wanted, *(key for key in LATER if key in found and key not in wanted)]
            changed = [
                f"{key} {found.get(key)} -> {wanted.get(key)}" for key in keys if found.get(key) != wanted.get(key)
            ]
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}), so what lies beside it is not known: remove {out}") from None
        if changed:
            raise DataError(f"{out}: made with other settings ({'; '.join(changed)}): use another folder, or remove it")
        return
    with writing(out):
        if any(not each.name.startswith(LOCK) for each in out.iterdir()):
            raise DataError(f"{out}: not empty and not made by ingest: use another folder")
    write_atomic(path, json.dumps(wanted, indent=1))


def _listed(sides: Mapping[str, Sequence[Item]]) -> Iterator[str]:
    """JSON of ``[[side, items], ...]``, piece by piece: what the identity of a folder's sources is taken of."""
    for at, (side, items) in enumerate(sides.items()):
        yield f"{', ' if at else '['}[{json.dumps(side)}, ["
        for number, item in enumerate(items):
            yield f"{', ' if number else ''}{json.dumps(_told(item), sort_keys=True)}"
        yield "]]"
    yield "]"


def _told(item: Item) -> dict[str, Any]:
    told = asdict(item)
    if not item.problem:
        del told["problem"]
    return told


def _run_job(job: Job, progress: Progress) -> Result:
    """Write the job's shards, then its record; ``progress`` hears of each source and clip."""
    result = Result()
    found: list[Seen] = []
    with writing(job.record):
        job.record.unlink(missing_ok=True)
    with ShardWriter(job.folder, kind="raw", samples_per_shard=job.samples_per_shard, worker=job.number) as writer:
        for index, item in enumerate(job.items):
            found.append(seen(item))
            troubles, absent = result.problems.total, result.problems.counts.get(AWAY, 0)
            for number, (parts, fields) in enumerate(made(item, job.settings, result.problems)):
                writer.write(f"{job.number:05d}-{index:03d}-{number:05d}", {**parts, "json": fields})
                result.add_space(recordings.action_space(fields))
                result.clips += 1
                result.seconds += fields["frames"] / fields["fps"] if fields["fps"] else 0.0
                progress(0, 1)
            here = [path for path in item.files if not address(path)]
            away = result.problems.counts.get(AWAY, 0) > absent
            if result.problems.total > troubles and found[-1] and (away or not all(map(is_readable, here))):
                found[-1] = None  # a disk or a network that failed, and may not the next time
            result.sources += 1
            progress(1, 0)
    result.shards = writer.shards
    job.keep(result, found)
    return result
