"""What the pixels of a clip say about it: how it moves, how sharp and how bright it is, whether it is cut or barred.

Plain functions of frames, by OpenCV (extra ``curate``). Pictures are taken at `HEIGHT` pixels of height, so that
clips of different sizes can be compared; what moves is told in percent of the picture's height per second.

Shapes: T frames, h and w sides of a picture at `HEIGHT`; flow [T - 1, h, w, 2] in its pixels a step, x before y.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Doubles, Floats, Frames, Mask
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
_ROUNDS = 6


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
    cv2 = opencv()
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setVariationalRefinementIterations(0)
    flow = np.zeros((max(len(pictures) - 1, 0), *pictures.shape[1:], 2), np.float32)
    before: Any = None
    for step, found in enumerate(flow):
        a, b = pictures[step], pictures[step + 1]
        found[:] = search.calc(a, b, before)
        before = found * (difference(a, b) > CHANGED)[..., None]
    return flow


def camera_flow(flow_hw2: Floats, seen_hw: Mask) -> Floats:
    """The motion of the picture as a whole [h, w, 2], fitted to the pixels where flow can be ``seen``: pan, zoom, roll.

    No shear: with it, ground that stands still and somebody who walks on it are one affine motion. Least squares,
    weighted again ``_ROUNDS`` times by Geman and McClure's function: what moves against most of the picture ends up
    without a weight. Zeros if hardly anything is seen.
    """
    h, w = seen_hw.shape
    if seen_hw.sum() < 64:
        return np.zeros_like(flow_hw2)
    y, x = np.mgrid[:h, :w] / h - np.array([0.5, w / h / 2])[:, None, None]
    x_N, y_N = x[seen_hw][::2], y[seen_hw][::2]
    u_N, v_N = flow_hw2[seen_hw][::2].astype(np.float64).T.copy()
    square_N, zoom_N, roll_N = x_N * x_N + y_N * y_N, x_N * u_N + y_N * v_N, x_N * v_N - y_N * u_N
    weights, across, down, zoom, roll = np.ones(len(x_N)), 0.0, 0.0, 0.0, 0.0
    for _ in range(_ROUNDS):
        # The normal equations, written out: of most of their terms the sums are the same.
        count, sum_x, sum_y, squares = weights.sum(), weights @ x_N, weights @ y_N, weights @ square_N
        left = np.array(
            [
                [count, 0, sum_x, -sum_y],
                [0, count, sum_y, sum_x],
                [sum_x, sum_y, squares, 0],
                [-sum_y, sum_x, 0, squares],
            ]
        )
        right = np.array([weights @ u_N, weights @ v_N, weights @ zoom_N, weights @ roll_N])
        across, down, zoom, roll = np.linalg.solve(left + 1e-6 * np.eye(4), right).tolist()
        off = np.square(u_N - (across + zoom * x_N - roll * y_N)) + np.square(v_N - (down + zoom * y_N + roll * x_N))
        scale = max(float(np.median(off)), 0.02)
        weights = np.square(scale / (scale + off))
    return np.stack([across + zoom * x - roll * y, down + zoom * y + roll * x], -1).astype(np.float32)


def motion(pictures: Greys, fps: float) -> Motion:
    """How a clip moves, from `greys` and its frames per second; zeros for a single picture.

    What differs from the picture before, once the camera's motion is undone, is the outline of `things`, which move by
    their own flow. All the rest moves with the camera: a plain wall shows no flow and is taken along.
    """
    cv2 = opencv()
    flow = optical_flow(pictures)
    h, w = pictures.shape[1:]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    sums = np.zeros(3)
    for a, b, flow_hw2 in zip(pictures, pictures[1:], flow, strict=False):
        still = difference(a, b)
        if still.max() <= CHANGED:
            continue
        seen = _textured(a)
        camera = camera_flow(flow_hw2, seen)
        moved = cv2.remap(b, x + camera[..., 0], y + camera[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left = difference(a, moved)
        if not _moves(seen, still, left):
            camera, left = np.zeros_like(flow_hw2), still
        own = things(flow_hw2 - camera, left)
        parts = (camera + own, camera, own)
        sums += [float(np.linalg.norm(part, axis=-1).mean()) for part in parts]
    steps = max(len(flow), 1)
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
    nearby = cv2.dilate(change_hw, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))
    changed = change_hw > np.maximum(OUTLINE, FAINT * nearby)
    shape = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDE, WIDE))
    whole = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, shape)
    count, label_hw, boxes, _ = cv2.connectedComponentsWithStats(whole)
    found = np.zeros_like(flow_hw2)
    for thing in range(1, count):
        left, top, width, height, area = boxes[thing].tolist()
        if area < SMALLEST:
            continue
        box = np.s_[top : top + height, left : left + width]
        mine = label_hw[box] == thing
        ways_N2 = flow_hw2[box][mine & changed[box]]
        lengths = np.linalg.norm(ways_N2, axis=1)
        found[box][mine] = np.median(ways_N2[lengths >= np.median(lengths)], axis=0)
    h, w = change_hw.shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    there = x + found[..., 0], y + found[..., 1]
    stays = cv2.remap(whole.astype(np.float32), *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) > 0.5
    moving: Floats = found * stays[..., None]
    return moving


def sharpness(pictures: Greys) -> float:
    """Variance of the Laplacian, the mean over pictures: 10 is blurred, 100 and more is sharp (Pech-Pacheco, 2000)."""
    cv2 = opencv()
    return float(np.mean([cv2.Laplacian(picture, cv2.CV_64F).var() for picture in pictures]))


def brightness(pictures: Greys) -> float:
    """Mean grey, 0 to 1."""
    return float(pictures.mean() / 255)


def contrast(pictures: Greys) -> float:
    """Standard deviation of grey within a picture, the mean over pictures: 0 to 0.5."""
    return float(np.mean([picture.std() for picture in pictures]) / 255)


def letterbox(pictures: Greys) -> float:
    """Share of the picture that is black bars at its edges throughout the clip: above, below, left and right."""
    peak, low = pictures.max(0).astype(np.float64), pictures.min(0).astype(np.float64)

    def bars(lines_N: Doubles, spread_N: Doubles) -> int:
        """Lines from the first on that are dark and even."""
        dark = (lines_N < DARK) & (spread_N < FLAT)
        return int(len(dark) if dark.all() else np.argmin(dark))

    kept = 1.0
    for axis in (1, 0):
        level, spread = np.percentile(peak, 95, axis=axis), np.percentile(peak - low, 95, axis=axis)
        size = len(level)
        cut = bars(level, spread) + bars(level[::-1], spread[::-1])
        kept *= max(size - cut, 0) / size
    return 1 - kept


def cuts(frames: Frames) -> int:
    """Cuts left inside a clip: steps that change the whole picture for good, unlike all steps around them.

    A flash does not: the picture after it is the one before it, moved on at most. Nor does what moves fast before a
    ground that stays. Black that stays black, as bars are, tells nothing.
    """
    cv2 = opencv()
    small = np.stack([cv2.resize(frame, (32, 32), interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.float32)
    if len(small) < 2:
        return 0
    change = np.abs(np.diff(small, axis=0)).mean(3)
    step = change.mean((1, 2))
    last = len(small) - 1
    lasting = [np.abs(small[min(i + 2, last)] - small[max(i - 1, 0)]).mean() for i in range(last)]
    least = max(
        CUT, STANDS_OUT * max(float(np.median(step)), 1.0)
    )  # between those that lasting compares lie three steps
    lit = np.maximum(small[:-1], small[1:]).max(3) >= DARK
    stays = ((change < BY) & lit).sum((1, 2)) / np.maximum(lit.sum((1, 2)), 1)
    others = np.array([np.delete(step, i).max(initial=0.0) for i in range(last)])
    return int(((step > least) & (np.array(lasting) > least) & ((stays < STAYS) | (step > ALONE * others))).sum())


def _moves(seen_hw: Mask, still_hw: Floats, left_hw: Floats) -> bool:
    """Whether the camera moves: how much changes, ``still`` without its motion and ``left`` with it."""
    rows, columns = (np.array_split(np.arange(side), GRID) for side in seen_hw.shape)
    better = worse = 0
    for down, across in product(range(GRID), repeat=2):
        if {down, across}.isdisjoint((0, GRID - 1)):
            continue
        part = np.ix_(rows[down], columns[across])
        seen = seen_hw[part]
        told = seen if seen.mean() >= LOOKED_AT else np.ones_like(seen)
        still, left = still_hw[part][told].sum(), left_hw[part][told].sum()
        better += bool(told is seen and left < EXPLAINED * still)
        worse += bool(left > still)  # of a road, its grain stands still; a wall of one colour tells nothing
    return better >= PARTS and better > 2 * worse


def difference(a: Greys, b: Greys) -> Floats:
    """Of two pictures, smoothed over a pixel."""
    cv2 = opencv()
    made: Floats = cv2.GaussianBlur(cv2.absdiff(a, b).astype(np.float32), (0, 0), 1.0)
    return made


def _textured(picture: Greys) -> Mask:
    """Where something can be seen to move."""
    cv2 = opencv()
    smooth = cv2.GaussianBlur(picture, (0, 0), 1.5).astype(np.float32)
    slope = np.abs(cv2.Sobel(smooth, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    return np.asarray(cv2.dilate((slope > 16).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
