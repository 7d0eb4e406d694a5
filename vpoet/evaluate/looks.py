"""How clips look, in measures that need no network: what a person would say differs, if two sets differ.

brightness    mean of the pixels, of 255
contrast      deviation of the pixels of a frame, of 255
saturation    mean of the difference between a pixel's largest and smallest channel, of 255
sharpness     mean absolute difference of neighbouring pixels, of 255
motion        mean absolute difference of successive frames, of 255; 0 of a single frame
"""

import numpy as np

from vpoet.arrays import Frames


def looks(frames: Frames) -> dict[str, float]:
    """Of a clip uint8 [T, H, W, 3], by name."""
    pixels = frames.astype(np.float32)
    beside = [np.abs(np.diff(pixels, axis=axis)).mean() for axis in (1, 2)]
    return {
        "brightness": float(pixels.mean()),
        "contrast": float(pixels.std(axis=(1, 2)).mean()),
        "saturation": float(np.ptp(pixels, axis=3).mean()),
        "sharpness": float(np.mean(beside)),
        "motion": float(np.abs(np.diff(pixels, axis=0)).mean()) if len(pixels) > 1 else 0.0,
    }
