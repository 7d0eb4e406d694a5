"""Endless batches of clips from raw shards, to train a video tokenizer on: seeded, shared by ranks, exact to resume."""

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.shards import Problems, Sample, ShardInfo, read_shard
from vpoet.data.shelf import Shelf
from vpoet.errors import DataError
from vpoet.media.video import Video

SHARDS_MIXED = 8
"""Shards whose samples are shuffled together: their compressed bytes are what a stream holds in memory."""
GRID = 16
"""Pixels: windows begin at multiples of it, so that every network's cells lie in them as in the whole picture."""
MOVED = 16
"""Levels of 255 by which a pixel that moves changes."""
AROUND = 0.75
"""Share of windows around something that moves."""
RECOLOURED = 0.25
"""Share of random views whose colour channels change places."""


@dataclass(frozen=True)
class ClipShape:
    """What a stream makes of each video."""

    frames: int
    height: int
    width: int
    """Pixels."""
    augment: bool = False
    """Clips are random views of a video (`random_view`), and not the whole picture resized."""
    window: int = 0
    """Pixels of a side of the square that is cut out of that, around something that moves (`moving_window`); 0: all."""
    clips: int = 1
    """Clips that are taken of each video, each of frames and a window of its own: to decode it is most of the work."""


class _Place(NamedTuple):
    """Of a sample: the pass over the data, the group of shards in that pass, the position in the shuffled group."""

    epoch: int
    group: int
    sample: int


class _Step(NamedTuple):
    """One sample with the place after it, or none at the end of a group."""

    sample: Sample | None
    chance: np.random.Generator | None
    """Draws what is random about the clip: its first frame, and its view."""
    following: _Place
    problems: Problems
    """Met since the step before."""


class ClipStream:
    """Infinite iterator of ``uint8 [batch, frames, height, width, 3]``.

    A video gives a random run of ``frames`` frames, brought to its `ClipShape`. One that is too short is skipped and
    counted in ``problems`` each time it is met; so is an image, unless ``frames`` is 1. Each epoch takes the shards in
    a new order, and shuffles the samples of `SHARDS_MIXED` shards together.

    With as many shards as ranks (``world``), a rank reads only its own ones; with fewer, it reads all and takes every
    ``world``-th sample. What comes out depends on nothing but the data and the arguments, of which ``decoders``, the
    threads that decode a batch's clips, changes only how soon.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        shape: ClipShape,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        decoders: int = 4,
    ) -> None:
        shards: list[tuple[Shelf, ShardInfo]] = []
        checksums: list[str] = []
        for folder in folders:
            shelf = Shelf(folder)
            manifest = shelf.manifest()
            if manifest.kind != "raw":
                raise DataError(f"{folder}: a folder of {manifest.kind}; raw shards are needed (`vpoet ingest`)")
            shards += [(shelf, shard) for shard in manifest.shards]
            checksums += [shard.sha256 for shard in manifest.shards]
        if not shards:
            raise DataError(f"{', '.join(map(str, folders)) or 'no folder given'}: no shards to read")
        self.problems = Problems()
        self._by_shard = len(shards) >= world
        self._shards = shards[rank::world] if self._by_shard else shards
        if batch % shape.clips:
            raise DataError(f"a batch of {batch} clips, {shape.clips} of each video: make one a multiple of the other")
        self._shape, self._seed, self._rank, self._world = shape, seed, rank, world
        self._batch = batch // shape.clips  # videos
        # All that the order depends on: a place in another stream would be another sample, and nobody would notice.
        size = shape.frames, shape.height, shape.width
        window = (shape.window, shape.clips) if shape.window or shape.clips > 1 else ()
        facts = (checksums, size, batch, seed, shape.augment, rank, world, *window)
        self._identity = zlib.crc32(repr(facts).encode())
        self._place = _Place(0, 0, 0)
        self._walk: Iterator[_Step] | None = None
        self._ahead: Future[tuple[Frames, _Place, Problems]] | None = None
        self._reader = ThreadPoolExecutor(1, "clip-reader")
        self._decoders = ThreadPoolExecutor(decoders, "clip-decoder")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frames:
        # One batch is made ahead while the last one is in use; the place moves only when its batch is handed out.
        ahead = self._ahead or self._reader.submit(self._make, self._place)
        self._ahead = None
        clips, self._place, problems = ahead.result()
        self.problems.update(problems)
        self._ahead = self._reader.submit(self._make, self._place)
        return clips

    def state_dict(self) -> dict[str, int]:
        """Where the next batch begins: a few integers, fit for JSON."""
        return {**self._place._asdict(), "identity": self._identity}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on exactly where ``state`` was taken; DataError if that stream had other shards or arguments."""
        if state["identity"] != self._identity:
            raise DataError(
                "the stream's state was taken with other shards, clip shape, batch, seed, augment, rank or world"
            )
        if self._ahead is not None:
            self._ahead.exception()  # waits: the reader must not walk on
        self._ahead = self._walk = None
        self._place = _Place(state["epoch"], state["group"], state["sample"])

    def _make(self, place: _Place) -> tuple[Frames, _Place, Problems]:
        """The batch that begins at ``place``, the place where the next one does, and what was skipped on the way."""
        self._walk = self._walk or self._steps(place)
        clips: list[Frames] = []
        problems = Problems()
        epochs_ended = 0
        while len(clips) < self._batch:
            steps = list(itertools.islice(self._walk, self._batch - len(clips)))
            for step, clip in zip(steps, self._decoders.map(self._clip, steps), strict=True):
                problems.update(step.problems)
                epochs_ended += step.following[1:] == (0, 0)
                if clip is not None:
                    clips.append(clip)
            place = steps[-1].following
            if not clips and epochs_ended > 1:
                raise DataError(f"no clip of {self._shape.frames} frames in {len(self._shards)} shards: {problems}")
        return np.concatenate(clips), place, problems

    def _steps(self, place: _Place) -> Iterator[_Step]:
        """Every sample of this rank from ``place`` on, epoch after epoch."""
        epoch, first_group, first = place
        while True:
            groups = self._groups(epoch)
            for group in range(first_group, len(groups)):
                problems = Problems()
                samples = [sample for shard in groups[group] for sample in _places(self._shards[shard], problems)]
                last = group + 1 == len(groups)
                for shard in self._groups(epoch + 1)[0] if last else groups[group + 1]:
                    shelf, info = self._shards[shard]
                    shelf.ahead(info)
                order = self._generator(epoch, group).permutation(len(samples)).tolist()
                mine = order if self._by_shard else order[self._rank :: self._world]
                for index in range(first, len(mine)):
                    chance = self._generator(epoch, group, index, self._rank)
                    yield _Step(samples[mine[index]], chance, _Place(epoch, group, index + 1), problems)
                    problems = Problems()
                first = 0
                yield _Step(None, None, _Place(epoch + 1, 0, 0) if last else _Place(epoch, group + 1, 0), problems)
            epoch, first_group = epoch + 1, 0

    def _groups(self, epoch: int) -> list[list[int]]:
        """The shards, in the order of this epoch: those of a group are mixed."""
        shards = self._generator(epoch).permutation(len(self._shards)).tolist()
        return [shards[at : at + SHARDS_MIXED] for at in range(0, len(shards), SHARDS_MIXED)]

    def _clip(self, step: _Step) -> Frames | None:
        """The step's clips [C, T, H, W, 3]; None, with the reason among its problems, if it has none to give."""
        if step.sample is None or step.chance is None:
            return None
        shape = self._shape
        try:
            video = Video.read(step.sample.video)
        except DataError as error:
            step.problems.add("cannot be decoded", f"{step.sample.key}: {error}")
            return None
        if len(video) < shape.frames:
            step.problems.add("too short" if video.fps else "an image", step.sample.key)
            return None
        return np.stack([_cut(video, shape, step.chance) for _ in range(shape.clips)])

    def _generator(self, *path: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *path))


def _cut(video: Video, shape: ClipShape, chance: np.random.Generator) -> Frames:
    """A clip of that shape at a random place of a video that is long enough."""
    first = int(chance.random() * (len(video) - shape.frames + 1))
    clip = Video(video.frames[first : first + shape.frames], video.fps)
    if shape.augment:
        frames = random_view(clip, shape.height, shape.width, chance)
    else:
        frames = clip.resize(shape.height, shape.width).frames
    return moving_window(frames, shape.window, chance) if shape.window else frames


def random_view(video: Video, height: int, width: int, chance: np.random.Generator) -> Frames:
    """A clip uint8 [T, height, width, 3] cut from ``video`` at a random place.

    A video that is smaller than the window is first scaled to cover it. With even odds the clip is mirrored, and runs
    backwards; one in four has its colour channels permuted. The same ``chance`` gives the same view.
    """
    if video.height < height or video.width < width:
        scale = max(height / video.height, width / video.width)
        video = video.resize(max(height, round(scale * video.height)), max(width, round(scale * video.width)))
    top = int(chance.integers(video.height - height + 1))
    left = int(chance.integers(video.width - width + 1))
    mirrored, backwards = chance.random(2) < 0.5
    frames = video.frames[:, top : top + height, left : left + width]
    frames = frames[:: -1 if backwards else 1, :, :: -1 if mirrored else 1]
    if chance.random() < RECOLOURED:
        frames = frames[..., chance.permutation(3)]
    return np.ascontiguousarray(frames)


def moving_window(frames: Frames, side: int, chance: np.random.Generator) -> Frames:
    """A square of ``side`` pixels cut from a clip [T, H, W, 3], at multiples of `GRID`: [T, side, side, 3].

    Around a pixel drawn from those that change from frame to frame, three times of four, and anywhere else, or where
    nothing moves. In most clips little moves: in windows around it a network sees several times as much of that.
    """
    height, width = frames.shape[1:3]
    moved = np.abs(np.diff(frames.astype(np.int16), axis=0)).max((0, 3), initial=0) > MOVED
    rows, columns = np.nonzero(moved)
    spots = np.array([(height - side) // GRID, (width - side) // GRID])
    corner = chance.integers(spots + 1)
    if len(rows) and chance.random() < AROUND:
        pick = int(chance.integers(len(rows)))
        middle = np.array([rows[pick], columns[pick]]) - side / 2 + chance.uniform(-side / 4, side / 4, 2)
        corner = np.clip(np.rint(middle / GRID).astype(int), 0, spots)
    top, left = (GRID * corner).tolist()
    return np.ascontiguousarray(frames[:, top : top + side, left : left + side])


def _places(shard: tuple[Shelf, ShardInfo], problems: Problems) -> list[Sample | None]:
    """What stands at each place of a shard that was written with so many samples; None where it is unsound, so that a
    place means the same when others are damaged later."""
    shelf, info = shard
    count, path = info.samples, shelf.path(info)
    sound = {sample.number: sample for sample in read_shard(path, problems=problems, samples=count)}
    return [sound.get(number) for number in range(max(count, 1 + max(sound, default=-1)))]
