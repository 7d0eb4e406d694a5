"""The stream of packs that pretraining reads: this rank's lanes, side by side, made ahead in the background.

    lane     0       1       2       3
    batch g  pack g  pack g  pack g  pack g         rank r of w carries lanes r::w

so the same global batches come out at every world size that divides the number of lanes.
"""

import functools
import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from vpoet.data.shards import Problems
from vpoet.data.token_documents import Documents, EncodeText, Lane, Source, State, StreamConfig, Walk
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


class PackStream:
    """This rank's share of every global batch: an endless iterator of lists of lanes/world packs.

    A background thread works up to ``prefetch`` batches ahead (0: none, in the caller's thread); its errors are raised
    where the batch was wanted. `state` and `problems` are those of the last batch handed out, whatever was prefetched.
    Close it, or use it as a context; a forgotten one stops its thread when it is collected.

    ``state``: what `state` gave, of all lanes or of this rank's; the world size may have changed since.
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
        if rank == 0:
            documents.tell_of_paintings()
        self._sources = documents.sources
        mine = range(rank, lanes, world)
        if state is not None and (missing := [lane for lane in mine if str(lane) not in state]):
            raise CheckpointError(f"the checkpoint's place in the data lacks lanes {missing}; it has {sorted(state)}")
        streams = {
            str(lane): Lane(documents, lane, lanes, None if state is None else state[str(lane)]) for lane in mine
        }
        self._last = _Batch([], {lane: stream.state() for lane, stream in streams.items()}, Problems())
        self._make = functools.partial(_batch, streams, documents.problems)
        self._error: BaseException | None = None
        self._stop = threading.Event()
        self._queue: queue.Queue[_Batch | BaseException] = queue.Queue(max(prefetch, 1))
        self._thread: threading.Thread | None = None
        if prefetch:
            work = (self._make, self._queue, self._stop)  # not self: a forgotten stream must be collectable
            self._thread = threading.Thread(target=_prefetch, args=work, name="vpoet-packs", daemon=True)
            weakref.finalize(self, self._stop.set)
            self._thread.start()

    def __iter__(self) -> Iterator[list[Pack]]:
        return self

    def __next__(self) -> list[Pack]:
        if self._stop.is_set():
            raise StopIteration
        if self._error is not None:
            raise self._error
        batch = self._make() if self._thread is None else self._wait()
        if isinstance(batch, BaseException):
            self._error = batch
            raise batch
        self._last = batch
        return batch.packs

    def _wait(self) -> "_Batch | BaseException":
        patience, waited = STALLED, 0.0
        while True:
            try:
                return self._queue.get(timeout=patience - waited)
            except queue.Empty:
                waited, patience = patience, 2 * patience
            reading = [str(source.reading) for source in self._sources if source.reading is not None]
            at = f"reading {reading[0]}" if reading else "making documents"
            warnings.warn(f"no data for {waited:.0f} s: the stream is {at}; waiting on", VpoetWarning, stacklevel=3)

    def state(self) -> dict[str, State]:
        """{lane: its state} of this rank's lanes, after the last batch handed out; fit for JSON."""
        return self._last.state

    @property
    def problems(self) -> Problems:
        """What was skipped up to the last batch handed out."""
        return self._last.problems

    @property
    def skipped(self) -> dict[str, int]:
        """Unsound samples of each shard that was read so far, ahead of what was handed out."""
        return {shard: count for source in self._sources for shard, count in list(source.skipped.items())}

    def close(self) -> None:
        """Stop the thread and wait for it; the stream then ends. Safe to call twice."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def _batch(streams: dict[str, Lane], problems: Problems) -> _Batch:
    made = {lane: next(stream) for lane, stream in streams.items()}
    states = {lane: state for lane, (_, state) in made.items()}
    return _Batch([row for row, _ in made.values()], states, Problems(**problems.to_dict()))


def _prefetch(make: Callable[[], _Batch], out: queue.Queue[_Batch | BaseException], stop: threading.Event) -> None:
    while not stop.is_set():
        item: _Batch | BaseException
        try:
            item = make()
        except BaseException as error:
            item = error
        while not stop.is_set():
            try:
                out.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
        if isinstance(item, BaseException):
            return


def heldout_packs(config: StreamConfig, *, vocabulary: Vocabulary, text: EncodeText, count: int) -> list[Pack]:
    """At most ``count`` packs for evaluation, the same at every call whatever the seed of the run: documents of the
    sources' first epoch under a fixed seed, each once. DataError when there is no document."""
    documents = Documents(config, vocabulary=vocabulary, text=text, seed=_HELDOUT_SEED)
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
