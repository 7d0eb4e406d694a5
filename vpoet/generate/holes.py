"""Holes in a video, for in- and outpainting: which cells a mask touches, and what the encoder sees in their place."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from vpoet.arrays import Floats, Frames, Mask
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


def scaled(frames: Frames, mask: Mask, height: int, width: int) -> tuple[Frames, Mask]:
    """Frames and mask scaled alike, as `Video.resize` does; the mask grows over each pixel that it touches.

    The frames are `filled` before: scaling would mix pixels under the mask into those beside it.
    """
    shades = mask.astype(np.uint8)[..., None].repeat(3, axis=-1) * np.uint8(255)
    grown = Video(shades, 0).resize(height, width).frames[..., 0] > 0
    return Video(filled(frames, mask), 0).resize(height, width).frames, grown


def filled(frames: Frames, mask: Mask) -> Frames:
    """Each pixel under the mask [T, H, W] becomes a mean of those around it, the nearest that there are.

    What the pixels under the mask were has no influence. Smooth, because the encoder sees beyond a cell: the codes of
    kept cells beside the mask shall be near those that they have in the whole picture, which training knows.
    """
    kept = ~mask[..., None]
    means = _means(np.where(kept, frames, 0).astype(np.float32), kept.astype(np.float32))
    return np.where(kept, frames, means.round().astype(np.uint8))


def _means(sums_THW3: Floats, weights_THW1: Floats) -> Floats:
    """Means where there is weight, and elsewhere those of the next coarser level (push-pull, Gortler et al. 1996)."""
    t, h, w = weights_THW1.shape[:3]
    means: Floats = (sums_THW3 / np.maximum(weights_THW1, 1)).astype(np.float32)
    if weights_THW1.all():
        return means
    if h == w == 1:
        return np.where(weights_THW1 > 0, means, np.float32(WHITE))
    coarser = [
        np.pad(values, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
        .reshape(t, -(-h // 2), 2, -(-w // 2), 2, values.shape[-1])
        .sum(axis=(2, 4))
        for values in (sums_THW3, weights_THW1)
    ]
    spread = _means(coarser[0], coarser[1]).repeat(2, axis=1).repeat(2, axis=2)[:, :h, :w]
    return np.where(weights_THW1 > 0, means, spread)


def touched(mask: Mask, stride: tuple[int, int, int]) -> Mask:
    """The cells [t, h, w] of which a mask [T, H, W] touches a pixel. PromptError: it touches all of them."""
    r, s, _ = stride
    frames, height, width = mask.shape
    blocks: Mask = np.any(mask.reshape(frames, height // s, s, width // s, s), axis=(2, 4))
    later: Mask = np.any(blocks[1:].reshape((frames - 1) // r, r, *blocks.shape[1:]), axis=1)
    cells: Mask = np.concatenate([blocks[:1], later])
    if cells.all():
        raise PromptError(f"the mask touches every cell of {s}x{s} pixels and {r} frames: nothing is left to keep")
    return cells
