"""H.264 and H.265 as peers of a video tokenizer: quality on the same clips at which bits per pixel (rate-distortion).

Each clip is coded by itself, as one group of pictures, at a constant rate factor (crf) and with one thread. Only coded
pictures are counted (see `encode`), which favours the codecs: a file adds parameter sets and a container. What favours
the tokenizer: the codecs work in YUV 4:2:0, and their errors are measured in RGB.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from vpoet.arrays import Frames
from vpoet.errors import BackendError, DataError, ShapeError
from vpoet.evaluate.pixels import psnr, ssim

MAX_CRF = 51
CRFS = (18, 23, 28, 33, 38, 42, 46, MAX_CRF)
"""The curve's points: a step of 5 changes the bits by about a factor of 2."""
LEAST_SIDE = {"H.264": 16, "H.265": 64}
"""Pixels. libx265 4.2, which PyAV 18.1 brings, takes less, but in frames 48 pixels wide it overruns its buffers."""

# By default swscale rounds coarsely and takes every other chroma sample, which caps the codecs' PSNR.
SCALING = (
    Interpolation.LANCZOS | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg's, and its settings. ``tune`` None leaves the encoder's own."""

    standard: str
    """H.264 (by libx264) or H.265 (by libx265)."""
    preset: str = "medium"
    tune: str | None = None

    def __post_init__(self) -> None:
        if self.standard not in _ENCODERS:
            raise BackendError(f"no encoder of {self.standard!r} here; choose one of {', '.join(_ENCODERS)}")

    @property
    def label(self) -> str:
        return " ".join([self.standard, self.preset, *([f"tune={self.tune}"] if self.tune else [])])


_ENCODERS = {"H.264": ("libx264", "h264"), "H.265": ("libx265", "hevc")}
"""Standard -> FFmpeg's encoder and decoder."""

CODECS = (Codec("H.264"), Codec("H.264", "veryslow", "psnr"), Codec("H.265"))
"""The peers: each standard as most people run it, and H.264 at its strongest by the measure used here."""


class Coded(NamedTuple):
    pictures: list[bytes]
    """Of each frame, in coding order. The sum of their lengths is the clip's size."""
    frames: Frames
    """uint8 [T, H, W, 3], decoded from ``pictures``."""

    @property
    def bits(self) -> int:
        return 8 * sum(map(len, self.pictures))


class TokenizerPoint(NamedTuple):
    """Beside the curves, a tokenizer: the bits per pixel of its codes, counted in three ways, and its PSNR in dB."""

    as_they_come: float
    """log2(codebook) per code."""
    by_frequency: float
    """After ideal entropy coding by how frequent each code is in these clips."""
    by_model: float | None
    """After ideal entropy coding by a model of the codes, if there is one."""
    psnr: float


class RatePoint(NamedTuple):
    """One crf's figures over a set of clips."""

    crf: float
    bits_per_pixel: float
    """All bits over all pixels (a pixel is of one frame, all three colours)."""
    psnr: float
    """dB, the mean over frames, then over clips; so is SSIM."""
    ssim: float


def encode(frames: Frames, fps: float, codec: Codec, crf: float) -> Coded:
    """Code a clip uint8 [T, H, W, 3] RGB (BT.709, limited range, 4:2:0) at ``fps`` (0, a lone image: 1) and decode it.

    Only slices are counted, with their start codes. x264 puts its version and settings, hundreds of bytes, as user data
    into the first packet even with global headers: more than the pictures of a small clip. So all that is no slice is
    cut out, and the frames are decoded from the rest and the parameter sets. ShapeError for odd sides, which 4:2:0
    has not, and for sides below `LEAST_SIDE`.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ShapeError(f"frames are uint8 [T, H, W, 3] with T >= 1, not {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    least = LEAST_SIDE[codec.standard]
    if height % 2 or width % 2 or min(height, width) < least:
        raise ShapeError(f"{codec.label} takes even sides of {least} pixels or more here, not {height}x{width}")
    if not 0 <= crf <= MAX_CRF:
        raise ShapeError(f"a crf is 0 to {MAX_CRF}, not {crf}")
    encoder, decoder = _ENCODERS[codec.standard]
    context = _encoder_context(encoder, frames, fps, codec, crf)
    to_yuv, to_rgb = VideoReformatter(), VideoReformatter()
    packets = []
    for index, array in enumerate(frames):
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")
        picture = to_yuv.reformat(
            rgb,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SCALING,
        )
        picture.pts, picture.time_base = index, context.time_base
        packets += context.encode(picture)
    packets += context.encode(None)

    reader: Any = av.CodecContext.create(decoder, "r")
    reader.extradata, reader.thread_count = context.extradata, 1
    pictures, decoded = [], []
    for packet in packets:
        pictures.append(_slices(bytes(packet), codec.standard))
        stripped = av.Packet(pictures[-1])
        stripped.pts, stripped.dts, stripped.time_base = packet.pts, packet.dts, packet.time_base
        decoded += reader.decode(stripped)
    decoded += reader.decode(None)
    if len(decoded) != len(frames):
        raise DataError(f"{codec.label} at crf {crf}: {len(frames)} frames went in and {len(decoded)} came out")
    outputs = [
        to_rgb.reformat(
            picture,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            interpolation=SCALING,
        ).to_ndarray()
        for picture in sorted(decoded, key=lambda picture: picture.pts)
    ]
    return Coded(pictures, np.stack(outputs))


class RateDistortion:
    """One codec's curve, gathered clip by clip: memory does not grow with the number of clips."""

    def __init__(self, codec: Codec, crfs: Sequence[float] = CRFS) -> None:
        self.codec = codec
        self.crfs = tuple(crfs)
        self.clips = 0
        self._pixels = 0
        self._sums = np.zeros((len(self.crfs), 3))  # bits, PSNR, SSIM

    def add(self, frames: Frames, fps: float) -> None:
        """Code a clip uint8 [T, H, W, 3] at every crf. Odd sides are padded by a repeated line, as players crop it."""
        height, width = frames.shape[1:3]
        even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        for index, crf in enumerate(self.crfs):
            coded = encode(even, fps, self.codec, crf)
            drawn = coded.frames[:, :height, :width]
            self._sums[index] += coded.bits, psnr(frames, drawn), ssim(frames, drawn)
        self.clips += 1
        self._pixels += frames[..., 0].size

    @property
    def points(self) -> list[RatePoint]:
        """A point for each crf, in the order given. ShapeError before the first clip."""
        if not self.clips:
            raise ShapeError(f"{self.codec.label}: no clips, no curve")
        return [
            RatePoint(crf, bits / self._pixels, dB / self.clips, similarity / self.clips)
            for crf, (bits, dB, similarity) in zip(self.crfs, self._sums.tolist(), strict=True)
        ]


def at_rate(points: Iterable[RatePoint], bits_per_pixel: float) -> tuple[float, float] | None:
    """PSNR and SSIM at a rate, linear between the neighbours in the logarithm of the rate; None outside the points."""
    ordered = sorted(points, key=lambda point: point.bits_per_pixel)
    if not ordered or not ordered[0].bits_per_pixel <= bits_per_pixel <= ordered[-1].bits_per_pixel:
        return None
    rates = [math.log(point.bits_per_pixel) for point in ordered]
    place = math.log(bits_per_pixel)
    dB = np.interp(place, rates, [point.psnr for point in ordered])
    return float(dB), float(np.interp(place, rates, [point.ssim for point in ordered]))


def _encoder_context(encoder: str, frames: Frames, fps: float, codec: Codec, crf: float) -> Any:
    try:
        context: Any = av.CodecContext.create(encoder, "w")
    except av.FFmpegError as error:
        raise BackendError(f"this PyAV has no {encoder} ({error}): install the wheel of `av` from PyPI") from None
    rate = Fraction(fps or 1).limit_denominator(1001)
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.framerate, context.time_base = "yuv420p", rate, 1 / rate
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.global_header
    # One group of pictures: no other key frame, a cut becomes an I picture inside it.
    least = len(frames)
    parameters = f"keyint={2 * least}:min-keyint={least}"
    if codec.standard == "H.265":
        parameters += ":log-level=none:info=0:pools=none:frame-threads=1"
    options = {"preset": codec.preset, "crf": str(crf), f"{encoder.removeprefix('lib')}-params": parameters}
    context.options = options | ({"tune": codec.tune} if codec.tune else {})
    try:
        context.open()
    except (av.FFmpegError, ValueError) as error:
        raise BackendError(f"{encoder} refuses preset {codec.preset!r} and tune {codec.tune!r}: {error}") from None
    return context


def _slices(packet: bytes, standard: str) -> bytes:
    """The slices of a packet in Annex B's form: NAL unit types 1 to 5 of H.264 (7.4.1), 0 to 31 of H.265 (7.4.2.2)."""
    units = re.split(rb"(?=\x00\x00\x01)", packet)
    kept = []
    for unit in units:
        if not unit.startswith(b"\x00\x00\x01"):
            continue  # the zero byte before a four-byte start code
        is_slice = 1 <= unit[3] & 31 <= 5 if standard == "H.264" else (unit[3] >> 1) & 63 < 32
        if is_slice:
            kept.append(unit)
    return b"".join(kept)
