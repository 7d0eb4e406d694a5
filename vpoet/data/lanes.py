"""A lane of a global batch: an endless stream of packs of its own, and its exact place in the data."""

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np

from vpoet.data.token_dataset import Shard, TokenSample
from vpoet.data.token_documents import ORDER, UNITS, Cursor, Documents, State
from vpoet.errors import CheckpointError, DataError
from vpoet.sequence import document
from vpoet.sequence.packing import Pack

_PATIENCE = 64
"""A lane gives a source up after this many shards' worth of units in a row without a single document."""


class Walk:
    """One lane's endless way through one source.

    A source is cut into units, whole shards or, where there are fewer shards than lanes, equal parts of them. Every
    epoch shuffles the units and deals them out to the lanes, so that over all lanes each sample comes once per epoch.
    """

    def __init__(self, documents: Documents, source: int, lane: int, lanes: int) -> None:
        self.at = Cursor(source, 0, 0, 0)
        self._documents = documents
        self._dataset = documents.sources[source]
        self.grown: list[tuple[int, int]] = [(0, len(self._dataset))]
        """(epoch, shards that are read from it on): shards that came later are read from a later epoch on."""
        self._lane, self._lanes = lane, lanes
        self._dealt: tuple[int, list[int]] = (-1, [])
        self._open: tuple[int, int, Shard, list[int]] = (-1, -1, Shard(0), [])

    def next(self) -> tuple[Cursor, document.Sequence]:
        """The next document, and its cursor; DataError when the source seems to have none."""
        barren = 0
        while barren < _PATIENCE * self._parts(self.at.epoch):
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
        path = self._dataset.path(self._units(at.epoch)[at.turn] // self._parts(at.epoch))
        return f"{path}: sample {self._unit(at.epoch, at.turn)[1][at.position]}"

    def _shards(self, epoch: int) -> int:
        return [shards for first, shards in self.grown if first <= epoch][-1]

    def _parts(self, epoch: int) -> int:
        """Into which a shard is cut."""
        return -(-self._lanes // self._shards(epoch))

    def _units(self, epoch: int) -> list[int]:
        if self._dealt[0] != epoch:
            self._dealt = epoch, self._deal(epoch)
        return self._dealt[1]

    def _deal(self, epoch: int) -> list[int]:
        count = self._shards(epoch) * self._parts(epoch)
        units = self._documents.random(UNITS, self.at.source, epoch).permutation(count)
        dealt: list[int] = units[self._lane :: self._lanes].tolist()
        return dealt

    def _unit(self, epoch: int, turn: int) -> tuple[Shard, list[int]]:
        """A shard, held while the walk is in it, and the numbers of the unit's samples in this epoch's order: of all
        that were written, so that a place in it means the same when some of them are damaged later."""
        if self._open[:2] != (epoch, turn):
            unit, parts = self._units(epoch)[turn], self._parts(epoch)
            shard = self._dataset.shard(unit // parts)
            order = np.arange(unit % parts, shard.size, parts)
            order = self._documents.random(ORDER, self.at.source, epoch, unit).permutation(order)
            self._open = epoch, turn, shard, order.tolist()
            self._bring_next(epoch, turn + 1)
        return self._open[2:]

    def _bring_next(self, epoch: int, turn: int) -> None:
        """Have the shard of the next unit fetched while this one is read, if it lies on a server."""
        if turn < len(self._units(epoch)):
            shard = self._units(epoch)[turn] // self._parts(epoch)
        else:
            shard = self._deal(epoch + 1)[0] // self._parts(epoch + 1)
        self._dataset.shelf.ahead(self._dataset.manifest.shards[shard])


class Lane:
    """One of ``lanes`` endless streams of (pack, the lane's state after that pack).

    Shards that were added to the end of a source after ``state`` was written are read from the epoch ``fresh`` on.
    """

    def __init__(self, documents: Documents, lane: int, lanes: int, state: State | None = None, fresh: int = 0) -> None:
        self._documents = documents
        self._lane = lane
        self.walks = [Walk(documents, source, lane, lanes) for source in range(len(documents.sources))]
        self._packer = documents.packer()
        self._drawn = 0
        self._lanes = lanes
        self._identity = self._identify([len(dataset) for dataset in documents.sources])
        if state is not None:
            self._restore(self.check(state), fresh)

    def state(self) -> State:
        """Integers from which `Lane` goes on exactly: documents that wait for a pack are named, to be made again."""
        grown = [walk.grown for walk in self.walks]
        return {
            "identity": self._identity,
            "shards": [len(dataset) for dataset in self._documents.sources],
            **({"grown": [list(map(list, each)) for each in grown]} if any(len(each) > 1 for each in grown) else {}),
            "drawn": self._drawn,
            "walks": [list(walk.at[1:]) for walk in self.walks],
            "waiting": [list(cursor) for _, (cursor, _) in self._packer.buffer],
        }

    def check(self, state: State) -> State:
        """The state; CheckpointError if it is not one of this lane."""
        now = [len(dataset) for dataset in self._documents.sources]
        then = state.get("shards", now)
        fewer = len(then) != len(now) or any(one > other for one, other in zip(then, now, strict=True))
        if fewer or state["identity"] != self._identify(then):
            raise CheckpointError(
                f"the checkpoint's place in the data (lane {self._lane}) is one in other data: the seed, the number of "
                "packs in a global batch, or the shards of a source have changed; put them back, or start a new run"
            )
        return state

    def _identify(self, shards: list[int]) -> str:
        """Of the data, as far as it was so many shards of each source."""
        sources = zip(self._documents.sources, shards, strict=True)
        identities = [dataset.identity_of(count) for dataset, count in sources]
        content = [self._documents.seed, self._lane, self._lanes, *identities]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def _restore(self, state: State, fresh: int) -> None:
        self._drawn = state["drawn"]
        for walk, dataset, count, grown in zip(
            self.walks,
            self._documents.sources,
            state.get("shards", [len(dataset) for dataset in self._documents.sources]),
            state.get("grown", itertools.repeat(None)),
            strict=False,
        ):
            walk.grown = [(first, shards) for first, shards in grown or [(0, count)]]
            if len(dataset) > count:
                walk.grown.append((fresh, len(dataset)))
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
