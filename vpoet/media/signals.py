"""What the pixels of a clip say about it: how it moves, how sharp and how bright it is, whether it is cut or barred.

Plain functions of frames, by OpenCV (extra ``curate``). Pictures are taken at `HEIGHT` pixels of height, so that
clips of different sizes can be compared; what moves is told in percent of the picture's height per second.

Shapes: T frames, h and w sides of a picture at `HEIGHT`; flow [T - 1, h, w, 2] in its pixels a step, x before y.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Floats, Frames, Mask
from vpoet.errors import BackendError

Greys = npt.NDArray[np.uint8]
"""Pictures [T, h, w]."""
HEIGHT = 128
"""Pixels of the pictures that are looked at."""
CHANGED = 2.0
"""Grey levels, of 255, by which what moved differs from what was there: less is noise of the codec."""
OUTLINE = 5.0
"""Grey levels by which the outline of a thing that moves differs: more, as a picture that is laid over another after a
motion of the camera never fits quite."""
FAINT = 0.15
"""Of the largest change within `REACH` pixels: what changes less is no part of a thing, but its blurred edge."""
REACH = 4
WIDE = 15
"""Pixels of plain surface inside a thing, at most, which look the same wherever it moves."""
SMALLEST = 12
"""Pixels of a thing at least."""
GRID, LOOKED_AT, EXPLAINED, PARTS = 4, 0.03, 0.8, 6
"""Whether the camera moves is asked in the parts of a 4x4 grid that lie at the edges of the picture, where the
background is seen. It does in a part if its motion leaves less than this share of the change there, and something can
be seen in 3% of it at least. It has to in so many parts, and in twice as many as where it makes things worse: else
there was no motion of the camera, and it was one large thing that moved."""
CUT, STANDS_OUT = 20.0, 3.0
"""A step is a cut if the picture changes by so many levels on average, and by so many times its other steps."""
STAYS, BY, ALONE = 0.3, 10.0, 2.5
"""An arm that sweeps through the picture leaves what is behind it: where this share of the pixels changes by less than
so many levels, a step is a cut only if it is so many times the largest other one."""
DARK, FLAT = 24.0, 6.0
"""Levels: bars are darker than the first, and vary less than the second."""
_ROUNDS, _FITTED, _SETTLED = 6, 1024, 1e-3
"""The last in pixels."""
_NO_WAY = 1 / 64
"""Pixels: OpenCV's interpolation rounds to 1/32 of one."""


class Motion(NamedTuple):
    """In percent of the picture's height per second, averaged over the picture and all steps in time."""

    whole: float
    """Of all that is seen."""
    camera: float
    """Of the picture as a whole: pan, zoom and roll."""
    object: float
    """Of what moves against that."""


def opencv() -> Any:
    """OpenCV, with no threads of its own. BackendError: it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise BackendError(f'looking at pixels needs OpenCV ({error}): pip install "vpoet[curate]"') from None
    cv2.setNumThreads(1)  # clips are shared out to processes, and a sum has one order
    return cv2


def greys(frames: Frames) -> Greys:
    """Frames uint8 [T, H, W, 3] as grey pictures of `HEIGHT`, with their aspect kept."""
    cv2 = opencv()
    width = max(16, round(HEIGHT * frames.shape[2] / frames.shape[1]))
    way = cv2.INTER_AREA if frames.shape[1] > HEIGHT else cv2.INTER_LINEAR
    made = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (width, HEIGHT), interpolation=way) for frame in frames]
    return np.stack(made)


def optical_flow(pictures: Greys) -> Floats:
    """Where each pixel goes from a picture to the next: dense inverse search (Kroeger et al., ECCV 2016), each step
    begun from the one before it, as what moves goes on moving; without that, leaps and falls are lost. Where nothing
    changes it is not begun, as that has not moved, whatever moves beside it."""
    steps = [flow for _, _, _, flow in _steps(pictures)]
    return np.stack(steps) if steps else np.zeros((0, *pictures.shape[1:], 2), np.float32)


def _steps(pictures: Greys) -> Iterator[tuple[Greys, Greys, Floats, Floats]]:
    """Of each step the two pictures, their `difference`, and the flow; no flow where nothing changes at all."""
    cv2 = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setVariationalRefinementIterations(0)
    nowhere = np.zeros((*pictures.shape[1:], 2), np.float32)
    before: Any = None
    for a, b in pairwise(pictures):
        change = difference(a, b)
        if change.max() <= CHANGED:
            before = nowhere
            yield a, b, change, nowhere
            continue
        flow = search.calc(a, b, before)
        yield a, b, change, flow
        before = flow * (change > CHANGED)[..., None]


def camera_flow(flow_hw2: Floats, seen_hw: Mask) -> Floats:
    """The motion of the picture as a whole [h, w, 2], fitted to pixels where flow can be ``seen``: pan, zoom, roll.

    No shear: with it, ground that stands still and somebody who walks on it are one affine motion. Least squares of
    about ``_FITTED`` pixels, weighted again ``_ROUNDS`` times by Geman and McClure's function: what moves against most
    of the picture ends up without a weight. Zeros if hardly anything is seen.
    """
    seen = np.flatnonzero(seen_hw)
    if len(seen) < 64:
        return np.zeros_like(flow_hw2)
    # A place and a way are a complex number each: of a pan, a zoom and a roll, a way is pan + turn * place.
    place_hw = _place(*seen_hw.shape)
    some = seen[:: max(1, len(seen) // _FITTED) | 1]  # every odd one, which runs along no column
    place_N = place_hw.ravel()[some]
    way_N = np.ascontiguousarray(flow_hw2).view(np.complex64).ravel()[some].astype(np.complex128)
    terms_5N = np.stack([np.ones_like(place_N), place_N, way_N, np.abs(place_N) ** 2, place_N.conj() * way_N])
    weight_N = np.ones(len(some))
    pan = turn = 0j
    for _ in range(_ROUNDS):
        weight, place, way, square, product = (terms_5N @ weight_N).tolist()
        place, way = place / weight, way / weight
        before, turn = turn, (product / weight - place.conjugate() * way) / (square / weight - abs(place) ** 2 + 1e-6)
        pan, moved = way - turn * place, abs(way - turn * place - pan)
        if moved + abs(turn - before) < _SETTLED:
            break
        rest_N = way_N - (pan + turn * place_N)
        off_N = np.square(rest_N.real) + np.square(rest_N.imag)
        scale = max(_median(off_N), 0.02)
        weight_N = np.square(scale / (scale + off_N))
    whole: Floats = (pan + turn * place_hw).astype(np.complex64).view(np.float32).reshape(flow_hw2.shape)
    return whole


def motion(pictures: Greys, fps: float) -> Motion:
    """How a clip moves, from `greys` and its frames per second; zeros for a single picture.

    What differs from the picture before, once the camera's motion is undone, is the outline of `things`, which move by
    their own flow. All the rest moves with the camera: a plain wall shows no flow and is taken along.
    """
    cv2 = opencv()
    h, w = pictures.shape[1:]
    x, y = _places(h, w)
    sums = np.zeros(3)
    for a, b, still, flow_hw2 in _steps(pictures):
        if still.max() <= CHANGED:
            continue
        seen = _textured(a)
        camera = camera_flow(flow_hw2, seen)
        if np.abs(camera[:: h - 1, :: w - 1]).max() >= _NO_WAY:
            there = x + camera[..., 0], y + camera[..., 1]
            left = difference(a, cv2.remap(b, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            if _moves(seen, still, left):
                own = things(flow_hw2 - camera, left)
                sums += [_mean_length(part) for part in (camera + own, camera, own)]
                continue
        alone = _mean_length(things(flow_hw2, still))
        sums += [alone, 0, alone]
    steps = max(len(pictures) - 1, 1)
    return Motion(*(float(value) for value in sums / steps / h * 100 * fps))


def things(flow_hw2: Floats, change_hw: Floats) -> Floats:
    """The motion [h, w, 2] of what moves against the camera, zero where nothing does, from its flow and from how much
    the picture changes.

    Of a thing that moves, its outline changes, and its inside where that is not plain; what was behind it changes, too.
    So changes near each other are one thing, its plain inside with them. All of it moves as the faster half of its
    changes does: flow is lost in what is covered and uncovered. Only those of its pixels are the thing that move to
    where the thing is after the step; the others are what it covers.
    """
    cv2 = opencv()
    h, w = change_hw.shape
    moving: Floats = np.zeros_like(flow_hw2)
    left, top, width, height = cv2.boundingRect((change_hw > OUTLINE).view(np.uint8))
    if not width:
        return moving
    # Nothing farther from a change than this belongs to a thing.
    around = np.s_[max(top - WIDE, 0) : top + height + WIDE, max(left - WIDE, 0) : left + width + WIDE]
    nearby = cv2.dilate(change_hw[around], np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    changed = change_hw[around] > np.maximum(OUTLINE, FAINT * nearby)
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDE, WIDE))
    whole = np.zeros((h, w), np.uint8)
    whole[around] = cv2.morphologyEx(changed.view(np.uint8), cv2.MORPH_CLOSE, shape)
    _, label_hw, boxes, _ = cv2.connectedComponentsWithStats(whole[around])
    flow_hw2, found = flow_hw2[around], moving[around]
    for thing, (left, top, width, height, area) in enumerate(boxes.tolist()):
        if not thing or area < SMALLEST:
            continue
        box = np.s_[top : top + height, left : left + width]
        mine = label_hw[box] == thing
        ways_N2 = flow_hw2[box][mine & changed[box]]
        if not len(ways_N2):  # enclosed by changes of others
            continue
        lengths = np.hypot(*ways_N2.T)
        found[box][mine] = [_median(way) for way in ways_N2[lengths >= _median(lengths)].T]
    x, y = _places(h, w)
    there = x[around] + found[..., 0], y[around] + found[..., 1]
    stays = cv2.remap(whole.astype(np.float32), *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) > 0.5
    found *= stays[..., None]
    return moving


def sharpness(pictures: Greys) -> float:
    """Variance of the Laplacian, the mean over pictures: 10 is blurred, 100 and more is sharp (Pech-Pacheco, 2000)."""
    cv2 = opencv()
    return float(np.mean([_spread(cv2.Laplacian(picture, cv2.CV_16S)) ** 2 for picture in pictures]))


def brightness(pictures: Greys) -> float:
    """Mean grey, 0 to 1."""
    return float(pictures.mean() / 255)


def contrast(pictures: Greys) -> float:
    """Standard deviation of grey within a picture, the mean over pictures: 0 to 0.5."""
    return float(np.mean([_spread(picture) for picture in pictures]) / 255)


def letterbox(pictures: Greys) -> float:
    """Share of the picture that is black bars at its edges throughout the clip: above, below, left and right."""
    peak, low = pictures.max(0), pictures.min(0)
    spread = peak - low

    def bars(order: slice) -> int:
        """Lines from the first on that are dark and even."""
        lines = zip(peak[order], spread[order], strict=True)
        return sum(1 for _ in takewhile(lambda line: _most(line[0]) < DARK and _most(line[1]) < FLAT, lines))

    kept = 1.0
    for _ in ("above and below", "left and right"):
        size = len(peak)
        kept *= max(size - bars(np.s_[:]) - bars(np.s_[::-1]), 0) / size
        peak, spread = peak.T, spread.T
    return 1 - kept


def cuts(frames: Frames) -> int:
    """Cuts left inside a clip: steps that change the whole picture for good, unlike all steps around them.

    A flash does not: the picture after it is the one before it, moved on at most. Nor does what moves fast before a
    ground that stays. Black that stays black, as bars are, tells nothing.
    """
    cv2 = opencv()
    small = np.stack([cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float32)
    last = len(small) - 1
    if not last:
        return 0
    change = np.abs(np.diff(small, axis=0))
    change = (change[..., 0] + change[..., 1] + change[..., 2]) / 3
    step = change.mean((1, 2))
    at = np.arange(last)
    # Between those that this compares lie three steps.
    lasting = np.abs(small[np.minimum(at + 2, last)] - small[np.maximum(at - 1, 0)]).reshape(last, -1).mean(1)
    least = max(CUT, STANDS_OUT * max(float(np.median(step)), 1.0))
    brighter = np.maximum(small[:-1], small[1:])
    lit = np.maximum(np.maximum(brighter[..., 0], brighter[..., 1]), brighter[..., 2]) >= DARK
    stays = ((change < BY) & lit).sum((1, 2)) / np.maximum(lit.sum((1, 2)), 1)
    second, largest = np.sort(np.append(step, 0.0))[-2:]
    others = np.where(at == step.argmax(), second, largest)
    return int(((step > least) & (lasting > least) & ((stays < STAYS) | (step > ALONE * others))).sum())


def _moves(seen_hw: Mask, still_hw: Floats, left_hw: Floats) -> bool:
    """Whether the camera moves: how much changes, ``still`` without its motion and ``left`` with it."""
    down, across = (_parts(side) for side in seen_hw.shape)
    shown_hw = seen_hw.astype(np.float32)
    maps = (shown_hw, still_hw, left_hw, still_hw * shown_hw, left_hw * shown_hw)
    seen, still, left, still_seen, left_seen = (down @ each @ across.T for each in maps)
    told = seen >= LOOKED_AT * np.outer(down.sum(1), across.sum(1))
    better = told & (left_seen < EXPLAINED * still_seen)
    worse = np.where(told, left_seen > still_seen, left > still)  # of a road, its grain stands still; a wall of one
    better[1:-1, 1:-1] = worse[1:-1, 1:-1] = False  # colour tells nothing
    return bool(better.sum() >= PARTS and better.sum() > 2 * worse.sum())


@lru_cache(8)
def _parts(side: int) -> Floats:
    """Which pixels of a side lie in which part of the grid: ones and zeros [`GRID`, side]."""
    parts = np.zeros((GRID, side), np.float32)
    for part, pixels in zip(parts, np.array_split(np.arange(side), GRID), strict=True):
        part[pixels] = 1
    return parts


@lru_cache(8)
def _place(height: int, width: int) -> npt.NDArray[np.complex128]:
    """Where each pixel lies from the middle of the picture, in its heights: x + iy, [h, w]."""
    x, y = _places(height, width)
    return ((x / height - width / height / 2) + 1j * (y / height - 0.5)).astype(np.complex128)


@lru_cache(8)
def _places(height: int, width: int) -> tuple[Floats, Floats]:
    """x and y of each pixel [h, w]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return x, y


def _spread(picture: npt.NDArray[Any]) -> float:
    """Standard deviation."""
    return float(opencv().meanStdDev(picture)[1].item())


def _most(line_N: Greys) -> float:
    """What 95% of it are at most."""
    return float(np.interp(0.95 * (len(line_N) - 1), np.arange(len(line_N)), np.sort(line_N)))


def _mean_length(ways_hw2: Floats) -> float:
    return float(np.sqrt(np.square(ways_hw2[..., 0]) + np.square(ways_hw2[..., 1])).mean())


def _median(values_N: npt.NDArray[np.floating[Any]]) -> float:
    """As numpy's, without what that costs for a few values."""
    ordered = np.sort(values_N)
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def difference(a: Greys, b: Greys) -> Floats:
    """Of two pictures, smoothed over a pixel."""
    cv2 = opencv()
    made: Floats = cv2.GaussianBlur(cv2.absdiff(a, b).astype(np.float32), (0, 0), 1.0)
    return made


def _textured(picture: Greys) -> Mask:
    """Where something can be seen to move."""
    cv2 = opencv()
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.5)
    slope = np.abs(cv2.Sobel(smooth, cv2.CV_16S, 1, 0)) + np.abs(cv2.Sobel(smooth, cv2.CV_16S, 0, 1))
    return np.asarray(cv2.dilate((slope > 16).view(np.uint8), np.ones((5, 5), np.uint8)) > 0)
