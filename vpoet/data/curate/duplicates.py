"""Copies among clips: the same recording cut a few frames later, cropped, mirrored, or compressed again.

Candidates are pairs whose embeddings, or perceptual hashes, are near. A pair is then laid over each other, by their
thumbnails: one of the two as it is or mirrored, whole or as the other's crop, at whatever place and a few frames
earlier or later. Its `likeness` is the smaller of two correlations there: that of the pictures, and that of how they
change. Two clips of one camera that stands still agree in the first alone.

Shapes: N clips, K thumbnails of `SIDE` pixels, D of an embedding.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Floats, Longs
from vpoet.data.curate.clip_measures import SIDE
from vpoet.media.signals import opencv

Thumbnails = npt.NDArray[np.uint8]
"""[N, K, h, w]; of one clip [K, h, w]."""
NEAR = 0.4
"""The least cosine of two embeddings, less their mean over all clips, of a pair that is looked at."""
NEAR_BITS = 14
"""Bits of 64 at most in which two frames' hashes differ, of a pair that is looked at."""
SCALES = (1.0, 0.8)
"""Of a copy that shows a crop of the other: sides of the crop."""
SHIFTS = (0, 1, -1, 2, -2)
"""Thumbnails by which a copy may begin later."""
NOISE = 3.0
"""Grey levels by which thumbnails of copies differ: changes below it say nothing."""
FIRST_LOOK = 0.75
"""The least correlation of mean pictures of a pair that is looked at more closely."""
_ROWS, _SCORES = 1024, 1 << 26
"""Clips that are compared with all others at once, at most; and such scores in memory."""


def originals(thumbnails: Thumbnails, vectors: Floats | None, hashes: Sequence[Sequence[str]], least: float) -> Longs:
    """Of clips in order of preference: for each the clip that it is a copy of, itself if it is to be kept.

    A clip is a copy if its likeness to one that is kept is ``least`` or more; ``vectors`` [N, D] are of length 1.
    """
    found = np.arange(len(thumbnails))
    for at, others in enumerate(_candidates(vectors, hashes)):
        for other in others:
            if found[other] == other and likeness(thumbnails[other], thumbnails[at]) >= least:
                found[at] = other
                break
    return found


def likeness(a: Thumbnails, b: Thumbnails) -> float:
    """Of two clips' thumbnails [K, h, w], 1 for the same, 0 or less for strangers."""
    a, b = _unfilled(a, b)
    best = 0.0
    for turned in (b, b[..., ::-1]):
        for scale in SCALES:
            for one, crop in ((a, turned), (turned, a)) if scale < 1 else ((a, turned),):
                if _at_best(_mean(one), _mean(crop), scale)[0] >= FIRST_LOOK:
                    best = max(best, *(_shifted(one, crop, scale, shift) for shift in SHIFTS))
    return best


def _unfilled(*clips: Thumbnails) -> list[Thumbnails]:
    """Without the thumbnails that only repeat the last, in all of them: a short clip is filled up with these
    (`vpoet.data.curate.clip_measures.thumbnails`). Laid a few frames later, they stand beside frames that move."""
    longest = 1
    for clip in clips:
        changes = np.flatnonzero((clip[1:] != clip[:-1]).any((1, 2)))
        longest = max(longest, 2 + int(changes[-1]) if len(changes) else 1)
    return [clip[:longest] for clip in clips]


def _shifted(whole: Thumbnails, crop: Thumbnails, scale: float, shift: int) -> float:
    """The likeness of one way to lay two clips over each other, half of their time at least."""
    count = len(whole) - abs(shift)
    if 2 * count < len(whole):
        return 0.0
    x = whole[max(shift, 0) :][:count].transpose(1, 2, 0).astype(np.float32)
    y = crop[max(-shift, 0) :][:count].transpose(1, 2, 0).astype(np.float32)
    alike, (top, left), shrunk = _at_best(x, y, scale)
    h, w = shrunk.shape[:2]
    part = x[top : top + h, left : left + w]
    change, other = part - part.mean(2, keepdims=True), shrunk - shrunk.mean(2, keepdims=True)
    # what neither changes by more than noise agrees as well as it can
    noise = float(NOISE**2 * change.size)
    first, second = (float(np.square(each).sum()) + noise for each in (change, other))
    return min(alike, (float((change * other).sum()) + noise) / math.sqrt(first * second))


def _at_best(x_hwK: Floats, y_hwK: Floats, scale: float) -> tuple[float, tuple[int, int], Floats]:
    """Where y, shrunk by ``scale``, correlates best with x: how well, (top, left), and y as it was shrunk."""
    cv2 = opencv()
    if scale < 1:
        side = round(SIDE * scale)
        shrunk = np.stack(
            [cv2.resize(y_hwK[..., k], (side, side), interpolation=cv2.INTER_AREA) for k in range(y_hwK.shape[2])], -1
        )
    else:
        shrunk = y_hwK
    scores: Any = _correlations(x_hwK, shrunk)
    top, left = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[top, left]), (int(top), int(left)), shrunk


def _correlations(x_hwK: Floats, y_hwK: Floats) -> Floats:
    """Of y with each window of x, all channels together, each less its mean."""
    views: Floats = np.lib.stride_tricks.sliding_window_view(x_hwK, y_hwK.shape[:2], (0, 1))  # [H', W', K, h, w]
    windows = views - views.mean((-2, -1), keepdims=True)
    wanted = (y_hwK - y_hwK.mean((0, 1))).transpose(2, 0, 1)
    norms = np.sqrt(np.square(windows).sum((-3, -2, -1)) * np.square(wanted).sum())
    # a picture without any contrast is like every other such
    found: Floats = (np.einsum("abkhw,khw->ab", windows, wanted) + 1.0) / (norms + 1.0)
    return found


def _mean(clip: Thumbnails) -> Floats:
    picture: Floats = clip.mean(0, dtype=np.float32)[..., None]
    return picture


def _candidates(vectors: Floats | None, hashes: Sequence[Sequence[str]]) -> Iterator[list[int]]:
    """For each clip the ones before it that it may be a copy of, in order."""
    bits = _bits(hashes)
    near = vectors - vectors.mean(0) if vectors is not None else None
    if near is not None:
        near = near / np.maximum(np.linalg.norm(near, axis=1, keepdims=True), 1e-6)
    at_once = max(1, min(_ROWS, _SCORES // max(len(bits), 1)))
    for first in range(0, len(bits), at_once):
        rows = slice(first, first + at_once)
        if near is not None:
            wanted = near[rows] @ near.T >= NEAR
        else:
            # of any of one's frames to the same of the other
            wanted = np.zeros((len(bits[rows]), len(bits)), np.bool_)
            for k in range(bits.shape[1]):
                wanted |= (64 - bits[rows, k] @ bits[:, k].T) / 2 <= NEAR_BITS
        for at, row in enumerate(wanted, start=first):
            yield np.flatnonzero(row[:at]).tolist()


def _bits(hashes: Sequence[Sequence[str]]) -> Floats:
    """-1 and 1, [N, frames, 64]; a clip of fewer frames repeats its last."""
    longest = max(map(len, hashes), default=0)
    padded = [[*some, *[some[-1]] * (longest - len(some))] for some in hashes]
    words = np.array([[int(word, 16) for word in row] for row in padded], np.uint64).reshape(len(hashes), longest, 1)
    found: Floats = ((words >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).astype(np.float32) * 2 - 1
    return found
