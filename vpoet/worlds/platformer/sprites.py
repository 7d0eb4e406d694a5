"""Kenney's sprites (https://kenney.nl, CC0), read from the installed package ``arcade`` without importing it."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpoet.errors import DataError


class Sprite(NamedTuple):
    """The visible part of a picture, and where it lies from the middle of the whole picture's lower edge."""

    pixels: npt.NDArray[np.float32]
    """[h, w, 4]: red, green and blue times alpha in 0..255, alpha in 0..1."""
    left: float
    top: int


@cache
def folder() -> Path:
    """Where the pictures lie; DataError if ``arcade`` is not installed."""
    spec = find_spec("arcade")
    if spec is None or spec.origin is None:
        raise DataError('the platformer world draws with sprites of the package arcade: pip install "vpoet[worlds]"')
    return Path(spec.origin).parent / "resources" / "assets" / "images"


@cache
def sprite(name: str, height: int, mirrored: bool = False) -> Sprite:
    """A picture by its path without ending, scaled to ``height`` pixels with its aspect kept."""
    path = folder() / f"{name}.png"
    try:
        picture = Image.open(path).convert("RGBA").convert("RGBa")  # colours times alpha: scaling draws no dark rims
    except OSError as error:
        raise DataError(f"{path}: sprite not readable ({error}); reinstall the package arcade") from None
    width = max(1, round(picture.width * height / picture.height))
    channels = [channel.resize((width, max(1, height)), Image.Resampling.BOX) for channel in picture.split()]
    pixels = np.stack([np.asarray(channel, dtype=np.float32) for channel in channels], axis=-1)
    pixels[..., 3] /= 255
    pixels = pixels[:, ::-1] if mirrored else pixels
    rows, columns = (np.flatnonzero((pixels[..., 3] > 0.1).any(axis)) for axis in (1, 0))
    if not len(rows):  # scaled to so few pixels that none is left: keep the whole
        rows, columns = np.arange(len(pixels)), np.arange(width)
    seen = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    return Sprite(seen, columns[0] - width / 2, int(rows[0]) - len(pixels))


def draw(frame: npt.NDArray[np.float32], picture: Sprite, x: float, y: int) -> tuple[int, int, int, int]:
    """Blend a sprite over a frame [H, W, 3] in place, its picture's lower edge at row ``y`` with the middle at ``x``.

    Returns the box that it covers of the frame (left, top, right, bottom), in pixels, half open; empty if none.
    """
    h, w = picture.pixels.shape[:2]
    left, top = round(x + picture.left), y + picture.top
    x0, y0 = min(max(left, 0), frame.shape[1]), min(max(top, 0), frame.shape[0])
    x1, y1 = max(x0, min(left + w, frame.shape[1])), max(y0, min(top + h, frame.shape[0]))
    part = picture.pixels[y0 - top : y1 - top, x0 - left : x1 - left]
    frame[y0:y1, x0:x1] *= 1 - part[..., 3:]
    frame[y0:y1, x0:x1] += part[..., :3]
    return x0, y0, x1, y1
