"""Sources (videos, images, folders, lists, worlds) to folders of raw shards.

Sources are divided in order into fixed jobs, and a job writes its own shards: the result is the same, byte for byte,
for any number of worker processes. A finished job leaves a record, so a second run with the same settings does only
what is left. A file that cannot be read is skipped, counted and named; it never stops the others.
"""

import hashlib
import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vpoet.data.clips import ClipSettings, clip_fields, windows
from vpoet.data.shards import Manifest, Problems, ShardInfo, ShardWriter, write_atomic
from vpoet.data.sources import WORLD, WORLDS, Item
from vpoet.errors import DataError
from vpoet.media.video import Video, resize_frame, stream_frames

SETTINGS, RECORDS = "ingest.json", ".jobs"
Progress = Callable[[int, int], None]
"""Called with how many more sources are done, and how many more clips kept."""


@dataclass
class Result:
    """What came of the sources of a job, or of a whole side."""

    sources: int = 0
    clips: int = 0
    seconds: float = 0.0
    """Of video kept; overlapping clips count in full."""
    shards: list[ShardInfo] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)

    def add(self, other: "Result") -> None:
        self.sources += other.sources
        self.clips += other.clips
        self.seconds += other.seconds
        self.shards += other.shards
        self.problems.update(other.problems)

    def to_dict(self) -> dict[str, Any]:
        return {
            "sources": self.sources,
            "clips": self.clips,
            "seconds": round(self.seconds, 3),
            "shards": [asdict(shard) for shard in self.shards],
            "problems": self.problems.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Result":
        shards = [ShardInfo(**shard) for shard in values["shards"]]
        return cls(values["sources"], values["clips"], values["seconds"], shards, Problems(**values["problems"]))


def ingest(
    sides: Mapping[str, Sequence[Item]],
    out: str | Path,
    settings: ClipSettings,
    *,
    workers: int = 1,
    samples_per_shard: int = 512,
    progress: Progress = lambda sources, clips: None,
) -> dict[str, Result]:
    """Write each side of `divide` as a folder of raw shards under ``out``, with a manifest; the result of each side.

    DataError if ``out`` was made from other sources or settings, or if a side comes out empty.
    """
    out = Path(out)
    _claim(out, sides, settings, samples_per_shard)
    jobs = [
        _Job(number, str(out / side), tuple(part), settings, samples_per_shard)
        for side, items in sides.items()
        for number, part in enumerate(_parts(items))
    ]
    done: dict[_Job, Result] = {job: record for job in jobs if (record := _recorded(job)) is not None}
    todo = [job for job in jobs if job not in done]
    progress(sum(result.sources for result in done.values()), sum(result.clips for result in done.values()))
    if workers == 1:
        done.update((job, _run_job(job, progress)) for job in todo)
    else:
        done.update(_run_in_processes(todo, workers, progress))
    results = {}
    for side in sides:
        result = results[side] = Result()
        for job in jobs:
            if job.folder == str(out / side):
                result.add(done[job])
        if not result.clips:
            raise DataError(f"{out / side}: nothing to keep from {result.sources} sources: {result.problems}")
        Manifest("raw", result.shards).save(out / side)
    return results


@dataclass(frozen=True, eq=False)
class _Job:
    number: int
    folder: str
    items: tuple[Item, ...]
    settings: ClipSettings
    samples_per_shard: int

    @property
    def record(self) -> Path:
        return Path(self.folder) / RECORDS / f"{self.number:05d}.json"


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """About 32 jobs, of 8 to 512 sources: enough to share out, and no crowd of tiny shards. It knows no workers."""
    size = min(512, max(8, -(-len(items) // 32)))
    for first in range(0, len(items), size):
        yield items[first : first + size]


def _claim(out: Path, sides: Mapping[str, Sequence[Item]], settings: ClipSettings, samples_per_shard: int) -> None:
    """Note in ``out`` what it is made of; refuse it if it is made of something else."""
    listed = json.dumps([[side, [asdict(item) for item in items]] for side, items in sides.items()], sort_keys=True)
    wanted = {
        **asdict(settings),
        "samples_per_shard": samples_per_shard,
        "sources": sum(len(items) for items in sides.values()),
        "sources_sha256": hashlib.sha256(listed.encode()).hexdigest(),
    }
    path = out / SETTINGS
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{key} {found.get(key)} -> {wanted[key]}" for key in wanted if found.get(key) != wanted[key]]
        if changed:
            raise DataError(f"{out}: made with other settings ({'; '.join(changed)}): use another folder, or remove it")
        return
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: not empty and not made by ingest: use another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(wanted, indent=1).encode())


def _recorded(job: _Job) -> Result | None:
    """The result of a job that is finished, with its shards still there."""
    if not job.record.exists():
        return None
    result = Result.from_dict(json.loads(job.record.read_text(encoding="utf-8")))
    paths = [(Path(job.folder) / shard.name, shard.bytes) for shard in result.shards]
    return result if all(path.exists() and path.stat().st_size == size for path, size in paths) else None


def _run_job(job: _Job, progress: Progress) -> Result:
    """Write the job's shards, then its record. ``progress`` hears of each source and clip, and may raise to stop."""
    result = Result()
    with ShardWriter(job.folder, kind="raw", samples_per_shard=job.samples_per_shard, worker=job.number) as writer:
        for index, item in enumerate(job.items):
            make = _world_samples if item.path.startswith(WORLD) else _samples
            for number, (suffix, payload, fields) in enumerate(make(item, job.settings, result.problems)):
                writer.write(f"{job.number:05d}-{index:03d}-{number:05d}", {suffix: payload, "json": fields})
                result.clips += 1
                result.seconds += fields["frames"] / fields["fps"] if fields["fps"] else 0.0
                progress(0, 1)
            result.sources += 1
            progress(1, 0)
    result.shards = writer.shards
    job.record.parent.mkdir(exist_ok=True)
    write_atomic(job.record, json.dumps(result.to_dict(), ensure_ascii=False).encode())
    return result


def _samples(item: Item, settings: ClipSettings, problems: Problems) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """(extension, payload, json) of each clip of a file. A source that gives none, or breaks off, is noted."""
    if not Path(item.path).is_file():
        problems.add("missing file", item.name)
        return
    fields = dict(item.fields)
    if settings.fps and fields.pop("actions", None) is not None:
        problems.add("actions left out: they fit only frames at the file's own rate (--fps 0)", item.name)
    size = {"height": settings.height, "width": settings.width}
    kept = 0
    try:
        rate, frames = stream_frames(item.path, fps=settings.fps or None)
        resized = (resize_frame(frame, **size) for frame in frames)
        if not rate:
            for frame in resized:
                image = Video(frame[None], 0.0).encode(".png")
                kept += 1
                yield "png", image, clip_fields(fields, source=item.name, first=0, frames=1, fps=0.0, **size)
        else:
            for first, clip in windows(resized, settings.frames, settings.step, settings.shortest):
                video = Video(clip, rate).encode(".mp4", lossless=settings.lossless, crf=settings.crf)
                kept += 1
                yield (
                    "mp4",
                    video,
                    clip_fields(fields, source=item.name, first=first, frames=len(clip), fps=rate, **size),
                )
        if not kept:
            problems.add("too short", item.name)
    except DataError as error:
        why = str(error).removeprefix(f"{item.path}: ")
        reason = "breaks off: the clips before that are kept" if kept else "cannot be decoded"
        problems.add(reason, f"{item.name}: {why}")


def _world_samples(
    item: Item, settings: ClipSettings, problems: Problems
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """One clip of a world, without loss: its pixels are the truth that its fields speak of."""
    make = WORLDS[item.path.removeprefix(WORLD)]
    world = make(height=settings.height, width=settings.width, fps=settings.fps, frames=settings.frames)
    frames, fields = world.clip(item.seed)
    yield "mp4", Video(frames, settings.fps).encode(".mp4", lossless=True), fields


def _run_in_processes(todo: Sequence[_Job], workers: int, progress: Progress) -> dict[_Job, Result]:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads (torch, a progress bar) can hang
    counts, stop = context.Array("q", 2), context.Event()
    results: dict[_Job, Result] = {}
    told = [0, 0]
    with ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(counts, stop)) as pool:
        jobs = {pool.submit(_run_there, job): job for job in todo}
        pending = set(jobs)
        try:
            while pending:
                finished, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                results.update((jobs[future], future.result()) for future in finished)
                now = counts[:]
                progress(now[0] - told[0], now[1] - told[1])
                told = now
        except BrokenProcessPool:
            raise DataError("a worker process died, perhaps for want of memory: rerun with fewer --workers") from None
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return results


class _Stopped(Exception):
    """Raised inside a worker when the run is to end."""


def _start_worker(counts: Any, stop: Any) -> None:
    global _counts, _stop
    _counts, _stop = counts, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent alone decides, by `stop`


def _run_there(job: _Job) -> Result:
    def progress(sources: int, clips: int) -> None:
        with _counts.get_lock():
            _counts[0] += sources
            _counts[1] += clips
        if _stop.is_set():
            raise _Stopped

    return _run_job(job, progress)


_counts: Any
_stop: Any
