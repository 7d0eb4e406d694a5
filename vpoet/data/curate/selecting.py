"""The clips that are kept, with their measures and captions, to raw shards of their own.

They are cut in order into blocks of a shard each, and a block is a job: the same bytes for any number of workers. A
finished one leaves a record, so that a second run does what is left.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vpoet.arrays import Frames
from vpoet.data.curate.funnel import Candidate
from vpoet.data.fields import check_caption, parse_json, plain_key
from vpoet.data.jobs import RECORDS
from vpoet.data.lists import decode
from vpoet.data.shards import Manifest, Problems, Sample, ShardFile, ShardInfo, read_shard
from vpoet.data.workers import Progress, Workers, share_out
from vpoet.errors import DataError
from vpoet.files import LOCK, read_json, write_atomic, writing
from vpoet.media.video import Video

SETTINGS = "select.json"
NOT_MEASURES = ("key", "number", "phash")
Captioner = Callable[[Frames], str]
"""A network that is handed in: a clip uint8 [T, H, W, 3] to a caption."""
MakeCaptioner = Callable[[], Captioner]
"""Makes that of a process; pickled to workers."""


@dataclass(frozen=True)
class Captions:
    """What clips are called anew. Their own captions stay, as further ones."""

    listed: Mapping[str, list[str]]
    """By key."""
    captioner: MakeCaptioner | None = None
    identity: str = ""
    """Of the captioner."""


@dataclass(frozen=True, eq=False)
class _Job:
    number: int
    raw: str
    out: str
    shards: tuple[tuple[ShardInfo, dict[int, dict[str, Any]]], ...]
    """Each with the measures of the samples that are wanted, by number."""
    captions: Captions
    digest: str
    """Of all that the shard is made of."""

    @property
    def path(self) -> Path:
        return Path(self.out) / f"raw-{self.number:05d}-00000.tar"

    @property
    def record(self) -> Path:
        return Path(self.out) / RECORDS / f"{self.number:05d}.json"


@dataclass(frozen=True)
class Written:
    shard: ShardInfo
    problems: Problems


def read_captions(path: Path) -> dict[str, list[str]]:
    """A .jsonl of ``key`` and ``caption`` (a text, or a list of texts). DataError, naming the line."""
    found: dict[str, list[str]] = {}
    try:
        lines = decode(path.read_bytes()).split("\n")
    except OSError as error:
        raise DataError(f"{path}: captions cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or not isinstance(row.get("key"), str) or not row.get("caption"):
                raise DataError("not an object with a `key` and a `caption`")
            check_caption(row["caption"])
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        texts = row["caption"] if isinstance(row["caption"], list) else [row["caption"]]
        found.setdefault(row["key"], []).extend(texts)
    if not found:
        raise DataError(f"{path}: an empty list of captions")
    return found


def write_selection(
    raw: Path,
    chosen: Sequence[Candidate],
    out: Path,
    captions: Captions,
    *,
    samples_per_shard: int = 512,
    workers: int | Workers = 1,
    progress: Progress = lambda shards, clips: None,
) -> tuple[Manifest, Problems]:
    """Write the clips to raw shards in ``out``, with a manifest, as far as that has not been done.

    DataError: ``out`` holds another selection, or something else.
    """
    manifest = Manifest.load(raw)
    jobs = [
        _job(at, raw, out, manifest, chosen[first : first + samples_per_shard], captions)
        for at, first in enumerate(range(0, len(chosen), samples_per_shard))
    ]
    _claim(out, jobs)
    done = {job: found for job in jobs if (found := _recorded(job)) is not None}
    progress(len(done), sum(found.shard.samples for found in done.values()))
    done.update(share_out(_write_shard, [job for job in jobs if job not in done], workers, progress))
    problems = Problems()
    for job in jobs:
        problems.update(done[job].problems)
    if not sum(done[job].shard.samples for job in jobs):
        raise DataError(f"{raw}: not one of the {len(chosen)} clips that were chosen can be read: {problems}")
    selection = Manifest("raw", [done[job].shard for job in jobs], actions=manifest.actions)
    selection.save(out)
    return selection, problems


def _job(number: int, raw: Path, out: Path, manifest: Manifest, some: Sequence[Candidate], captions: Captions) -> _Job:
    wanted: dict[int, dict[int, dict[str, Any]]] = {}
    for clip in some:
        measures = {name: value for name, value in clip.measures.items() if name not in NOT_MEASURES}
        wanted.setdefault(clip.shard, {})[clip.number] = measures
    mine = {clip.key: captions.listed[clip.key] for clip in some if clip.key in captions.listed}
    shards = tuple((manifest.shards[at], numbers) for at, numbers in wanted.items())
    told = [[shard.sha256, list(numbers.items())] for shard, numbers in shards]
    digest = hashlib.sha256(json.dumps([told, mine, captions.identity], sort_keys=True).encode()).hexdigest()
    return _Job(number, str(raw), str(out), shards, Captions(mine, captions.captioner, captions.identity), digest)


def _claim(out: Path, jobs: Sequence[_Job]) -> None:
    """Note in ``out`` what it is made of; refuse it if it is made of something else."""
    path = out / SETTINGS
    wanted = {"shards": len(jobs), "digest": hashlib.sha256("".join(job.digest for job in jobs).encode()).hexdigest()}
    if path.exists():
        try:
            same = read_json(path) == wanted
        except (OSError, ValueError):
            same = False
        if not same:
            raise DataError(f"{out}: holds another selection: use another folder, or remove it")
        return
    with writing(out):
        if any(not each.name.startswith(LOCK) for each in out.iterdir()):
            raise DataError(f"{out}: not empty and not made by select: use another folder")
    write_atomic(path, json.dumps(wanted, indent=1))


def _recorded(job: _Job) -> Written | None:
    try:
        record = read_json(job.record)
        found = Written(ShardInfo.from_dict(record["shard"]), Problems.from_dict(record["problems"]))
        whole = found.shard.name == job.path.name and job.path.stat().st_size == found.shard.bytes
        return found if whole and record["digest"] == job.digest else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: it is written again
        return None


def _write_shard(job: _Job, progress: Progress) -> Written:
    problems = Problems()
    captioner = job.captions.captioner() if job.captions.captioner else None
    with ShardFile(job.path) as file:
        for shard, numbers in job.shards:
            left = set(numbers)
            for sample in read_shard(Path(job.raw) / shard.name, samples=shard.samples):
                if sample.number in numbers:
                    left.discard(sample.number)
                    measures = numbers[sample.number]
                    fields = sample.json | ({"measures": measures} if measures else {})
                    fields |= _recaptioned(sample, job.captions, captioner)
                    try:
                        file.write(plain_key(sample.key), sample.parts | {"json": fields})
                    except DataError:
                        problems.add("another sample has that key", sample.key)
                    progress(0, 1)
            for number in sorted(left):
                problems.add("cannot be read any more", f"{shard.name}, sample {number}")
    assert file.info is not None
    found = Written(file.info, problems)
    record = {"digest": job.digest, "shard": asdict(found.shard), "problems": problems.to_dict()}
    write_atomic(job.record, json.dumps(record, indent=1, ensure_ascii=False))
    progress(1, 0)
    return found


def _recaptioned(sample: Sample, captions: Captions, captioner: Captioner | None) -> dict[str, list[str]]:
    """The new captions, before the clip's own; nothing if there are no new ones."""
    new = list(captions.listed.get(sample.key, []))
    if captioner:
        new.insert(0, captioner(Video.read(sample.video).frames))
    new = [text for text in new if text.strip()]
    return {"caption": list(dict.fromkeys([*new, *sample.captions]))} if new else {}
