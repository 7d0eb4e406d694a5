"""What is measured of one clip: its numbers, its perceptual hashes, and thumbnails by which copies are found."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from vpoet.arrays import Frames
from vpoet.errors import BackendError, DataError
from vpoet.media import signals
from vpoet.media.codec_vectors import codec_motion
from vpoet.media.video import Video

Numbers = dict[str, Any]
THUMBNAILS, SIDE = 24, 24
"""Of a clip at most, and their pixels each way."""
SMOOTH = 1.0
"""Pixels."""
HASHED = 4
"""Frames of a clip that get a perceptual hash, and that networks judge."""
PIXELS, LOOKS = "pixels 3", "hashes 1"
"""What the two functions below measure; another number when they measure something else."""


def pixels(video: Video, payload: bytes) -> Numbers:
    """The numbers that `vpoet.media.signals` tells of a clip; ``codec_motion`` where the payload has vectors."""
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
    if video.fps and (told := _vectors(payload)) is not None:
        found["codec_motion"] = told
    return found


def hashes(frames: Frames) -> list[str]:
    """pHash, 64 bits in hex, of `spread` frames. BackendError: imagehash is not installed."""
    try:
        import imagehash
    except ImportError as error:
        raise BackendError(f'perceptual hashes need imagehash ({error}): pip install "vpoet[curate]"') from None
    return [str(imagehash.phash(Image.fromarray(frame))) for frame in spread(frames, HASHED)]


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


def _vectors(payload: bytes) -> float | None:
    try:
        return codec_motion(payload)
    except DataError:  # an animated image: no video container
        return None
