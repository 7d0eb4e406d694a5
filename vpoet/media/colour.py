"""Decoded video frames to RGB: the colours that a player shows, from whatever the frame is coded in.

Untagged colours are taken for BT.709 above standard definition and for BT.601 below, as mpv does. HDR (PQ and HLG) is
brought to what an SDR screen shows by a fixed curve; other players' curves differ by shades.
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
from av.video.reformatter import Colorspace, VideoReformatter

from vpoet.arrays import Floats, Frames
from vpoet.errors import DataError
from vpoet.media.images import laid_over

UNTOLD = (2, 3)
KNOWN = (0, 1, 4, 5, 6, 7, 9, *UNTOLD)
"""Matrices of ISO 23091-2, table 4, that FFmpeg's scaler knows. Not among them: YCgCo, ICtCp, Dolby Vision's own."""
PQ, HLG = 16, 18
"""Transfer characteristics, table 3."""

REFERENCE_WHITE = 203.0
"""Nits at which HDR shows what is white in SDR (ITU-R BT.2408)."""
PEAK = 1000.0 / REFERENCE_WHITE
"""The brightest that is told apart: HLG's nominal screen, and that of most PQ masters."""
LEVELS = 4096

WIDE_TO_SRGB = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)
"""BT.2020's primaries to BT.709's, linear light (ITU-R BT.2087)."""


def frame_rgb(frame: Any, convert: VideoReformatter, behind: int) -> Frames:
    """An `av.VideoFrame` as ``uint8 [H, W, 3]``, over a grey where it is clear. DataError: of unknown colours."""
    matrix = matrix_of(frame)
    alpha = any(component.is_alpha for component in frame.format.components)
    hdr = frame.color_trc in (PQ, HLG)
    form = "rgb48le" if hdr else "rgba" if alpha else "rgb24"
    rgb: Any = convert.reformat(frame, format=form, src_colorspace=matrix).to_ndarray()
    if hdr:
        return tone_mapped(rgb, int(frame.color_trc))
    return laid_over(behind, rgb) if alpha else rgb


def matrix_of(frame: Any) -> Colorspace | None:
    """What an untagged frame's colours are taken for; None: what it says. DataError: it says what is not known."""
    if frame.colorspace not in KNOWN:
        raise DataError(
            f"its colours are coded in a way that is not read here (matrix {int(frame.colorspace)} of ISO 23091-2): "
            "convert it to BT.709 first"
        )
    high = frame.width >= 1280 or frame.height > 576
    return Colorspace.ITU709 if frame.colorspace in UNTOLD and high else None


def tone_mapped(deep: npt.NDArray[np.uint16], transfer: int) -> Frames:
    """HDR of BT.2020 ``uint16 [H, W, 3]``, coded by PQ or HLG, as sRGB ``uint8``.

    Linear light in sRGB's primaries; what is brighter than a screen is pressed into its range by the brightest channel,
    so that hues stay (the curve is FFmpeg's `tonemap=mobius`).
    """
    light = _light(transfer)[deep >> 4]
    if transfer == HLG:  # the screen's own gamma, on luminance (ITU-R BT.2100, table 5)
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], np.float32)
        light *= (luminance**0.2)[..., None] * PEAK
    light = np.maximum(light @ WIDE_TO_SRGB.T, 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= _pressed(brightest) / np.maximum(brightest, 1e-6)
    shown: Frames = _coded()[np.rint(light.clip(0, 1) * (LEVELS - 1)).astype(np.int32)]
    return shown


@functools.cache
def _light(transfer: int) -> Floats:
    """[LEVELS]: light by signal. PQ: 1 is the reference white (SMPTE ST 2084); HLG: the scene's, 0 to 1 (BT.2100)."""
    signal = np.linspace(0, 1, LEVELS)
    if transfer == PQ:
        root = signal ** (32 / 2523)
        nits = 10000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (16384 / 2610)
        return np.asarray(nits / REFERENCE_WHITE, np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


def _pressed(light: Floats, knee: float = 0.3) -> Floats:
    """0 to PEAK into 0 to 1: as it is up to the knee, and smoothly less above."""
    a = -(knee**2) * (PEAK - 1) / (knee**2 - 2 * knee + PEAK)
    b = (knee**2 - 2 * knee * PEAK + PEAK) / (PEAK - 1)
    above = (b * b + 2 * b * knee + knee * knee) / (b - a) * (light + a) / (light + b)
    return np.where(light <= knee, light, above).astype(np.float32)


@functools.cache
def _coded() -> Frames:
    """[LEVELS]: sRGB's 8 bits by linear light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, LEVELS)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * coded), np.uint8)
