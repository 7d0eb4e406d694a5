"""A folder of token shards as training reads it: whole shards in memory, each sample checked by the vocabulary."""

import hashlib
import math
import re
import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Ints
from vpoet.data import control_parts, painting, recordings, segments, tiles
from vpoet.data.folder import read_samples
from vpoet.data.measures import measures_of
from vpoet.data.npy import npy_to_codes
from vpoet.data.segments import TokenSegment
from vpoet.data.shards import Problems, Sample, read_shard
from vpoet.data.shelf import Shelf
from vpoet.errors import DataError, HashMismatch, ShapeError
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.arrangements import LATEST, Painting
from vpoet.sequence.controls import KINDS
from vpoet.sequence.tasks import PAINTED
from vpoet.sequence.vocabulary import Vocabulary

_FIRST = 64


@dataclass(frozen=True, eq=False, slots=True)
class TokenSample:
    """One clip in codes, with all its captions."""

    name: str
    """Shard and key, for reports."""
    key: str
    codes: npt.NDArray[Any]
    """[t, h, w], of the smallest unsigned type that holds the codebook; t = 1 for an image."""
    captions: tuple[str, ...]
    """Different wordings of the same content; there may be none."""
    fps: int
    """Frames per second of a video, rounded; 0 for an image."""
    keyframes: npt.NDArray[Any] | None = None
    """[t, h, w]: the last frame of each cell of time as an image of its own; `vpoet encode --keyframes` makes them."""
    paintings: tuple[Painting, ...] = ()
    """Its codes with a part hidden, codes as above; `vpoet encode --paintings` makes them."""
    actions: Ints | None = None
    """[t - 1, a]: what led to each cell but the first (`vpoet.data.recordings`), where the vocabulary has actions."""
    outcomes: Ints | None = None
    """[t - 1]"""
    timeline: tuple[tuple[int, str], ...] | None = None
    """Captions that change in time: the first cell of each, ascending from 0."""
    controls: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Of each kind (`vpoet.sequence.controls`), codes as above; `vpoet ingest --controls` makes their pictures."""
    segments: tuple[TokenSegment, ...] | None = None
    """Of a sample that interleaves texts, images and videos; it has no codes beside theirs: t = 0."""
    coarse: npt.NDArray[Any] | None = None
    """[t, h, w]: of a tile, the window around it (`vpoet.data.tiles`); `vpoet encode --tiles` makes both."""
    measures: Mapping[str, float] = field(default_factory=dict)
    """What curation measured of it (`vpoet select` writes it into a clip's json)."""


class Shard(list[TokenSample]):
    """The sound samples of one shard, in order. A class of its own, because a plain list takes no weak reference."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        """Samples that were written, sound or not."""
        self.numbered: dict[int, TokenSample] = {}
        """The sound ones by their place among all that were written."""


class TokenDataset:
    """One token-shard folder. HashMismatch: another tokenizer made it; DataError: raw shards, or no samples.

    A shard is read whole and shared by all who hold it; the last few stay in memory although nobody does. What a sample
    lacks is noted in ``problems`` when its shard is read for the first time.
    """

    def __init__(self, folder: str | Path | Shelf, *, vocabulary: Vocabulary, problems: Problems | None = None) -> None:
        self.shelf = folder if isinstance(folder, Shelf) else Shelf(folder)
        self.folder = self.shelf.name
        self.problems = Problems() if problems is None else problems
        self._vocabulary = vocabulary
        self._dtype = np.min_scalar_type(vocabulary.codes - 1)
        manifest = self.shelf.manifest()
        if manifest.kind != "tokens":
            raise DataError(f"{self.folder}: {manifest.kind} shards; `vpoet encode` makes token shards of them")
        if manifest.tokenizer != vocabulary.visual_hash:
            raise HashMismatch(
                f"{self.folder}: its codes were made by video tokenizer {manifest.tokenizer}, but the vocabulary is "
                f"that of {vocabulary.visual_hash}; use the tokenizer that made them, or encode the raw shards again"
            )
        if manifest.samples == 0:
            raise DataError(f"{self.folder}: its manifest lists no samples; encode raw shards that have some")
        self._names = [shard.name for shard in manifest.shards]
        self.manifest = manifest
        self._alive: weakref.WeakValueDictionary[int, Shard] = weakref.WeakValueDictionary()
        self._recent: deque[Shard] = deque(maxlen=4)
        self._reported: set[int] = set()
        self._identities: dict[int, str] = {}
        self.skipped: dict[str, int] = {}
        """How many samples of a shard were unsound, for the shards read so far that have some."""
        self.reading: Path | None = None
        """The shard that is being read right now."""
        self.actions = manifest.actions
        """What can be done in its recordings; None if there are none."""
        self.stride = 1
        """Frames of a cell of time, where recordings have actions between the frames of one and so cannot be played."""
        if self.actions and vocabulary.appended not in ((), self.actions.ranges):
            raise HashMismatch(
                f"{self.folder}: its actions are {self.actions.told()}, and the vocabulary has others: "
                f"{dict(vocabulary.appended)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """All but the shards, which another process reads itself."""
        return {**vars(self), "_alive": {}, "_recent": deque(maxlen=4)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _alive=weakref.WeakValueDictionary())

    def __len__(self) -> int:
        """Number of shards."""
        return len(self._names)

    @property
    def samples(self) -> int:
        """Number of samples by the manifest, sound or not."""
        return self.manifest.samples

    @property
    def identity(self) -> str:
        """16 hex digits that change with the content of any shard, or their order."""
        return self.identity_of(len(self))

    def identity_of(self, shards: int) -> str:
        """`identity` of the first so many shards: that of the folder before it grew."""
        if shards not in self._identities:
            content = [(shard.name, shard.sha256) for shard in self.manifest.shards[:shards]]
            self._identities[shards] = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        return self._identities[shards]

    def shard(self, index: int) -> Shard:
        """A shard's sound samples; DataError if the file is not there."""
        shard = self._alive.get(index)
        if shard is None:
            shard = self._alive[index] = self._read(index)
        if not any(recent is shard for recent in self._recent):
            self._recent.append(shard)
        return shard

    def path(self, index: int) -> Path:
        """Where the shard lies on this machine, once it has been read."""
        return self.shelf.folder / self._names[index]

    def _read(self, index: int) -> Shard:
        path = self.reading = self.path(index)
        self.shelf.path(self.manifest.shards[index])
        problems = Problems()
        shard = Shard(self.manifest.shards[index].samples)
        for sample in read_shard(path, problems=problems, samples=shard.size):
            name = f"{path}: {sample.key}"
            shard.size = max(shard.size, sample.number + 1)
            try:
                shard.append(self._check(sample, name))
                shard.numbered[sample.number] = shard[-1]
            except _BadSampleError as error:
                problems.add(str(error), name)
        if index not in self._reported:  # a shard is read once per epoch, and its faults stay the same
            self._reported.add(index)
            self.problems.update(problems)
            if problems.total:
                self.skipped[str(path)] = problems.total
        self.reading = None
        return shard

    def _check(self, sample: Sample, name: str) -> TokenSample:
        if sample.json.get("tokenizer", "") not in ("", self._vocabulary.visual_hash):
            raise _BadSampleError("codes of another tokenizer")
        if segments.interleaves(sample.json, sample.parts):
            return self._interleaved(sample, name)
        if "codes.npy" not in sample.parts:
            raise _BadSampleError("missing codes.npy")
        try:
            codes = npy_to_codes(sample.parts["codes.npy"])
        except DataError:
            raise _BadSampleError("broken codes") from None
        if codes.size == 0:
            raise _BadSampleError("no codes")
        keyframes, paintings = self._keyframes(sample, codes), self._paintings(sample, codes)
        if codes.max() >= self._vocabulary.codes:
            raise _BadSampleError("codes of another tokenizer")
        fps = _fps(sample.json.get("fps")) if len(codes) > 1 else 0
        actions, outcomes = self._done(sample, codes)
        length = 1 if actions is not None and len(codes) <= LATEST else len(codes)  # play takes a stretch
        self._check_header(fps, length, *codes.shape[1:])
        frames = sample.json.get("frames")
        try:
            timeline = recordings.timeline(sample.json, frames, len(codes)) if isinstance(frames, int) else None
        except DataError:
            raise _BadSampleError("broken captions in time") from None
        return TokenSample(
            name, sample.key, codes.astype(self._dtype), tuple(sample.captions), fps, keyframes, paintings,
            actions, outcomes, timeline, self._controls(sample, codes),
            coarse=self._beside(sample, codes, tiles.COARSE, "window"), measures=measures_of(sample.json),
        )  # fmt: skip

    def _check_header(self, fps: int, length: int, height: int, width: int) -> None:
        try:
            for value, what in zip((fps, length, height, width), ("fps", "length", "height", "width"), strict=True):
                self._vocabulary.number(value, what)
        except ShapeError:
            raise _BadSampleError("fps or grid too large for a span's header") from None

    def _interleaved(self, sample: Sample, name: str) -> TokenSample:
        try:
            found = segments.from_parts(sample.json, sample.parts)
        except DataError:
            raise _BadSampleError("broken segments") from None
        held = []
        for segment in found:
            if (codes := segment.codes) is not None:
                self._check_header(segment.fps, *codes.shape)
                if codes.max() >= self._vocabulary.codes:
                    raise _BadSampleError("codes of another tokenizer")
                segment = segment._replace(codes=codes.astype(self._dtype))
            held.append(segment)
        none = np.zeros((0, 0, 0), self._dtype)
        return TokenSample(name, sample.key, none, tuple(sample.captions), 0, segments=tuple(held))

    def _done(self, sample: Sample, codes: npt.NDArray[np.int32]) -> tuple[Ints | None, Ints | None]:
        """Its actions and outcomes; none where the vocabulary has none, or cells in time are no frames."""
        if "actions.npy" not in sample.parts or "actions" not in self._vocabulary.ranges or len(codes) < 2:
            return None, None
        try:
            if self.actions is None or recordings.action_space(sample.json) != self.actions:
                raise _BadSampleError("actions of another space than the manifest's")
            actions, outcomes = recordings.from_parts(sample.parts, self.actions)
        except DataError:
            raise _BadSampleError("broken actions") from None
        if len(actions) % (len(codes) - 1):
            raise _BadSampleError("actions of other codes")
        if (stride := len(actions) // (len(codes) - 1)) != 1:
            self.stride = stride
            return None, None
        return actions, outcomes

    def _keyframes(self, sample: Sample, codes: npt.NDArray[np.int32]) -> npt.NDArray[Any] | None:
        found = self._beside(sample, codes, "keyframes.npy", "keyframes")
        if found is not None and not np.array_equal(found[0], codes[0]):
            raise _BadSampleError("keyframes of other codes")
        return found

    def _beside(self, sample: Sample, codes: npt.NDArray[Any], extension: str, what: str) -> npt.NDArray[Any] | None:
        """Codes of as many cells as a clip has; None where there are none."""
        if extension not in sample.parts:
            return None
        try:
            found = npy_to_codes(sample.parts[extension])
        except DataError:
            raise _BadSampleError(f"broken {what}") from None
        if found.shape != codes.shape:
            raise _BadSampleError(f"{what} of other codes")
        if found.max() >= self._vocabulary.codes:
            raise _BadSampleError("codes of another tokenizer")
        return found.astype(self._dtype)

    def _controls(self, sample: Sample, codes: npt.NDArray[np.int32]) -> dict[str, npt.NDArray[Any]]:
        each = {kind: self._beside(sample, codes, control_parts.named(kind), "controls") for kind in KINDS}
        return {kind: found for kind, found in each.items() if found is not None}

    def _paintings(self, sample: Sample, codes: npt.NDArray[np.int32]) -> tuple[Painting, ...]:
        if "painting-0.npz" not in sample.parts:
            return ()
        tasks = sample.json.get("paintings")
        if not isinstance(tasks, list) or not all(task in PAINTED for task in tasks):
            raise _BadSampleError("broken paintings")
        try:
            found = [
                painting.from_npz(sample.parts[f"painting-{number}.npz"], task, codes.shape)
                for number, task in enumerate(tasks)
            ]
        except (DataError, KeyError):
            raise _BadSampleError("broken paintings") from None
        if any(one.shown.max() >= self._vocabulary.codes for one in found):
            raise _BadSampleError("codes of another tokenizer")
        return tuple(one._replace(shown=one.shown.astype(self._dtype)) for one in found)


def played_space(folders: Iterable[str]) -> ActionSpace | None:
    """What can be done in the recordings of these folders of token shards; those that are not there tell nothing.

    DataError: they differ in it.
    """
    spaces: dict[str, ActionSpace] = {}
    for folder in folders:
        if (found := Shelf(folder).find()) is not None and (space := found.actions) is not None:
            spaces[folder] = space
    for folder, space in spaces.items():
        first, told = next(iter(spaces.items()))
        if space != told:
            raise DataError(
                f"{folder}: other actions, {space.told()}, than those of {first}, {told.told()}: a model has one "
                "action space"
            )
    return next(iter(spaces.values()), None)


def played_as(folders: Iterable[str | Path]) -> set[tuple[int, int, int]]:
    """(frames per second, cells down, cells across) of the recordings of these folders of token shards, by the first
    `_FIRST` of each; folders that are not there tell nothing."""
    found = set()
    for folder in folders:
        if (manifest := Shelf(folder).find()) is not None and manifest.actions is not None:
            recorded = (sample.json for sample in read_samples(folder) if "actions.npy" in sample.parts)
            for told in islice(recorded, _FIRST):
                grid = told.get("grid")
                if isinstance(told.get("fps"), int | float) and isinstance(grid, list) and len(grid) == 3:
                    found.add((round(told["fps"]), int(grid[1]), int(grid[2])))
    return found


def caption_words(folder: str | Path, most: int) -> list[str]:
    """All words of a token-shard folder's captions in alphabetical order, in small letters; none if more than ``most``.

    DataError: no such shards.
    """
    words: set[str] = set()
    for sample in read_samples(folder):
        words.update(*(re.findall(r"\w+", text.lower()) for text in sample.words))
        if len(words) > most:
            return []
    return sorted(words)


class _BadSampleError(Exception):
    """Why a sample is skipped."""


def _fps(value: object) -> int:
    if not isinstance(value, int | float) or not math.isfinite(value) or round(value) < 1:
        raise _BadSampleError("no fps")
    return round(value)
