"""From a raw shard to a token shard: jobs that can be shared out and resumed, one a shard.

Threads decode the clips of the next batch while the tokenizer encodes this one. What is written depends on neither: a
shard's samples stand in its own order, whatever was made with what.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from vpoet.arrays import Codes, Frames
from vpoet.data import control_parts, painting, recordings, segments, tiles
from vpoet.data.fields import plain_key, printable
from vpoet.data.shards import Problems, Sample, ShardFile, ShardInfo, read_shard
from vpoet.data.shelf import Shelf
from vpoet.data.workers import Progress
from vpoet.errors import DataError, HashMismatch
from vpoet.files import read_json, write_atomic
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Painting

CHUNK_CELLS = 16
"""Cells of time encoded at once: clips are short, and a long video still needs no more memory than these."""


class Coder(Protocol):
    """What a video tokenizer is here."""

    codes: str
    """The content hash that token shards carry."""
    dtype: str
    """What it computes in: fp32, or something less exact."""

    @property
    def stride(self) -> painting.Size:
        """(r, s, s): frames, pixels down and pixels across that one code stands for."""

    def grid(self, frames: int, height: int, width: int, /) -> painting.Size:
        """Cells (t, h, w) of a video of this size; DataError if it has none."""

    def encode_clips(self, clips: Sequence[Frames], /, chunk_cells: int = 4) -> list[Codes]:
        """Clips uint8 [T, H, W, 3] of one size to the codes [t, h, w] of each, so many cells of time at once."""

    def encode_batch(self, clips: Any, /) -> Codes:
        """Clips uint8 [N, T, H, W, 3] to codes [N, t, h, w]."""


@dataclass(frozen=True)
class Extras:
    """What a token shard holds of each clip beside its codes."""

    keyframes: bool = False
    """The last frame of each cell of time as an image of its own."""
    paintings: int = 0
    """Codes of the clip with a part hidden: so many for each task that paints."""
    seed: int = 0
    """Draws what is hidden, and where tiles lie, with each sample's key."""
    tiles: int = 0
    """Instead of each clip so many tiles of it, with the windows around them."""
    tile: int = 64
    """Pixels of a side of a tile."""


@dataclass(frozen=True)
class Pace:
    """How a shard is worked through; its bytes do not depend on it."""

    batch: int = 8
    """Clips in memory as frames, as many again are decoded ahead; a GPU encodes those of one size at once."""
    decoders: int = 2
    """Threads that decode."""


@dataclass(frozen=True, eq=False)
class Job:
    """One raw shard of a folder, to be a token shard of another."""

    raws: str
    raw: ShardInfo
    out: Path
    coder: Callable[[], Coder]
    """Makes that of a process; pickled to workers."""
    extras: Extras
    pace: Pace


def encode_job(job: Job, progress: Progress) -> Problems:
    """`encode_shard`, for `vpoet.data.workers.share_out`; what could not be encoded."""
    problems = Problems()
    encode_shard(job.raws, job.raw, job.out, job.coder(), job.extras, problems, job.pace)
    progress(1, job.raw.samples)
    return problems


class _Clip(NamedTuple):
    """A sample as the tokenizer takes it."""

    frames: Frames
    hidden: list[painting.Hidden]
    """What its paintings are to be encoded from."""
    beside: dict[str, Frames]
    """Its control signals, or a tile's window, by the extension of their codes."""


def encode_shard(
    raws: str | Path | Shelf, raw: ShardInfo, out: Path, coder: Coder, extras: Extras, problems: Problems, pace: Pace
) -> None:
    """Write the token shard of one raw shard of ``raws``, and beside it the record by which `finished` knows it."""
    shelf = raws if isinstance(raws, Shelf) else Shelf(raws)
    samples = read_shard(shelf.path(raw), problems=problems, samples=raw.samples)
    ready = _ahead(samples, coder, extras, pace)
    with ShardFile(out / raw.name) as shard:
        while batch := list(islice(ready, pace.batch)):
            clips = [clip for _, clip in batch if isinstance(clip, _Clip)]
            codes = iter(_encode([clip.frames for clip in clips], coder, pace.batch, CHUNK_CELLS))
            hidden = [one for clip in clips for one in clip.hidden]
            shown = iter(_encode([one.frames for one in hidden], coder, pace.batch))
            signals = [each for clip in clips for each in clip.beside.values()]
            told = iter(_encode(signals, coder, pace.batch, CHUNK_CELLS))
            for sample, clip in batch:
                try:
                    if isinstance(clip, _Clip):
                        drawn = [one.painting(next(shown)) for one in clip.hidden]
                        parts = _parts(sample, clip.frames, next(codes), drawn, coder, extras, problems)
                        parts |= {extension: next(told) for extension in clip.beside}
                    elif clip is None:
                        parts = segments.encoded(
                            sample.json, sample.parts, lambda frames: coder.encode_clips([frames])[0]
                        )
                    else:
                        raise clip
                except DataError as error:
                    problems.add(str(error), sample.key)
                else:
                    _write(shard, sample, parts, coder, problems)
    assert shard.info is not None
    record = {"raw": raw.sha256, "tokenizer": coder.codes, **asdict(extras), "shard": asdict(shard.info)}
    record |= {} if coder.dtype == "fp32" else {"dtype": coder.dtype}
    write_atomic(_record_path(out, raw), json.dumps(record, indent=1))


def _write(shard: ShardFile, sample: Sample, parts: dict[str, Any], coder: Coder, problems: Problems) -> None:
    """The parts of a sample, with what the json of each says."""
    key = plain_key(sample.key)
    parts["json"] |= {"tokenizer": coder.codes} | ({"key": printable(sample.key)} if key != sample.key else {})
    try:
        shard.write(key, parts)
    except DataError:
        problems.add("another sample has that key", sample.key)


def _ahead(
    samples: Iterable[Sample], coder: Coder, extras: Extras, pace: Pace
) -> Iterator[tuple[Sample, _Clip | DataError | None]]:
    """Every sample with its clip, or with why it has none, a batch of them decoded ahead; None: it has segments."""

    def prepared(sample: Sample) -> list[tuple[Sample, _Clip | DataError | None]]:
        if segments.interleaves(sample.json, sample.parts):
            return [(sample, None)]
        key, seed = plain_key(sample.key), extras.seed
        try:
            frames = np.asarray(Video.read(sample.video))
            if extras.tiles:
                coder.grid(len(frames), extras.tile, extras.tile)
                drawn = enumerate(tiles.draw(frames, extras.tile, key, seed=seed, count=extras.tiles))
                return [
                    (replace(sample, key=f"{key}-{number}"), _Clip(tile.fine, [], {tiles.COARSE: tile.window}))
                    for number, tile in drawn
                ]
            coder.grid(*frames.shape[:3])
            signals = control_parts.read_pictures(sample.parts, frames.shape)
        except DataError as error:
            return [(sample, error)]
        hidden = painting.draw(frames, coder.stride, key, seed=seed, count=extras.paintings)
        beside = {control_parts.named(kind): pictures for kind, pictures in signals.items()}
        return [(sample, _Clip(frames, hidden, beside))]

    waiting: deque[Future[list[tuple[Sample, _Clip | DataError | None]]]] = deque()
    with ThreadPoolExecutor(pace.decoders, "clip-decoder") as threads:
        for sample in samples:
            waiting.append(threads.submit(prepared, sample))
            if len(waiting) > pace.batch:
                yield from waiting.popleft().result()
        for found in waiting:
            yield from found.result()


def _encode(clips: Sequence[Frames], coder: Coder, batch: int, *chunk_cells: int) -> list[Codes]:
    """The codes of each clip; those of one size together, ``batch`` at most."""
    alike: dict[tuple[int, ...], list[int]] = {}
    for number, clip in enumerate(clips):
        alike.setdefault(clip.shape, []).append(number)
    found: dict[int, Codes] = {}
    for numbers in alike.values():
        for first in range(0, len(numbers), batch):
            some = numbers[first : first + batch]
            found |= zip(some, coder.encode_clips([clips[number] for number in some], *chunk_cells), strict=True)
    return [found[number] for number in range(len(clips))]


def _parts(
    sample: Sample,
    frames: Frames,
    codes: Codes,
    drawn: Sequence[Painting],
    coder: Coder,
    extras: Extras,
    problems: Problems,
) -> dict[str, Any]:
    """What a token shard holds of a sample, by extension."""
    fields = sample.json | {"grid": list(codes.shape)}
    parts = {"codes.npy": codes, "json": fields}
    try:
        parts |= recordings.parts(sample.json, len(frames))
    except DataError as error:
        problems.add("actions left out", f"{sample.key}: {error}")
    if extras.keyframes:
        images = frames[coder.stride[0] :: coder.stride[0], None]
        pieces = [images[start : start + CHUNK_CELLS] for start in range(0, len(images), CHUNK_CELLS)]
        parts["keyframes.npy"] = np.concatenate([codes[:1], *(coder.encode_batch(p)[:, 0] for p in pieces)])
    if drawn:
        fields["paintings"] = [one.task for one in drawn]
        parts |= {f"painting-{number}.npz": painting.to_npz(one) for number, one in enumerate(drawn)}
    return parts


def finished(out: Path, raw: ShardInfo, tokenizer: str, extras: Extras) -> ShardInfo | None:
    """The token shard of a raw shard if it is there, whole, made of that very shard, and has the ``extras`` it shall.

    HashMismatch if another tokenizer made it: codes of two tokenizers must not lie in one folder.
    """
    try:
        record = read_json(_record_path(out, raw))
        info = ShardInfo.from_dict(record["shard"])
        maker, made_of = str(record["tokenizer"]), record["raw"]
        keyframes, paintings, seed, several = (
            int(record.get(name, 0)) for name in ("keyframes", "paintings", "seed", "tiles")
        )
    except (OSError, ValueError, KeyError, TypeError):  # none, or damaged: the shard is made anew
        return None
    if maker != tokenizer:
        raise HashMismatch(f"{out}: holds shards of tokenizer {maker}, this one is {tokenizer}; choose another --out")
    path = out / raw.name
    whole = info.name == raw.name and path.is_file() and path.stat().st_size == info.bytes
    enough = keyframes >= extras.keyframes and paintings >= extras.paintings
    enough = enough and several == extras.tiles and (not several or record.get("tile") == extras.tile)
    enough = enough and (not (extras.paintings or several) or seed == extras.seed)
    return info if whole and enough and made_of == raw.sha256 else None


def _record_path(out: Path, raw: ShardInfo) -> Path:
    return (out / raw.name).with_suffix(".json")
