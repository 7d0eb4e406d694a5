"""The training clip that is nearest to each of some clips: who repeats what it has learned by heart lies at distance 0.

A distance is the root of the mean squared difference of two clips, in steps of 0..255, both shrunk by `SHRINK`; so
details count less than who stands where when. How near is too near only clips that were held out can say.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.data.folder import read_videos
from vpoet.errors import DataError

SHRINK = 4
AT_ONCE = 64
"""Training clips in memory."""


def nearest(clips: Sequence[Frames], folder: str | Path) -> tuple[npt.NDArray[np.float64], list[str]]:
    """For each of the clips, of one shape, its distance to the nearest clip in a folder of raw shards, and that one's
    key. Clips of another shape are passed over; DataError if there is none of this."""
    wanted = np.stack([_small(clip) for clip in clips])
    best, keys = np.full(len(clips), np.inf), [""] * len(clips)
    squares = np.square(wanted).sum(1)
    training = _clips(Path(folder), clips[0].shape)
    while group := list(islice(training, AT_ONCE)):
        known = np.stack([_small(frames) for _, frames in group])
        distances = squares[:, None] - 2 * wanted @ known.T + np.square(known).sum(1)
        for i, j in enumerate(distances.argmin(1)):
            if distances[i, j] < best[i]:
                # the difference itself: the sum above has lost its digits where clips are alike
                best[i], keys[i] = np.square(wanted[i] - known[j]).sum(), group[j][0]
    if not np.isfinite(best).all():
        raise DataError(f"{folder}: no clip of {' x '.join(map(str, clips[0].shape[:3]))} to compare with")
    return np.sqrt(best / wanted.shape[1]), keys


def _clips(folder: Path, shape: tuple[int, ...]) -> Iterator[tuple[str, Frames]]:
    for sample, video in read_videos(folder):
        if video.frames.shape == shape:
            yield sample.key, video.frames


def _small(frames: Frames) -> npt.NDArray[np.float32]:
    t, height, width, _ = frames.shape
    h, w = height // SHRINK, width // SHRINK
    cells = frames[:, : h * SHRINK, : w * SHRINK].reshape(t, h, SHRINK, w, SHRINK, 3)
    small: npt.NDArray[np.float32] = cells.mean((2, 4), dtype=np.float32).ravel()
    return small
