"""Copies among very many clips: what `vpoet select --dedupe` takes for made rows of measures (no videos).

``many_copies``, ``many_copies_100k``, ``many_copies_1m``: of 20,000 rows, or so many, every tenth is a copy of an
earlier one: mirrored, begun a thumbnail later, or noisy. All others are clips of their own, `OF_A_PLACE` of a place:
one camera that stands still, before which something else moves each time. An embedding is that of the place, turned a
little: `WIDTH` numbers in fp16, whose variance falls off as (1 + i / 40)^-3, so that 95% of it lie in 140 of them. A
clip has `FRAMES` thumbnails.

Seconds are of the processor, and ``MB`` at the most beyond what there was before; the arrays lie in files, as they do
in `vpoet select`. ``laid_over``, of all ``pairs``, had their likeness worked out, in ``seconds_laying_over``.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import footprint
import numpy as np

from vpoet.arrays import Longs
from vpoet.data.curate import duplicates
from vpoet.data.curate.clip_measures import SIDE
from vpoet.data.curate.thumbnails import Thumbnails
from vpoet.media.signals import opencv

FRAMES, WIDTH, OF_A_PLACE, EACH, LEAST = 8, 1280, 10, 10, 0.92
SEED = 0
_AT_ONCE = 2000


def many_copies(_: float) -> dict[str, Any]:
    return _measured(20_000)


def many_copies_100k(_: float) -> dict[str, Any]:
    return _measured(100_000)


def many_copies_1m(_: float) -> dict[str, Any]:
    return _measured(1_000_000)


def _measured(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        thumbnails: Any = np.memmap(Path(folder, "small"), np.uint8, "w+", shape=(count, FRAMES, SIDE, SIDE))
        vectors: Any = np.memmap(Path(folder, "vectors"), np.float16, "w+", shape=(count, WIDTH))
        source = _make(thumbnails, vectors)
        before, began, asked = footprint.most(), time.process_time(), _Counted()
        duplicates.likeness, likeness = asked, duplicates.likeness
        try:
            found = duplicates.originals(thumbnails, vectors, [], LEAST)
        finally:
            duplicates.likeness = likeness
        seconds = time.process_time() - began
        pairs = count * (count - 1) // 2
        copies, told = source != np.arange(count), found != np.arange(count)
        return {
            "rows": count,
            "pairs": pairs,
            "laid_over": asked.times,
            "seconds": round(seconds, 1),
            "seconds_laying_over": round(asked.seconds, 1),
            "MB": round(footprint.most() - before),
            "precision": round(float((source[found] == source)[told].mean()), 4),
            "recall": round(float((told & (source[found] == source))[copies].mean()), 4),
        }


class _Counted:
    """`likeness`, and how often it was asked."""

    def __init__(self) -> None:
        self._asks, self.times, self.seconds = duplicates.likeness, 0, 0.0

    def __call__(self, a: Thumbnails, b: Thumbnails) -> float:
        self.times += 1
        began = time.process_time()
        found = self._asks(a, b)
        self.seconds += time.process_time() - began
        return found


def _make(thumbnails: Any, vectors: Any) -> Longs:
    """Fill both; of each row the one that it was copied from, itself if it was not."""
    count, random, cv2 = len(vectors), np.random.default_rng(SEED), opencv()
    places = count // OF_A_PLACE
    looks = random.integers(0, 200, (places, 6, 6)).astype(np.float32)
    spread = (1 + np.arange(WIDTH) / 40) ** -1.5
    source = np.arange(count)
    source[EACH - 1 :: EACH] = [
        EACH * int(random.integers(i + 1)) + int(random.integers(EACH - 1)) for i in range(count // EACH)
    ]
    y, x = np.mgrid[:SIDE, :SIDE]
    for first in range(0, count, _AT_ONCE):
        rows = np.arange(first, min(first + _AT_ONCE, count))
        place = random.integers(0, places, len(rows))
        here = [cv2.resize(looks[at], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for at in place]
        clips = np.repeat(np.stack(here)[:, None], FRAMES, 1)
        start, way = random.uniform(4, 20, (2, len(rows), 1, 1, 1)), random.uniform(-1.5, 1.5, (2, len(rows), 1, 1, 1))
        down, across = start + way * np.arange(FRAMES)[:, None, None]
        clips[(abs(y - down) < 4) & (abs(x - across) < 4)] = 230
        thumbnails[rows] = clips.clip(0, 255)
        theirs = np.stack([np.random.default_rng((SEED, at)).normal(0, spread) for at in place.tolist()])
        vectors[rows] = _unit(theirs + 0.5 * random.normal(0, spread, theirs.shape))
        for at in rows[EACH - 1 :: EACH].tolist():
            clip = np.asarray(thumbnails[source[at]])
            kind = at // EACH % 3
            clip = clip[..., ::-1] if kind == 0 else np.concatenate([clip[1:], clip[-1:]]) if kind == 1 else clip
            thumbnails[at] = (clip + random.normal(0, 1, clip.shape)).round().clip(0, 255)
            vectors[at] = _unit(
                vectors[source[at]].astype(np.float64) + 0.1 * random.normal(0, spread) / np.linalg.norm(spread)
            )
    return source


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
