"""Image files by Pillow, as a viewer shows them: still pictures, and animations with their times.

A picture is upright by its EXIF, in sRGB by its colour profile, and over white (a mask: over black)
where it is transparent. Of several
pictures in a file of a kind that has no clock (a phone's .jpg with a depth map or a preview in it, the pages of a
.tiff), the first is the picture.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageSequence, UnidentifiedImageError

from vpoet.arrays import Frames
from vpoet.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""What Pillow reads; everything else goes to FFmpeg."""
ANIMATED = ("PNG", "WEBP", "GIF", "AVIF")

MOST_PIXELS = 1 << 27
"""Of a frame: 16384x8192. A file of a few kilobytes can claim more than a machine's memory."""

THUMB = (27, 48)
"""Height and width of a thumbnail: the whole frame, its aspect let go. TransNet V2 was trained on these."""

DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF's orientation asks for."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of damage that it reads over, as viewers do; the limit of a picture's size is `check_size`'s."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_quietly()
def open_image(source: str | Path | bytes) -> Image.Image | None:
    """The image file, not yet decoded; None if it is of no kind that Pillow reads here. DataError: it is broken.

    The errors of this module name no file: `vpoet.media.video` does.
    """
    try:
        picture = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise DataError(f"too large a picture ({error}): scale it down first") from None
    except Exception as error:
        raise DataError(f"not readable as an image: {error}") from None
    check_size(picture.width, picture.height)
    return picture


def check_size(width: int, height: int) -> None:
    """DataError: a frame of such a size is not decoded."""
    if width * height > MOST_PIXELS:
        raise DataError(f"frames of {width}x{height} pixels, and {MOST_PIXELS} is the most: scale it down first")
    if width < 1 or height < 1:
        raise DataError(f"frames of {width}x{height} pixels: there is no picture in it")


@_quietly()
def durations(picture: Image.Image) -> list[float]:
    """Seconds that each frame of an animation is shown; of a picture, nothing."""
    if picture.format not in ANIMATED or getattr(picture, "n_frames", 1) == 1:
        return []
    return [_seconds(page) for page in _pages(picture)]


def image_frames(picture: Image.Image, behind: int) -> Iterator[Frames]:
    """The frames ``uint8 [H, W, 3]`` of an animation, or the one picture."""
    with picture:
        animated = picture.format in ANIMATED and getattr(picture, "n_frames", 1) > 1
        for page in _pages(picture) if animated else [picture]:
            yield _rgb(page, behind)


def _pages(picture: Image.Image) -> Iterator[Image.Image]:
    pages = iter(ImageSequence.Iterator(picture))
    if getattr(picture, "default_image", False):
        next(pages)  # of an animated .png: shown by those alone that know no animation
    return pages


def small_picture(frame: Frames) -> Frames:
    """``uint8 [H, W, 3]`` as a thumbnail `THUMB`."""
    return np.asarray(Image.fromarray(frame).resize(THUMB[::-1], Image.Resampling.BOX))


@_quietly()
def _seconds(page: Image.Image) -> float:
    page.load()  # WebP knows a page's duration only then
    shown = float(page.info.get("duration") or 0)
    return (shown if shown > 10 else 100) / 1000  # browsers and FFmpeg, too, take no or so short a duration for 100 ms


@_quietly()
def _rgb(picture: Image.Image, behind: int) -> Frames:
    picture.load()
    if picture.mode in ("I", "F"):
        raise DataError(
            f"grey of 32 bits ({picture.mode}), which says nowhere what is white: save it with 8 or 16 bits"
        )
    if picture.mode in DEEP:  # Pillow would clip it, not scale it
        deep = np.asarray(picture, np.float64)
        picture = _upright(Image.fromarray(np.rint(deep / 257).astype(np.uint8)), picture)
    else:
        picture = _upright(picture, picture)
    clear = picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info
    if picture.mode not in ("RGB", "RGBA", "L", "CMYK", "LAB"):
        profile = picture.info.get("icc_profile")
        picture = picture.convert("RGBA" if clear else "RGB")
        picture.info["icc_profile"] = profile
    picture = _in_srgb(picture)
    return laid_over(behind, np.asarray(picture.convert("RGBA"))) if clear else np.array(picture.convert("RGB"))


def _upright(picture: Image.Image, told: Image.Image) -> Image.Image:
    """Turned as the EXIF of ``told`` says. Where that is damaged, the picture stays as it is: viewers do the same."""
    try:
        turn = TURNS.get(told.getexif().get(0x0112, 1))
    except Exception:
        return picture
    if turn is None:
        return picture
    turned = picture.transpose(turn)
    turned.info = dict(picture.info)
    return turned


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Colours by the picture's profile (a phone's are wider than sRGB); a damaged profile is left alone."""
    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return picture
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        shown = ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture
    assert shown is not None  # it is None only in place
    shown.info.pop("icc_profile", None)
    return shown


def laid_over(behind: int, rgba: Frames) -> Frames:
    """``uint8 [H, W, 4]`` over a grey, 255 being the white page of a browser: ``[H, W, 3]``."""
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(colour)
    mixed = colour.astype(np.uint16) * alpha + behind * (255 - alpha.astype(np.uint16))
    return ((mixed + 127) // 255).astype(np.uint8)
