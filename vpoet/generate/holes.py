"""Holes in a video, for in- and outpainting: the mask that a picture, or a border, comes to."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from vpoet.arrays import Frames, Mask
from vpoet.errors import PromptError
from vpoet.media.video import Video

WHITE = 128
"""A mask's pixel of this brightness or more is painted anew."""


def white(mask: Iterator[Frames], most: int) -> Mask:
    """Where the first ``most`` frames of a mask are white, [frames, H, W]. PromptError: nowhere."""
    masked: Mask = np.stack([frame.mean(axis=-1) >= WHITE for frame in islice(mask, most)])
    if not masked.any():
        raise PromptError(
            "the mask is black everywhere (what is transparent in it counts as black): paint white what is to be made "
            "anew"
        )
    return masked


def border(frames: Frames, outpaint: tuple[int, int, int, int], height: int, width: int) -> tuple[Frames, Mask]:
    """Frames of ``height x width`` pixels whose border (left, top, right, bottom) is empty, and its mask.

    Within lie the frames [T, H, W, 3], scaled to cover what the border leaves, and cut to it.
    """
    left, top, right, bottom = outpaint
    inside = height - top - bottom, width - left - right
    if min(outpaint) < 0 or not any(outpaint) or min(inside) < 1:
        given = ",".join(map(str, outpaint))
        raise PromptError(
            f"outpaint = {given}: left, top, right and bottom are pixels of the result, which has {height}x{width}; "
            "each is 0 or more, one is more, and something is left between them"
        )
    around = (0, 0), (top, bottom), (left, right)
    inner = Video(frames, 0).resize(*inside).frames
    mask = np.pad(np.zeros(inner.shape[:3], dtype=np.bool_), around, constant_values=True)
    return np.pad(inner, (*around, (0, 0))), mask
