"""From all measured clips to those that are kept, stage by stage: conditions, copies, balance."""

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.data.curate.duplicates import originals
from vpoet.data.curate.measuring import FOLDER, VECTOR, Measured, recorded
from vpoet.data.curate.near import Rows
from vpoet.data.curate.where import Condition, check_names, look_up
from vpoet.data.shards import Manifest, Problems, ShardInfo, read_shard
from vpoet.errors import DataError


@dataclass(frozen=True, eq=False)
class Candidate:
    """A measured clip."""

    shard: int
    """Which of the manifest's."""
    number: int
    """Its place in its shard."""
    key: str
    measures: dict[str, Any]
    facts: dict[str, Any]
    """Those of the fields of its json, and over them of its measures, that are asked for."""
    row: int
    """Its place among all measured clips."""


@dataclass(frozen=True)
class Stage:
    """What clips had to pass, and which did not."""

    name: str
    before: int
    fallen: list[Candidate]
    notes: dict[int, str] = field(default_factory=dict)
    """What to say of one that fell, by its row."""

    @property
    def after(self) -> int:
        return self.before - len(self.fallen)


@dataclass(frozen=True)
class Pool:
    """All measured clips of a folder, in order."""

    clips: list[Candidate]
    arrays: dict[str, Any]
    """[N, ...] of what `vpoet.data.curate.measuring` keeps in arrays, on disk."""
    known: set[str]
    """Names that at least one clip has."""
    problems: Problems


def gather(folder: Path, names: Iterable[str], with_arrays: bool = True) -> Pool:
    """The measured clips of a folder of raw shards, with what is asked for by ``names``; with thumbnails and embeddings
    (14 kB a clip) for those who look for copies. Where nothing has been measured, and nobody looks for copies, its
    clips as their json describes them.

    Shards are read through only for names that are no measures. DataError: not all of it has been measured.
    """
    wanted = {name.partition(".")[0] for name in names}
    needed = with_arrays or (folder / FOLDER).is_dir()
    clips: list[Candidate] = []
    arrays: dict[str, _Rising] = {}
    problems, known = Problems(), set[str]()
    for at, shard in enumerate(Manifest.load(folder).shards):
        found = recorded(folder, shard)
        if found is None and needed:
            raise DataError(
                f"{folder}: {shard.name} has not been measured as it is: run `vpoet measure {folder}` first"
            )
        found = found or _unmeasured(folder, shard)
        problems.update(found.problems)
        measured = set[str]().union(*found.lines)
        known |= measured - {"number", "phash"}
        fields: dict[int, dict[str, Any]] = {}
        if wanted - measured:
            for sample in read_shard(folder / shard.name, samples=shard.samples):
                known |= sample.json.keys()
                fields[sample.number] = {name: sample.json[name] for name in wanted & sample.json.keys()}
        for line in found.lines:
            own = {name: line[name] for name in wanted & line.keys()}
            facts = fields.get(line["number"], {}) | own
            clips.append(Candidate(at, line["number"], line["key"], line, facts, len(clips)))
        for name, array in found.arrays.items() if with_arrays else ():
            arrays.setdefault(name, _Rising(array)).add(array, f"{folder}: {name} of {shard.name}")
    if not clips:
        raise DataError(f"{folder}: not one measured clip in {folder / FOLDER}")
    whole = {name: rising.whole() for name, rising in arrays.items()}
    return Pool(clips, {name: array for name, array in whole.items() if len(array) == len(clips)}, known, problems)


class _Rising:
    """An array put together of the rows of many, in a file without a name: of what is read from it, memory holds what
    there is room for."""

    def __init__(self, like: npt.NDArray[Any]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the array lives
        self._kind, self._shape, self._rows = like.dtype, like.shape[1:], 0

    def add(self, array: npt.NDArray[Any], name: str) -> None:
        if (array.dtype, array.shape[1:]) != (self._kind, self._shape):
            told = f"{list(array.shape[1:])} a clip, and {list(self._shape)} in shards before it"
            raise DataError(f"{name}: {told}: run `vpoet measure` again")
        self._file.write(np.ascontiguousarray(array).tobytes())
        self._rows += len(array)

    def whole(self) -> npt.NDArray[Any]:
        self._file.flush()
        shape = (self._rows, *self._shape)
        return np.memmap(self._file, self._kind, "r", shape=shape) if self._rows else np.zeros(shape, self._kind)


def _unmeasured(folder: Path, shard: ShardInfo) -> Measured:
    lines = [
        {"number": each.number, "key": each.key} for each in read_shard(folder / shard.name, samples=shard.samples)
    ]
    return Measured(lines, {}, {}, Problems())


def sift(pool: Pool, asked: Sequence[Condition], dedupe: float | None, balance: str | None) -> list[Stage]:
    """The stages in order; the clips that fell in none of them are kept.

    DataError: a name that no clip has, or nothing is left.
    """
    check_names(asked, pool.known)
    if dedupe is not None and not 0 < dedupe <= 1:
        raise DataError(f"--dedupe is a likeness above 0 and at most 1, not {dedupe}")
    stages: list[Stage] = []
    left = pool.clips

    def add(name: str, fallen: list[Candidate], notes: dict[int, str]) -> list[Candidate]:
        stages.append(Stage(name, len(left), fallen, notes))
        gone = {clip.row for clip in fallen}
        return [clip for clip in left if clip.row not in gone]

    for condition in asked:
        first = condition.names[0] if condition.names else ""
        fallen = [clip for clip in left if not condition.holds(clip.facts)]
        notes = {clip.row: f"{first} {_told(look_up(first, clip.facts))}" for clip in fallen}
        left = add(condition.text, fallen, notes)
    if dedupe is not None:
        notes = copies(pool, left, dedupe)
        left = add(f"no copies ({dedupe:g})", [clip for clip in left if clip.row in notes], notes)
    if balance is not None:
        notes = crowded(left, balance)
        left = add(f"balanced {balance}", [clip for clip in left if clip.row in notes], notes)
    if not left:
        worst = max(stages, key=lambda stage: len(stage.fallen))
        raise DataError(f"nothing is left of {len(pool.clips)} clips: {len(worst.fallen)} fell at {worst.name!r}")
    return stages


def copies(pool: Pool, clips: Sequence[Candidate], least: float) -> dict[int, str]:
    """Clips that are copies of others, by row, and of which; of copies the sharpest is kept, or else the first."""
    ranked = sorted(clips, key=lambda clip: (-float(clip.measures.get("sharpness", 0)), clip.row))
    rows = [clip.row for clip in ranked]
    if not rows or "thumbnails" not in pool.arrays:
        return {}
    vectors = Rows(pool.arrays[VECTOR], rows) if VECTOR in pool.arrays else None
    hashes = [clip.measures["phash"] for clip in ranked]
    found = originals(Rows(pool.arrays["thumbnails"], rows), vectors, hashes, least)
    return {rows[at]: f"a copy of {ranked[of].key}" for at, of in enumerate(found.tolist()) if of != at}


def crowded(clips: Sequence[Candidate], name: str) -> dict[int, str]:
    """Clips beyond the median count of the values of a field, by row: which of a value's is decided by a hash of keys.

    DataError: no clip has the field.
    """
    values: dict[str, list[Candidate]] = {}
    for clip in clips:
        values.setdefault(_told(look_up(name, clip.facts)), []).append(clip)
    if clips and values.keys() == {_told(None)}:
        raise DataError(f"--balance {name}: no clip that is left has such a field or measure")
    most = int(np.median([len(some) for some in values.values()])) if values else 0
    notes = {}
    for value, some in values.items():
        for clip in sorted(some, key=lambda clip: hashlib.sha256(clip.key.encode()).digest())[max(most, 1) :]:
            notes[clip.row] = f"{name} {value}: {len(some)} clips, {max(most, 1)} kept"
    return notes


def kept(pool: Pool, stages: Sequence[Stage]) -> list[Candidate]:
    gone = {clip.row for stage in stages for clip in stage.fallen}
    return [clip for clip in pool.clips if clip.row not in gone]


def _told(value: Any) -> str:
    return "not known" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
