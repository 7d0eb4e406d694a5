"""From token shards to packs, one lane: endless, and exactly resumable.

    sources --weight--> sample --caption, task--> document --best fit--> pack       one lane

The global batch is divided into ``lanes``, one pack each, and a lane is a stream of its own. All chance is drawn from
counters (seed, epoch, key), never from a running generator: a lane's state is a few integers, and a document is a pure
function of the seed, its source, the epoch and its key.
"""

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from vpoet.arrays import Ints
from vpoet.config import REQUIRED
from vpoet.data.shards import Problems
from vpoet.data.shelf import MOST, Shelf
from vpoet.data.token_dataset import TokenDataset, TokenSample
from vpoet.errors import ConfigError, DataError, VpoetWarning
from vpoet.sequence import controls, document, tasks
from vpoet.sequence.arrangements import Sample, Segment
from vpoet.sequence.conditions import TABLE as CONDITIONS
from vpoet.sequence.conditions import Condition, Pairs, complete
from vpoet.sequence.misreading import misread
from vpoet.sequence.packing import BestFit, Pack, pack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.sequence.windows import windowed

EncodeText = Callable[[str], list[int]]
State = dict[str, Any]
"""Plain integers, lists and one string: goes through JSON unchanged."""

LARGEST = 1 << 24
"""Tokens of a pack, and documents of a lane: no machine has memory for more."""
REMEDIES = {
    "keyframes": "`vpoet encode --keyframes` makes them",
    "actions": "`vpoet ingest` keeps a list's columns actions and action_space, and what is done in a world",
    "timeline": "`vpoet ingest` keeps a list's column captions",
    "segments": "`vpoet ingest` keeps a list's column segments",
    "coarse": "`vpoet encode --tiles` makes them",
}
"""What a task may need of a sample, and where it comes from."""

UNITS, ORDER, _SOURCE, _DOCUMENT = range(4)  # what a draw is for, so that no two draws share their randomness


@dataclass(kw_only=True)
class Source:
    """One folder of token shards, on this machine or elsewhere (``s3://``, ``gs://``, ``https://``, ``pipe:``)."""

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
    conditions: dict[str, Condition] = field(default_factory=dict)
    """What is told of a clip from its measures, by the names of `vpoet.sequence.conditions.TABLE`: ``motion: {}``."""
    drop_condition: float = 0.1
    """Probability that a condition is left out of a document, so that a request need not say it; each for itself."""
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
    controls: dict[str, float] = field(default_factory=dict)
    """Kinds of controls (`vpoet.sequence.controls`), each with the probability with which a document is given it that
    has it; `vpoet ingest --controls` keeps their pictures, and model.controls names those that the network reads."""
    drop_controls: float = 0.2
    """Probability that a document is given none at all, which guidance needs; half, where its caption is dropped."""
    cache: str = ""
    """Folder for shards that lie elsewhere; "": the user's own (~/.cache/vpoet/shards)."""
    cache_gb: float = MOST
    """GB of them that are kept at most."""

    def __post_init__(self) -> None:
        if not self.cache_gb > 0:
            raise ConfigError(f"cache_gb = {self.cache_gb}: must be above 0")
        for name in ("length", "lookahead"):
            if not 1 <= getattr(self, name) <= LARGEST:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 1 to {LARGEST}")
        if not 0 <= self.window <= LARGEST:
            raise ConfigError(f"window = {self.window} frames: must be 0 (none) to {LARGEST}")
        complete(self.conditions)
        if unknown := [kind for kind in self.controls if kind not in controls.KINDS]:
            raise ConfigError(f"controls: no kind {unknown[0]!r}; there are {', '.join(controls.KINDS)}")
        chances = {name: getattr(self, name) for name in ("drop_caption", "drop_condition", "drop_controls")}
        chances |= {f"controls.{kind}": chance for kind, chance in self.controls.items()}
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise ConfigError(f"{name} = {chance} is a probability, 0 to 1")
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
            TokenDataset(
                Shelf(source.path, cache=config.cache, cache_gb=config.cache_gb),
                vocabulary=vocabulary,
                problems=self.problems,
            )
            for source in config.sources
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

    def check_conditions(self) -> None:
        """DataError: no source has the measure of a condition, so that it would never be told."""
        for name, condition in self.config.conditions.items():
            firsts = (source.shard(0) for source in self.sources)
            if not any(condition.measure in sample.measures for shard in firsts for sample in shard):
                raise DataError(
                    f"conditions.{name}: the first shard of no source has the measure {condition.measure}; `vpoet "
                    "measure` and `vpoet select` write it into raw shards before they are encoded; or leave it out"
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

    def tell_of_controls(self) -> None:
        """VpoetWarning: the first shard of a source has no clip with a control that shall be learned."""
        for source, given in zip(self.sources, self.config.sources, strict=True):
            has = {kind for sample in source.shard(0) for kind in sample.controls} if self.config.controls else set()
            lacking = [kind for kind, chance in self.config.controls.items() if chance > 0 and kind not in has]
            if lacking and given.weight > 0:
                warnings.warn(
                    f"{source.folder}: no controls of kind {', '.join(lacking)}, so its clips train without; "
                    "`vpoet ingest --controls` makes them",
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
        told = self._in_tokens(sample, "" if dropped else caption, self._conditions(sample, random))
        drawn = self._mixture.draw(told, random)
        if drawn is None:
            self.problems.add(
                "too short for every task, or without what it needs (keyframes, paintings ...)", sample.name
            )
            return None
        if dropped and tasks.TABLE[drawn.task].needs:
            drawn = drawn.unprompted()  # of its captions in time, and of the texts that it interleaves
        if self.config.controls and tasks.TABLE[drawn.task].needs in ("", "timeline"):
            chance = max(0.5, self.config.drop_controls) if dropped else self.config.drop_controls
            there = {kind: codes[: drawn.cells] for kind, codes in sample.controls.items()}
            drawn = replace(drawn, controls=controls.draw(there, self.config.controls, chance, random))
        sequence = windowed(document.build(drawn, self.vocabulary), drawn, self.config.window)
        if self.config.misread:
            read = document.build(misread(drawn, self.config.misread, random), self.vocabulary).ids
            sequence = replace(sequence, read=read)
        if len(sequence) > self.config.length:
            self.problems.add(f"longer than a pack of {self.config.length}", sample.name)
            return None
        return sequence

    def _conditions(self, sample: TokenSample, random: np.random.Generator) -> Pairs:
        """What is told of a sample: of its measures, those that are not left out."""
        found = []
        for name in CONDITIONS:
            asked = self.config.conditions.get(name)
            if asked is not None and random.random() >= self.config.drop_condition and asked.measure in sample.measures:
                found.append((name, asked.bucket(sample.measures[asked.measure])))
        return tuple(found)

    def _in_tokens(self, sample: TokenSample, caption: str, conditions: Pairs) -> Sample:
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
            conditions=conditions,
            coarse=None if sample.coarse is None else sample.coarse.astype(np.int32),
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
