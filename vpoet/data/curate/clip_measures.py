"""What is measured of one clip: its numbers, its perceptual hashes, and thumbnails by which copies are found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vpoet.arrays import Frames
from vpoet.media import signals
from vpoet.media.codec_vectors import Vectors
from vpoet.media.video import Video

Numbers = dict[str, Any]
THUMBNAILS, SIDE = 24, 24
"""Of a clip at most, and their pixels each way."""
SMOOTH = 1.0
"""Pixels."""
HASHED = 4
"""Frames of a clip that get a perceptual hash, and that networks judge."""
_HASH_SIDE = 32
PIXELS, LOOKS = "pixels 4", "hashes 1"
"""What the two functions below measure; another number when they measure something else."""


def pixels(video: Video, vectors: Vectors) -> Numbers:
    """The numbers that `vpoet.media.signals` tells of a clip; ``codec_motion`` where its file has vectors."""
    greys = signals.greys(video.frames)
    moved = signals.motion(greys, video.fps)
    found: Numbers = {
        "motion": moved.whole,
        "camera_motion": moved.camera,
        "object_motion": moved.object,
        "sharpness": signals.sharpness(greys),
        "brightness": signals.brightness(greys),
        "contrast": signals.contrast(greys),
        "letterbox": signals.letterbox(greys),
        "cuts": signals.cuts(video.frames),
    }
    if (told := vectors.motion(video.fps)) is not None:
        found["codec_motion"] = told
    return found


def hashes(frames: Frames) -> list[str]:
    """pHash of `spread` frames, 64 bits in hex, as imagehash's: which of the 8x8 lowest frequencies of a grey picture
    of 32x32 are above their median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions",
    2010)."""
    waves = np.cos(np.pi / _HASH_SIDE * np.outer(np.arange(8), np.arange(_HASH_SIDE) + 0.5))
    found = []
    for frame in spread(frames, HASHED):
        grey = Image.fromarray(frame).convert("L").resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
        low = (waves @ np.asarray(grey, np.float64) @ waves.T).round(6)  # of a plain picture nearly all are zero
        found.append(np.packbits(low > np.median(low)).tobytes().hex())
    return found


def thumbnails(frames: Frames) -> npt.NDArray[np.uint8]:
    """Grey and smooth, uint8 [`THUMBNAILS`, `SIDE`, `SIDE`]: every frame, or every second, third ... of a longer clip;
    a shorter one repeats its last. Smooth, as a crop rarely falls on the same pixels."""
    some = frames[:: -(-len(frames) // THUMBNAILS)]
    shown = [Image.fromarray(f).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX) for f in some]
    made = np.stack([np.asarray(picture.filter(ImageFilter.GaussianBlur(SMOOTH))) for picture in shown])
    return np.concatenate([made, np.repeat(made[-1:], THUMBNAILS - len(made), 0)])


def spread(frames: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """At most ``count`` of the frames, evenly spaced, the first and the last among them."""
    at: Sequence[int] = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int).tolist()
    return frames[list(at)]


def rounded(value: float) -> float:
    """Six digits: what a file tells, and the same on machines that add up in another order."""
    return float(f"{value:.6g}")
