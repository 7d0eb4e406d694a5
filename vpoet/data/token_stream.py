"""The stream of packs that pretraining reads: this rank's lanes, side by side, made ahead by a process of its own.

    lane     0       1       2       3
    batch g  pack g  pack g  pack g  pack g         rank r of w carries lanes r::w

so the same global batches come out at every world size that divides the number of lanes.
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple, Self

from vpoet.data.lanes import Lane, Walk
from vpoet.data.prefetch import Prefetch
from vpoet.data.shards import Problems
from vpoet.data.token_documents import Documents, EncodeText, Source, State, StreamConfig
from vpoet.errors import CheckpointError, ConfigError, VpoetWarning
from vpoet.sequence.packing import Pack
from vpoet.sequence.vocabulary import Vocabulary

__all__ = ["PackStream", "Source", "StreamConfig", "heldout_packs"]

STALLED = 30.0
"""Seconds without a batch after which the stream says what it waits for; again after twice as long."""
_HELDOUT_SEED = 0


class _Batch(NamedTuple):
    packs: list[Pack]
    state: dict[str, State]
    problems: Problems
    skipped: dict[str, int]


class _Lanes:
    """Batches of some lanes, side by side: what is worked ahead (`vpoet.data.prefetch.Work`)."""

    def __init__(self, documents: Documents, lanes: int, places: dict[int, State | None], fresh: int) -> None:
        self._documents = documents
        self._lanes = lanes
        self._places = places
        self._fresh = fresh
        self._streams: dict[int, Lane] = {}

    def open(self) -> None:
        """Go to the lanes' places, and make the documents anew that waited there."""
        for lane, place in self._places.items():
            self._streams[lane] = Lane(self._documents, lane, self._lanes, place, self._fresh)

    def __next__(self) -> _Batch:
        if not self._streams:
            self.open()
        made = {str(lane): next(stream) for lane, stream in self._streams.items()}
        states = {lane: state for lane, (_, state) in made.items()}
        skipped = {shard: count for source in self._documents.sources for shard, count in source.skipped.items()}
        problems = Problems(**self._documents.problems.to_dict())
        return _Batch([row for row, _ in made.values()], states, problems, skipped)

    def at(self) -> str:
        for source in self._documents.sources:
            if source.reading is not None:
                return f"waiting for {source.shelf.waiting}" if source.shelf.waiting else f"reading {source.reading}"
        return "making documents"


class PackStream:
    """This rank's share of every global batch: an endless iterator of lists of lanes/world packs.

    A process of its own works up to ``prefetch`` batches ahead (0: none, all is done where it is asked for); its errors
    are raised where the batch was wanted. `state`, `problems` and `skipped` are those of the last batch handed out,
    whatever was prefetched. Close it, or use it as a context; a forgotten one is closed when it is collected.

    ``state``: what `state` gave, of all lanes or of this rank's; the world size may have changed since. ``documents``
    and all they are made with (the encoding of text) are pickled, unless ``prefetch`` is 0.
    """

    def __init__(
        self,
        documents: Documents,
        *,
        lanes: int,
        rank: int = 0,
        world: int = 1,
        state: dict[str, State] | None = None,
        prefetch: int = 2,
    ) -> None:
        if lanes < 1 or lanes % world:
            raise ConfigError(f"a global batch of {lanes} packs cannot be shared by {world} processes; use a multiple")
        documents.check_tasks()
        documents.check_conditions()
        if rank == 0:
            documents.tell_of_paintings()
            documents.tell_of_controls()
        mine = range(rank, lanes, world)
        if state is not None and (missing := [lane for lane in mine if str(lane) not in state]):
            raise CheckpointError(f"the checkpoint's place in the data lacks lanes {missing}; it has {sorted(state)}")
        places = {lane: None if state is None else state[str(lane)] for lane in mine}
        starts = {}
        for lane, place in places.items():
            start = Lane(documents, lane, lanes)
            starts[str(lane)] = start.state() if place is None else start.check(place)
        self._last = _Batch([], starts, Problems(), {})
        self._error: BaseException | None = None
        self._closed = False
        # shards that came later wait until no lane is in an epoch that began without them
        fresh = 1 + max((walk[0] for place in (state or {}).values() for walk in place["walks"]), default=0)
        if rank == 0 and state:
            _tell_of_growth(documents, next(iter(state.values())), fresh)
        self._work = _Lanes(documents, lanes, places, fresh)
        self._ahead = Prefetch(self._work, prefetch) if prefetch else None

    def __iter__(self) -> Iterator[list[Pack]]:
        return self

    def __next__(self) -> list[Pack]:
        if self._closed:
            raise StopIteration
        if self._error is not None:
            raise self._error
        try:
            self._last = next(self._work) if self._ahead is None else self._ahead.take(STALLED, _stalled)
        except BaseException as error:
            self._error = error
            raise
        return self._last.packs

    def state(self) -> dict[str, State]:
        """{lane: its state} of this rank's lanes, after the last batch handed out; fit for JSON."""
        return self._last.state

    @property
    def problems(self) -> Problems:
        """What was skipped up to the last batch handed out."""
        return self._last.problems

    @property
    def skipped(self) -> dict[str, int]:
        """Unsound samples of each shard that was read for the batches handed out."""
        return self._last.skipped

    def close(self) -> None:
        """End the process; the stream then ends. Safe to call twice."""
        self._closed = True
        if self._ahead is not None:
            self._ahead.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _stalled(seconds: float, at: str) -> None:
    warnings.warn(f"no data for {seconds:.0f} s: the stream is {at}; waiting on", VpoetWarning, stacklevel=4)


def _tell_of_growth(documents: Documents, state: State, fresh: int) -> None:
    """VpoetWarning: a source has more shards than when the state was written."""
    for source, count in zip(documents.sources, state.get("shards", []), strict=False):
        if len(source) > count:
            warnings.warn(
                f"{source.folder}: {len(source)} shards, and {count} when the checkpoint was written: those that came "
                f"later are read from epoch {fresh} on (the first is 0)",
                VpoetWarning,
                stacklevel=3,
            )


def heldout_packs(config: StreamConfig, *, vocabulary: Vocabulary, text: EncodeText, count: int) -> list[Pack]:
    """At most ``count`` packs for evaluation, the same at every call whatever the seed of the run: documents of the
    sources' first epoch under a fixed seed, each once. DataError when there is no document."""
    clean = replace(config, misread=0.0)
    documents = Documents(clean, vocabulary=vocabulary, text=text, seed=_HELDOUT_SEED)
    packer = documents.packer()
    weights = {source: given.weight for source, given in enumerate(config.sources) if given.weight > 0}
    walks = {source: Walk(documents, source, lane=0, lanes=1) for source in weights}
    taken = dict.fromkeys(walks, 0)
    packs: list[Pack] = []
    while len(packs) < count:
        while walks and not packer.full:
            source = min(walks, key=lambda source: taken[source] / weights[source])
            cursor, sequence = walks[source].next()
            if cursor.epoch > 0:
                del walks[source]
            else:
                packer.add(len(sequence), (cursor, sequence))
                taken[source] += 1
        row = packer.take()
        if not row:
            break
        packs.append(documents.pack(row))
    return packs
