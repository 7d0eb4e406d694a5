"""Contact sheets: clips as rows of frames, for people who look."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from vpoet.errors import ShapeError

GAP = 4
"""Pixels between frames and rows."""
TEXT_HEIGHT = 16
INK, PAPER = (32, 32, 32), (255, 255, 255)


def contact_sheet(
    rows: Sequence[tuple[str, npt.NDArray[np.uint8]]], max_frames: int = 8, scale: int | None = None
) -> Image.Image:
    """One row per clip: its label, and below it ``max_frames`` frames at most, evenly spaced, with first and last.

    A row is (label, uint8 [T, H, W, 3]); clips may differ in size and length. ``scale`` enlarges by whole pixels; by
    itself it brings the smallest clip to about 128 pixels of height.
    """
    if not rows or max_frames < 1:
        raise ShapeError(f"a contact sheet of {len(rows)} clips and {max_frames} frames would be empty")
    for label, frames in rows:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
            raise ShapeError(f"{label}: frames are uint8 [T, H, W, 3] with T >= 1, not {frames.dtype} {frames.shape}")
    scale = scale or max(1, round(128 / min(frames.shape[1] for _, frames in rows)))

    strips = []
    for _, frames in rows:
        shown = np.linspace(0, len(frames) - 1, min(len(frames), max_frames)).round().astype(int)
        enlarged = frames[shown].repeat(scale, axis=1).repeat(scale, axis=2)
        strips.append(np.pad(enlarged, ((0, 0), (0, 0), (0, GAP), (0, 0)), constant_values=255).swapaxes(0, 1))
    strips = [strip.reshape(strip.shape[0], -1, 3) for strip in strips]  # [H, T * (W + GAP), 3]

    font = ImageFont.load_default(size=TEXT_HEIGHT - 4)
    texts = [int(font.getlength(label)) for label, _ in rows]
    width = GAP + max(*texts, *(strip.shape[1] for strip in strips))
    sheet = Image.new("RGB", (width, GAP + sum(strip.shape[0] + TEXT_HEIGHT + GAP for strip in strips)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = GAP
    for (label, _), strip in zip(rows, strips, strict=True):
        draw.text((GAP, top), label, fill=INK, font=font)
        sheet.paste(Image.fromarray(strip), (GAP, top + TEXT_HEIGHT))
        top += strip.shape[0] + TEXT_HEIGHT + GAP
    return sheet
