"""From token shards to packs, one lane: endless, and exactly resumable.

    sources --weight--> sample --caption, task--> document --best fit--> pack       one lane

The global batch is divided into ``lanes``, one pack each, and a lane is a stream of its own. All chance is drawn from
counters (seed, epoch, key), never from a running generator: a lane's state is a few integers, and a document is a pure
function of the seed, its source, the epoch and its key.
"""

import hashlib
import itertools
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from vpoet.arrays import Ints
from vpoet.config import REQUIRED
from vpoet.data.shards import Problems
from vpoet.data.token_dataset import Shard, TokenDataset, TokenSample
from vpoet.errors import CheckpointError, ConfigError, DataError, VpoetWarning
from vpoet.sequence import document, tasks
from vpoet.sequence.arrangements import Sample, Segment
from vpoet.sequence.misreading import misread
from vpoet.sequence.packing import BestFit, Pack, pack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.sequence.windows import windowed

EncodeText = Callable[[str], list[int]]
State = dict[str, Any]
"""Plain integers, lists and one string: goes through JSON unchanged."""

LARGEST = 1 << 24
"""Tokens of a pack, and documents of a lane: no machine has memory for more."""
_PATIENCE = 64
"""A lane gives a source up after this many shards' worth of units in a row without a single document."""

REMEDIES = {
    "keyframes": "`vpoet encode --keyframes` makes them",
    "actions": "`vpoet ingest` keeps a list's columns actions and action_space, and what is done in a world",
    "timeline": "`vpoet ingest` keeps a list's column captions",
    "segments": "`vpoet ingest` keeps a list's column segments",
}
"""What a task may need of a sample, and where it comes from."""

_UNITS, _ORDER, _SOURCE, _DOCUMENT = range(4)  # what a draw is for, so that no two draws share their randomness


@dataclass(kw_only=True)
class Source:
    """One folder of token shards."""

    path: str = REQUIRED
    weight: float = 1.0
    """Share of the documents, against the other sources' weights."""


@dataclass(kw_only=True)
class StreamConfig:
    """What packs are made of."""

    sources: list[Source]
    tasks: dict[str, float]
    """Weight of each task; a sample draws among those that it is long enough for, and has the keyframes, the paintings,
    the actions, the captions in time or the segments for."""
    drop_caption: float = 0.1
    """Probability that a document's text is left empty, which classifier-free guidance needs."""
    length: int = 2048
    """Tokens of a pack. A longer document is skipped and counted, never cut."""
    lookahead: int = 64
    """Documents that a lane holds to choose from: more leave less padding."""
    bidirectional: bool = False
    """Tokens before a document's first target see each other both ways (prefix-LM); False is plain causal."""
    window: int = 0
    """Frames (cells of time) for which a frame is seen, itself counted; what precedes the first frame is seen to the
    end (`vpoet.sequence.windows`). Attention then costs what the window does, not the document, and play can go on for
    ever. 0: all are seen to the end."""
    misread: float = 0.0
    """Share of the codes of play that are read wrongly in training, while the right ones are predicted
    (`vpoet.sequence.misreading`)."""

    def __post_init__(self) -> None:
        for name in ("length", "lookahead"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 to {LARGEST}")
        if not 0 <= self.window <= LARGEST:
            raise ConfigError(f"window = {self.window} frames: must be 0 (none) to {LARGEST}")
        if not 0 <= self.drop_caption <= 1:
            raise ConfigError(f"drop_caption = {self.drop_caption} is a probability, 0 to 1")
        if not 0 <= self.misread < 1:
            raise ConfigError(f"misread = {self.misread} is a share, from 0 to below 1")
        for source in self.sources:
            if source.weight < 0:
                raise ConfigError(f"sources: the weight of {source.path} is {source.weight}; use 0 or more")
        tasks.Mixture.of(self.tasks)


class Cursor(NamedTuple):
    """Where a document comes from, within one lane."""

    source: int
    epoch: int
    turn: int
    """Index among the units that the lane takes in this epoch."""
    position: int
    """Index in the unit's order of this epoch."""


class Documents:
    """The sources of a config, and the making of documents from their samples."""

    def __init__(self, config: StreamConfig, *, vocabulary: Vocabulary, text: EncodeText, seed: int) -> None:
        if not sum(source.weight for source in config.sources) > 0:
            raise ConfigError("sources: give at least one folder of token shards with a weight above 0")
        if seed < 0:
            raise ConfigError(f"seed = {seed}: use 0 or more")
        self.config = config
        self.vocabulary = vocabulary
        self.seed = seed
        self.problems = Problems()
        self.sources = [
            TokenDataset(source.path, vocabulary=vocabulary, problems=self.problems) for source in config.sources
        ]
        weights = np.array([source.weight for source in config.sources])
        self._shares = np.cumsum(weights / weights.sum())
        self._mixture = tasks.Mixture.of(config.tasks)
        self._text = text

    def check_tasks(self) -> None:
        """DataError: a task needs what no source has, so that it would never be drawn."""
        drawn = [tasks.TABLE[task] for task, weight in self.config.tasks.items() if weight > 0]
        for need, remedy in REMEDIES.items():
            needy = [task.name for task in drawn if need == task.needs or (need == "keyframes" and task.keyframes)]
            firsts = (source.shard(0) for source in self.sources) if needy else ()
            if not needy or any(getattr(sample, need) is not None for shard in firsts for sample in shard):
                continue
            coarse = [source for source in self.sources if need == "actions" and source.stride > 1]
            if coarse:
                raise DataError(
                    f"{coarse[0].folder}: an action leads to one frame, and a cell of these codes stands for "
                    f"{coarse[0].stride}: {', '.join(needy)} cannot be trained on them; encode the clips with a "
                    "tokenizer of one frame a cell, for instance 1x8x8 (time_stride: 1)"
                )
            raise DataError(
                f"{', '.join(needy)}: needs {need}, and the first shard of no source has any; {remedy}, or leave the "
                "task out"
            )

    def tell_of_paintings(self) -> None:
        """VpoetWarning: a task needs paintings, and the first shard of a source has none for it."""
        needy = [task for task in tasks.PAINTED if self.config.tasks.get(task, 0) > 0]
        for source, given in zip(self.sources, self.config.sources, strict=True):
            if needy and given.weight > 0:
                has = {painting.task for sample in source.shard(0) for painting in sample.paintings}
                if lacking := [task for task in needy if task not in has]:
                    warnings.warn(
                        f"{source.folder}: no paintings for {', '.join(lacking)}, so its clips train other tasks in "
                        "their stead; `vpoet encode --paintings 1` makes them",
                        VpoetWarning,
                        stacklevel=3,
                    )

    def choose(self, *counter: int) -> int:
        """A source by weight, a function of the seed and the counter."""
        chance = self.random(_SOURCE, *counter).random()
        return min(int(np.searchsorted(self._shares, chance, side="right")), len(self._shares) - 1)

    def make(self, source: int, epoch: int, sample: TokenSample) -> document.Sequence | None:
        """The sample's document of this epoch; None, and a note in ``problems``, if there is none that fits a pack."""
        random = self.random(_DOCUMENT, source, epoch, zlib.crc32(sample.key.encode()))
        caption = sample.captions[int(random.integers(len(sample.captions)))] if sample.captions else ""
        dropped = random.random() < self.config.drop_caption
        drawn = self._mixture.draw(self._in_tokens(sample, "" if dropped else caption), random)
        if drawn is None:
            self.problems.add(
                "too short for every task, or without what it needs (keyframes, paintings ...)", sample.name
            )
            return None
        if dropped and tasks.TABLE[drawn.task].needs:
            drawn = drawn.unprompted()  # of its captions in time, and of the texts that it interleaves
        sequence = windowed(document.build(drawn, self.vocabulary), drawn, self.config.window)
        if self.config.misread:
            read = document.build(misread(drawn, self.config.misread, random), self.vocabulary).ids
            sequence = replace(sequence, read=read)
        if len(sequence) > self.config.length:
            self.problems.add(f"longer than a pack of {self.config.length}", sample.name)
            return None
        return sequence

    def _in_tokens(self, sample: TokenSample, caption: str) -> Sample:
        keyframes = None if sample.keyframes is None else sample.keyframes.astype(np.int32)
        paintings = tuple(one._replace(shown=one.shown.astype(np.int32)) for one in sample.paintings)
        changes, parts = sample.timeline, sample.segments
        return Sample(
            self._pieces(caption),
            sample.codes.astype(np.int32),
            sample.fps,
            keyframes,
            paintings,
            actions=sample.actions,
            outcomes=sample.outcomes,
            timeline=None if changes is None else tuple((first, self._pieces(text)) for first, text in changes),
            segments=None if parts is None else tuple(self._segment(*part) for part in parts),
            room=self.config.length,
            window=self.config.window,
        )

    def _segment(self, text: str, codes: Ints | None, fps: int, target: bool | None) -> Segment:
        return Segment(self._pieces(text) if codes is None else codes.astype(np.int32), fps, target)

    def _pieces(self, text: str) -> Ints:
        return np.array(self._text(text), dtype=np.int32)

    def packer(self) -> BestFit[tuple[Cursor, document.Sequence]]:
        return BestFit(self.config.length, self.config.lookahead)

    def pack(self, row: list[tuple[Cursor, document.Sequence]]) -> Pack:
        return pack(
            [sequence for _, sequence in row],
            self.config.length,
            bidirectional=self.config.bidirectional,
            pad=self.vocabulary.special("<pad>"),
        )

    def random(self, *counter: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *counter])


class Walk:
    """One lane's endless way through one source.

    A source is cut into units, whole shards or, where there are fewer shards than lanes, equal parts of them. Every
    epoch shuffles the units and deals them out to the lanes, so that over all lanes each sample comes once per epoch.
    """

    def __init__(self, documents: Documents, source: int, lane: int, lanes: int) -> None:
        self.at = Cursor(source, 0, 0, 0)
        self._documents = documents
        self._dataset = documents.sources[source]
        self._parts = -(-lanes // len(self._dataset))
        self._lane, self._lanes = lane, lanes
        self._dealt: tuple[int, list[int]] = (-1, [])
        self._open: tuple[int, int, Shard, list[int]] = (-1, -1, Shard(0), [])

    def next(self) -> tuple[Cursor, document.Sequence]:
        """The next document, and its cursor; DataError when the source seems to have none."""
        barren = 0
        while barren < _PATIENCE * self._parts:
            at = self.at
            if at.turn >= len(self._units(at.epoch)):
                self.at = at._replace(epoch=at.epoch + 1, turn=0)
            elif at.position >= len(self._unit(at.epoch, at.turn)[1]):
                self.at = at._replace(turn=at.turn + 1, position=0)
                barren += 1
            else:
                self.at = at._replace(position=at.position + 1)
                sequence = self.fetch(at)
                if sequence is not None:
                    return at, sequence
        problems = str(self._documents.problems) or "no sample was found"
        raise DataError(f"{self._dataset.folder}: no usable document in {barren} shards in a row: {problems}")

    def fetch(self, at: Cursor) -> document.Sequence | None:
        """The document at a cursor, made anew; None if there is none, or its sample is unsound."""
        sample = self.sample(at)
        return None if sample is None else self._documents.make(at.source, at.epoch, sample)

    def sample(self, at: Cursor) -> TokenSample | None:
        """The sample at a cursor; None if it is unsound."""
        shard, order = self._unit(at.epoch, at.turn)
        return shard.numbered.get(order[at.position]) if at.position < len(order) else None

    def where(self, at: Cursor) -> str:
        """The shard and sample at a cursor, for reports."""
        path = self._dataset.path(self._units(at.epoch)[at.turn] // self._parts)
        return f"{path}: sample {self._unit(at.epoch, at.turn)[1][at.position]}"

    def _units(self, epoch: int) -> list[int]:
        if self._dealt[0] != epoch:
            units = self._documents.random(_UNITS, self.at.source, epoch).permutation(len(self._dataset) * self._parts)
            self._dealt = epoch, units[self._lane :: self._lanes].tolist()
        return self._dealt[1]

    def _unit(self, epoch: int, turn: int) -> tuple[Shard, list[int]]:
        """A shard, held while the walk is in it, and the numbers of the unit's samples in this epoch's order: of all
        that were written, so that a place in it means the same when some of them are damaged later."""
        if self._open[:2] != (epoch, turn):
            unit = self._units(epoch)[turn]
            shard = self._dataset.shard(unit // self._parts)
            order = np.arange(unit % self._parts, shard.size, self._parts)
            order = self._documents.random(_ORDER, self.at.source, epoch, unit).permutation(order)
            self._open = epoch, turn, shard, order.tolist()
        return self._open[2:]


class Lane:
    """One of ``lanes`` endless streams of (pack, the lane's state after that pack)."""

    def __init__(self, documents: Documents, lane: int, lanes: int, state: State | None = None) -> None:
        self._documents = documents
        self._lane = lane
        self.walks = [Walk(documents, source, lane, lanes) for source in range(len(documents.sources))]
        self._packer = documents.packer()
        self._drawn = 0
        content = [documents.seed, lane, lanes, *(dataset.identity for dataset in documents.sources)]
        self._identity = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
        if state is not None:
            self._restore(self.check(state))

    def state(self) -> State:
        """Integers from which `Lane` goes on exactly: documents that wait for a pack are named, to be made again."""
        return {
            "identity": self._identity,
            "drawn": self._drawn,
            "walks": [list(walk.at[1:]) for walk in self.walks],
            "waiting": [list(cursor) for _, (cursor, _) in self._packer.buffer],
        }

    def check(self, state: State) -> State:
        """The state; CheckpointError if it is not one of this lane."""
        if state["identity"] != self._identity:
            raise CheckpointError(
                f"the checkpoint's place in the data (lane {self._lane}) is one in other data: the seed, the number of "
                "packs in a global batch, or the shards of a source have changed; put them back, or start a new run"
            )
        return state

    def _restore(self, state: State) -> None:
        self._drawn = state["drawn"]
        for cursor in itertools.starmap(Cursor, state["waiting"]):
            walk = self.walks[cursor.source]
            if walk.sample(cursor) is None:
                self._documents.problems.add("unsound since the checkpoint", walk.where(cursor))
            elif (sequence := walk.fetch(cursor)) is not None:  # None when tasks or the length of a pack have changed
                self._packer.add(len(sequence), (cursor, sequence))
        for walk, at in zip(self.walks, state["walks"], strict=True):
            walk.at = Cursor(walk.at.source, *at)

    def __iter__(self) -> Iterator[tuple[Pack, State]]:
        return self

    def __next__(self) -> tuple[Pack, State]:
        while not self._packer.full:
            cursor, sequence = self.walks[self._documents.choose(self._lane, self._drawn)].next()
            self._packer.add(len(sequence), (cursor, sequence))
            self._drawn += 1
        return self._documents.pack(self._packer.take()), self.state()
