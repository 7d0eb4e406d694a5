"""Which pairs of clips may be alike, many pairs at once: most that show one place before one camera are not.

What `vpoet.data.curate.duplicates.likeness` would say, and no less: the pictures may fit in one place, and the changes
in another. What is let through is laid over each other for itself.

Shapes: P pairs, K thumbnails, h = w = `SIDE`; V windows of s x s pixels, n = s^2.
"""

from collections.abc import Callable

import numpy as np

from vpoet.arrays import Doubles, Floats, Mask
from vpoet.data.curate.clip_measures import SIDE
from vpoet.data.curate.thumbnails import CROP, FIRST_LOOK, NOISE, ROUNDING, SHIFTS, Thumbnails, shown, windows_of
from vpoet.media.signals import opencv

_NUMBERS = 1 << 20
"""Of windows that lie in memory at once."""


def may_be_alike(one: Thumbnails, other: Thumbnails, ways_P3: Mask, least: float) -> Mask:
    """Of pairs of clips [P, K, h, w], those whose likeness may be ``least``.

    ``ways``: how they may lie over each other, one whole, the other's crop over it, or its crop over the other.
    """
    longest = np.maximum(shown(one), shown(other))
    found = np.zeros(len(one), np.bool_)
    shrinks = (_as_it_is, _shrunk, _shrunk)
    for count in np.unique(longest).tolist():
        for way, (whole, crop, shrink) in enumerate(zip((one, one, other), (other, other, one), shrinks, strict=True)):
            some = np.flatnonzero((longest == count) & ways_P3[:, way] & ~found)
            if len(some):
                found[some] = _may_lie_over(whole[some, :count], crop[some, :count], shrink, least)
    return found


def _may_lie_over(whole: Thumbnails, crop: Thumbnails, shrink: Callable[[Floats], Floats], least: float) -> Mask:
    means = whole.mean(1, dtype=np.float32), shrink(crop.mean(1, dtype=np.float32))
    size = means[1].shape[-1]
    many = max(1, _NUMBERS // ((whole.shape[1] + 1) * (SIDE - size + 1) ** 2 * size**2))
    found = np.zeros(len(whole), np.bool_)
    alike_P2 = _means_alike(*means) >= FIRST_LOOK - ROUNDING
    for turn, alike in zip((1, -1), alike_P2.T, strict=True):
        asked = np.flatnonzero(alike & ~found)
        for at in range(0, len(asked), many):
            some = asked[at : at + many]
            x, y = whole[some].astype(np.float32), shrink(crop[some].astype(np.float32))[..., ::turn]
            found[some] = _fit(x, y) >= least - ROUNDING
    return found


def _as_it_is(pictures: Floats) -> Floats:
    return pictures


def _shrunk(pictures: Floats) -> Floats:
    """`vpoet.data.curate.thumbnails.shrunk`, of any number of pictures [..., h, w]."""
    size = round(CROP * SIDE)
    down = opencv().resize(np.eye(SIDE, dtype=np.float32), (SIDE, size), interpolation=opencv().INTER_AREA)
    found: Floats = down @ pictures @ down.T
    return found


def _means_alike(whole_Phw: Floats, crop_Pss: Floats) -> Floats:
    """The correlation of mean pictures, of a crop as it is and mirrored to the window where it fits best, [P, 2]."""
    size = crop_Pss.shape[-1]
    crop = crop_Pss - crop_Pss.mean((1, 2), keepdims=True)  # and so the level of a window adds nothing to their product
    both_Pn2 = np.stack([crop, crop[..., ::-1]], -1).reshape(len(crop), -1, 2)
    products_PV2 = windows_of(whole_Phw, size).reshape(len(crop), -1, size * size) @ both_Pn2
    squares_PV = _boxes(np.square(whole_Phw), size) - np.square(_boxes(whole_Phw, size)) / size**2
    norms_PV = np.sqrt(np.maximum(squares_PV, 0) * np.square(crop).sum((1, 2))[:, None])
    best: Floats = ((products_PV2 + 1) / (norms_PV[..., None] + 1)).max(1)
    return best


def _fit(whole_PKhw: Floats, crop_PKss: Floats) -> Doubles:
    """How well a crop fits into any window at best, now or a little later, [P]: the smaller of two correlations, of the
    pictures and of their changes.

    Clips are taken apart into their mean picture and what differs from it: small numbers are not lost beside large
    ones, and the sums over any part of the time follow from the products of these.
    """
    size, count = crop_PKss.shape[-1], whole_PKhw.shape[1]
    x, y = (np.concatenate([mean, clip - mean], 1) for clip in (whole_PKhw, crop_PKss)
            for mean in [clip.mean(1, keepdims=True)])  # fmt: skip
    views = windows_of(x, size).reshape(len(x), count + 1, -1, size * size).swapaxes(1, 2)
    products = views.reshape(len(x), -1, size * size) @ y.reshape(len(y), count + 1, -1).swapaxes(1, 2)
    products_PVKK = products.reshape(len(x), -1, count + 1, count + 1).astype(np.float64)
    clips = [_Sums(whole_PKhw, x[:, 1:], size), _Sums(crop_PKss, y[:, 1:], size)]
    best = np.zeros(len(x))
    for shift in SHIFTS:
        part = count - abs(shift)
        if 2 * part < count:
            continue
        mine, others = (slice(max(way, 0), max(way, 0) + part) for way in (shift, -shift))
        levels = (clips[0].levels[:, mine] * clips[1].levels[:, others]).sum(1) * size**2
        inner = products_PVKK[:, :, 1:, 1:][:, :, mine, others]
        same = np.trace(inner, axis1=2, axis2=3)
        means = part * products_PVKK[:, :, 0, 0]
        means = means + products_PVKK[:, :, 1:, 0][:, :, mine].sum(2) + products_PVKK[:, :, 0, 1:][:, :, others].sum(2)
        pictures, changes = zip(
            *(clip.energies(way) for clip, way in zip(clips, (mine, others), strict=True)), strict=True
        )
        noise = NOISE**2 * part * size**2
        alike = (means + same - levels + 1) / (np.sqrt(pictures[0] * pictures[1]) + 1)
        moved = same - inner.sum((2, 3)) / part + noise
        moved = moved / np.sqrt((changes[0] + noise) * (changes[1] + noise))
        best = np.maximum(best, np.minimum(alike, moved).max(1))
    return best


class _Sums:
    """Over the windows of pictures [P, K, h, w], which are a clip, and of what differs from its mean picture."""

    def __init__(self, clip: Floats, apart: Floats, size: int) -> None:
        self._apart, self._size = apart.astype(np.float64), size
        self.levels = _boxes(clip, size) / size**2
        self._pictures = np.maximum(_boxes(np.square(clip), size) - np.square(self.levels) * size**2, 0)
        self._changes = _boxes(np.square(self._apart), size)

    def energies(self, way: slice) -> tuple[Doubles, Doubles]:
        """Over a part of the time, [P, V]: of the pictures less their level, and of the changes less their mean."""
        moved = _boxes(np.square(self._apart[:, way].sum(1)), self._size) / (way.stop - way.start)
        return self._pictures[:, way].sum(1), np.maximum(self._changes[:, way].sum(1) - moved, 0)


def _boxes(pictures: Floats | Doubles, size: int) -> Doubles:
    """The sum over every window, [..., V] of [..., h, w]."""
    if pictures.shape[-1] == size:
        whole: Doubles = pictures.sum((-2, -1), dtype=np.float64)[..., None]
        return whole
    to = np.zeros((*pictures.shape[:-2], pictures.shape[-2] + 1, pictures.shape[-1] + 1))
    to[..., 1:, 1:] = pictures.cumsum(-2, dtype=np.float64).cumsum(-1)
    down = to[..., size:, :] - to[..., :-size, :]
    found: Doubles = (down[..., size:] - down[..., :-size]).reshape(*pictures.shape[:-2], -1)
    return found
