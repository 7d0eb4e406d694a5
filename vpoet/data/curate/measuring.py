"""Raw shards to measures beside them: once, for every selection to come.

    RAW/measures/SHARD.jsonl          a line a clip: its key, its number in the shard, and what was measured
    RAW/measures/SHARD.safetensors    thumbnails and embeddings, in the order of the lines
    RAW/measures/SHARD.json           the record: of which shard, what has been measured by what, and their checksums

A shard is a job. What is measured comes in groups (the pixels, the hashes, one of each judge), and each is known by
what made it: a second run measures what is new alone. Nothing depends on the number of workers.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

from vpoet.arrays import Floats, Frames
from vpoet.data.curate import clip_measures
from vpoet.data.fields import parse_json
from vpoet.data.segments import interleaves
from vpoet.data.shards import Manifest, Problems, Sample, ShardInfo, read_shard
from vpoet.data.workers import Progress, Workers, share_out
from vpoet.errors import DataError
from vpoet.files import open_file, read_json, write_atomic
from vpoet.media.codec_vectors import Vectors
from vpoet.media.video import Video

FOLDER = "measures"
OWN = {"pixels": clip_measures.PIXELS, "hashes": clip_measures.LOOKS}
"""Groups that need no network, and what they are known by."""
VECTOR = "embedding"
Arrays = dict[str, npt.NDArray[Any]]


class Judge(Protocol):
    """A network that is handed in."""

    identity: str
    """Another for other weights."""

    def __call__(self, frames: Frames, captions: Sequence[str], /) -> Mapping[str, float | Floats]:
        """Numbers by name, or a vector called `VECTOR`, of a few frames uint8 [T, H, W, 3] and the captions."""


Judges = Callable[[], Mapping[str, Judge]]
"""Makes those of a process, by the name of their group; pickled to workers."""


@dataclass(frozen=True)
class Measured:
    """What is known of a shard's clips."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    arrays: Arrays = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    """What each group was measured by."""
    problems: Problems = field(default_factory=Problems)


@dataclass(frozen=True, eq=False)
class _Job:
    folder: str
    shard: ShardInfo
    judges: Judges


def measure(
    folder: Path, judges: Judges, workers: int | Workers, progress: Progress = lambda shards, clips: None
) -> Problems:
    """Measure the clips of a folder of raw shards, as far as that has not been done. What could not be measured.

    DataError: there are no raw shards in it, or not one clip could be measured.
    """
    manifest = Manifest.load(folder)
    if manifest.kind != "raw":
        raise DataError(f"{folder}: {manifest.kind} shards; raw ones are measured, as `vpoet ingest` makes them")
    wanted = OWN | {name: judge.identity for name, judge in judges().items()}
    problems, clips = Problems(), 0
    todo = []
    for shard in manifest.shards:
        known = recorded(folder, shard)
        if known is None or not wanted.items() <= known.groups.items():
            todo.append(_Job(str(folder), shard, judges))
        else:
            problems.update(known.problems)
            clips += len(known.lines)
            progress(1, len(known.lines))
    for _, found in share_out(_measure_shard, todo, workers, progress):
        problems.update(found.problems)
        clips += found.clips
    if not clips:
        raise DataError(f"{folder}: not one clip could be measured: {problems or 'the shards are empty'}")
    return problems


def recorded(folder: Path, shard: ShardInfo) -> Measured | None:
    """What has been measured of a shard; None if nothing has, or the shard or a file has changed since."""
    base = folder / FOLDER / shard.name
    try:
        record = read_json(base.with_suffix(".json"))
        lines, arrays = (_read(base.with_suffix(suffix)) for suffix in (".jsonl", ".safetensors"))
        if record["raw"] != shard.sha256 or record["sha256"] != [_sha256(lines), _sha256(arrays)]:
            return None
        read = [parse_json(line) for line in lines.splitlines()]
        groups = {str(name): str(by) for name, by in record["groups"].items()}
        found = Measured(read, load(arrays), groups, Problems.from_dict(record["problems"]))
        return found if all(len(array) == len(read) for array in found.arrays.values()) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or damaged: it is measured again
        return None


@dataclass(frozen=True)
class _Done:
    clips: int
    problems: Problems


def _measure_shard(job: _Job, progress: Progress) -> _Done:
    folder, shard, judges = Path(job.folder), job.shard, job.judges()
    known = recorded(folder, shard) or Measured()
    wanted = OWN | {name: judge.identity for name, judge in judges.items()}
    fresh = {name for name in wanted if known.groups.get(name) != wanted[name]}
    before = {line["number"]: at for at, line in enumerate(known.lines)}
    problems, lines = Problems(), list[dict[str, Any]]()
    columns: dict[str, list[npt.NDArray[Any]]] = {}
    for sample in read_shard(folder / shard.name, problems=problems, samples=shard.samples):
        if interleaves(sample.json, sample.parts):
            problems.add("segments are not measured", sample.key)
            continue
        try:
            numbers, arrays = _measured(sample, fresh, judges)
        except DataError as error:
            problems.add("cannot be decoded", f"{sample.key}: {error}")
            continue
        at = before.get(sample.number)
        if at is not None:
            numbers = known.lines[at] | numbers
            arrays = {name: array[at] for name, array in known.arrays.items()} | arrays
        lines.append({"key": sample.key, "number": sample.number} | numbers)
        for name, array in arrays.items():
            columns.setdefault(name, []).append(array)
        progress(0, 1)
    whole = {name: np.stack(rows) for name, rows in columns.items()}
    _keep(folder, shard, Measured(lines, whole, known.groups | wanted, problems))
    progress(1, 0)
    return _Done(len(lines), problems)


def _measured(sample: Sample, groups: set[str], judges: Mapping[str, Judge]) -> tuple[dict[str, Any], Arrays]:
    """Numbers and arrays of a clip, of some groups."""
    vectors = Vectors()
    video = Video.read(sample.video, look=vectors.add)
    numbers: dict[str, Any] = {}
    arrays: Arrays = {}
    if "pixels" in groups:
        numbers |= clip_measures.pixels(video, vectors)
    if "hashes" in groups:
        numbers["phash"] = clip_measures.hashes(video.frames)
        arrays["thumbnails"] = clip_measures.thumbnails(video.frames)
    some = clip_measures.spread(video.frames, clip_measures.HASHED)
    for name, judge in judges.items():
        if name in groups:
            found = judge(some, sample.captions)
            numbers |= {name: value for name, value in found.items() if name != VECTOR}
            if VECTOR in found:
                arrays[VECTOR] = np.asarray(found[VECTOR], np.float16)
    told = {name: clip_measures.rounded(x) if isinstance(x, float) else x for name, x in numbers.items()}
    return told, arrays


def _keep(folder: Path, shard: ShardInfo, found: Measured) -> None:
    base = folder / FOLDER / shard.name
    lines = "".join(json.dumps(line, sort_keys=True, allow_nan=False) + "\n" for line in found.lines).encode()
    arrays = save(found.arrays)
    base.with_suffix(".json").unlink(missing_ok=True)
    write_atomic(base.with_suffix(".jsonl"), lines)
    write_atomic(base.with_suffix(".safetensors"), arrays)
    record = {
        "raw": shard.sha256,
        "groups": found.groups,
        "sha256": [_sha256(lines), _sha256(arrays)],
        "problems": found.problems.to_dict(),
    }
    write_atomic(base.with_suffix(".json"), json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False))


def _read(path: Path) -> bytes:
    with open_file(path) as file:
        return file.read()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
