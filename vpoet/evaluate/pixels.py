"""How close a reconstruction is to its original, pixel by pixel: PSNR, SSIM and flicker.

All take clips uint8 [T, H, W, 3] (full range 0 to 255, RGB), score each frame (flicker: each pair of neighbours), and
return the mean over frames; the mean over clips is the caller's. Scores are comparable only at equal size, frame rate
and clip length: state them.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.errors import ShapeError

PEAK = 255.0
EQUAL = 100.0
"""PSNR in dB of a frame that is equal to the original, in place of infinity."""

WINDOW = 11
SIGMA = 1.5


def psnr(a: Frames, b: Frames) -> float:
    """Peak signal-to-noise ratio in dB, 10*log10(255^2 / mean squared error), the error over all three channels."""
    _check(a, b)
    errors = np.square(a.astype(np.float64) - b).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return float(np.minimum(EQUAL, 10 * np.log10(PEAK**2 / errors)).mean())


def ssim(a: Frames, b: Frames) -> float:
    """Structural similarity (Wang et al., 2004), at most 1.

    As in the paper: Gaussian window of 11x11, sigma 1.5, K1 = 0.01, K2 = 0.03, only windows that lie whole in the
    frame; on each of R, G and B, then the mean. ShapeError for frames of fewer than 11 pixels a side.
    """
    _check(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise ShapeError(f"SSIM needs frames of {WINDOW}x{WINDOW} pixels or more, not {a.shape[1]}x{a.shape[2]}")
    # Frame by frame: what a frame needs stays in the processor's cache.
    return float(np.mean([_ssim(x, y) for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True)]))


def flicker(original: Frames, drawn: Frames) -> float:
    """What moves in a reconstruction and not in its original, or the reverse: 0 where it is perfect, in steps of uint8.

    The mean over pixels and channels, then over the T - 1 pairs of neighbouring frames, of
    |(drawn[t + 1] - drawn[t]) - (original[t + 1] - original[t])|. An error that stays in its place counts nothing;
    noise of standard deviation s, drawn anew for each frame, counts 2 s / sqrt(pi). ShapeError for a single frame.
    """
    _check(original, drawn)
    if len(original) < 2:
        raise ShapeError("a single frame cannot flicker: give two or more")
    error = drawn.astype(np.int16) - original
    return float(np.abs(np.diff(error, axis=0)).mean())


def unsteadiness(frames: Frames) -> float:
    """The flicker of a clip by itself: |x[t - 1] - 2 x[t] + x[t + 1]|, the mean over pixels and frames, steps of uint8.

    0 where every pixel changes evenly, as in a fade; a pixel that is brighter by s in every other frame counts 2 s, and
    noise of standard deviation s, drawn anew for each frame, sqrt(12 / pi) s. Motion counts too, wherever an edge
    passes, so that it says something beside that of real clips alone. NaN of fewer than three frames.
    """
    if len(frames) < 3:
        return math.nan
    return float(np.abs(np.diff(frames.astype(np.int16), n=2, axis=0)).mean())


def _ssim(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """SSIM of a frame [H, W, 3]."""
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return float(similarity.mean())


def _blur(x: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    """Gaussian window over height and width, without padding."""
    weights = np.exp(-0.5 * np.square((np.arange(WINDOW) - WINDOW // 2) / SIGMA))
    weights /= weights.sum()
    for axis in (0, 1):
        count = x.shape[axis] - WINDOW + 1
        moved = x.swapaxes(0, axis)
        x = sum(weight * moved[k : k + count] for k, weight in enumerate(weights)).swapaxes(0, axis)
    return x


def _check(a: Frames, b: Frames) -> None:
    for frames in (a, b):
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not frames.size:
            raise ShapeError(f"frames are uint8 [T, H, W, 3] and not empty, not {frames.dtype} {list(frames.shape)}")
    if a.shape != b.shape:
        raise ShapeError(f"two clips of different sizes have no score: {list(a.shape)} and {list(b.shape)}")
