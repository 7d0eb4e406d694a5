"""Copies among clips: the same recording cut a few frames later, cropped, mirrored, or compressed again.

Candidates are pairs whose embeddings, or perceptual hashes, are near. A pair is then laid over each other, by their
thumbnails: one of the two as it is or mirrored, whole or as the other's crop, at whatever place and a few frames
earlier or later. Its `likeness` is the smaller of two correlations there: that of the pictures, and that of how they
change. Two clips of one camera that stands still agree in the first alone.

Shapes: N clips, K thumbnails of `SIDE` pixels, V windows, n pixels of one, D of an embedding.
"""

import math
from collections.abc import Sequence

import numpy as np

from vpoet.arrays import Doubles, Floats, Longs
from vpoet.data.curate.near import Rows, pairs
from vpoet.data.curate.thumbnails import FIRST_LOOK, NOISE, SHIFTS, Thumbnails, shown, shrunk, windows_of


def originals(
    thumbnails: Thumbnails | Rows, vectors: Floats | Rows | None, hashes: Sequence[Sequence[str]], least: float
) -> Longs:
    """Of clips in order of preference: for each the clip that it is a copy of, itself if it is to be kept.

    A clip is a copy if its likeness to one that is kept is ``least`` or more, and they are near, by ``vectors`` [N, D]
    or, where there are none, by ``hashes`` (`vpoet.data.curate.near`).
    """
    found = np.arange(len(thumbnails))
    for at, others in enumerate(pairs(thumbnails, vectors, hashes, found, least)):
        for other in others:
            if found[other] == other and likeness(thumbnails[other], thumbnails[at]) >= least:
                found[at] = other
                break
    return found


def likeness(a: Thumbnails, b: Thumbnails) -> float:
    """Of two clips' thumbnails [K, h, w], 1 for the same, 0 or less for strangers."""
    longest = max(shown(np.stack([a, b])).tolist())
    x, y = (clip[:longest].astype(np.float32) for clip in (a, b))
    return max(0.0, *(_laid_over(whole, crop) for whole, crop in ((x, y), (x, shrunk(y)), (y, shrunk(x)))))


def _laid_over(whole_Khw: Floats, crop_Kss: Floats) -> float:
    """The likeness of a clip and a crop, as it is or mirrored, which may lie anywhere and begin a little later; 0 where
    their mean pictures are not alike."""
    size = crop_Kss.shape[1]
    crops_2Kn = np.stack([crop_Kss, crop_Kss[..., ::-1]]).reshape(2, len(crop_Kss), -1)
    means_Vn = windows_of(whole_Khw.mean(0), size).reshape(-1, size * size)
    first = [_correlation(means_Vn, crop_Kn.mean(0)) for crop_Kn in crops_2Kn]
    alike = [crop_Kn for crop_Kn, found in zip(crops_2Kn, first, strict=True) if found.max() >= FIRST_LOOK]
    if not alike:
        return 0.0
    whole = whole_Khw - whole_Khw.mean()
    windows_VKn = windows_of(whole, size).reshape(len(whole), -1, size * size).transpose(1, 0, 2)
    squares_VK = _energies(whole.astype(np.float64), size).reshape(len(whole), -1).T
    return max(_best(windows_VKn, squares_VK, crop_Kn) for crop_Kn in alike)


def _best(windows_VKn: Floats, squares_VK: Doubles, crop_Kn: Floats) -> float:
    """The likeness of a crop to the window where it fits best, begun earlier or later; half of the time at least."""
    crop = crop_Kn - crop_Kn.mean(-1, keepdims=True)  # and so the mean of a window adds nothing to their product
    products_VKK = windows_VKn @ crop.T  # of all pairs of frames: a shift is a diagonal
    squares_K = np.square(crop).sum(-1)
    best = 0.0
    for shift in SHIFTS:
        count = len(crop) - abs(shift)
        if 2 * count < len(crop):
            continue
        mine, others = (slice(max(way, 0), max(way, 0) + count) for way in (shift, -shift))
        norms_V = np.sqrt(squares_VK[:, mine].sum(1) * squares_K[others].sum())
        # a picture without any contrast is like every other such
        found_V = (np.trace(products_VKK, -shift, 1, 2) + 1.0) / (norms_V + 1.0)
        at = int(found_V.argmax())
        best = max(best, min(float(found_V[at]), _changes_alike(windows_VKn[at, mine], crop_Kn[others])))
    return best


def _changes_alike(one_Kn: Floats, other_Kn: Floats) -> float:
    """The correlation of how two clips change; what neither changes by more than noise agrees as well as it can."""
    one, other = one_Kn - one_Kn.mean(0), other_Kn - other_Kn.mean(0)
    noise = float(NOISE**2 * one.size)
    first, second = (float(np.square(each).sum()) + noise for each in (one, other))
    return (float((one * other).sum()) + noise) / math.sqrt(first * second)


def _correlation(windows_Vn: Floats, crop_n: Floats) -> Floats:
    windows, crop = (pixels - pixels.mean(-1, keepdims=True) for pixels in (windows_Vn, crop_n))
    norms = np.sqrt(np.square(windows).sum(-1) * np.square(crop).sum())
    found: Floats = (windows @ crop + 1.0) / (norms + 1.0)
    return found


def _energies(pictures: Doubles, size: int) -> Doubles:
    """Of all square windows, the sum of squares less their mean: [..., h, w] to [..., H', W']."""

    def summed(values: Doubles) -> Doubles:
        to = np.zeros((*values.shape[:-2], values.shape[-2] + 1, values.shape[-1] + 1))
        to[..., 1:, 1:] = values.cumsum(-2).cumsum(-1)
        down: Doubles = to[..., size:, :] - to[..., :-size, :]
        return down[..., size:] - down[..., :-size]

    found: Doubles = np.maximum(summed(np.square(pictures)) - np.square(summed(pictures)) / size**2, 0)
    return found
