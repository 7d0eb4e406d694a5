"""The codecs as peers: what is counted, that what is decoded is the clip, and the curve's arithmetic."""

import math
import re

import numpy as np
import pytest

from vpoet.errors import BackendError, ShapeError
from vpoet.evaluate import codecs
from vpoet.evaluate.codecs import CODECS, Codec, RateDistortion, RatePoint, at_rate, encode
from vpoet.evaluate.pixels import psnr, ssim


def clip(seed: int = 0, frames: int = 9, height: int = 64, width: int = 80) -> np.ndarray:
    """A square that moves over a slope: every frame is another."""
    random = np.random.default_rng(seed)
    slope = np.linspace(40, 200, width).astype(np.uint8)
    video = np.broadcast_to(slope[None, None, :, None], (frames, height, width, 3)).copy()
    colour = random.integers(0, 256, 3)
    for t in range(frames):
        video[t, 8:40, 2 + 3 * t : 24 + 3 * t] = colour
    return video


def units(coded: codecs.Coded, codec: Codec) -> list[int]:
    """The NAL unit types of a coded clip."""
    firsts = [match[1][0] for match in re.finditer(rb"\x00\x00\x01(.)", b"".join(coded.pictures), re.DOTALL)]
    return [byte & 31 if codec.standard == "H.264" else byte >> 1 & 63 for byte in firsts]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.label)
class TestEncode:
    def test_frames_come_back_in_order_and_alike(self, codec: Codec) -> None:
        video = clip(frames=9)
        coded = encode(video, 8.0, codec, 12)
        assert coded.frames.shape == video.shape
        assert coded.frames.dtype == np.uint8
        assert psnr(video, coded.frames) > 33
        for frame in coded.frames:  # in order: each is nearest to its own original
            distances = np.abs(video.astype(int) - frame).mean((1, 2, 3))
            assert np.array_equal(coded.frames[distances.argmin()], frame)

    def test_a_colour_comes_back_as_itself(self, codec: Codec) -> None:
        """A matrix or a range that differs between the two ways would shift saturated colours by ten and more."""
        for colour in [(255, 0, 0), (0, 255, 0), (20, 30, 220), (255, 255, 255), (0, 0, 0)]:
            video = np.full((2, 64, 64, 3), colour, np.uint8)
            assert np.abs(encode(video, 8.0, codec, 10).frames.astype(int) - video).max() <= 4

    def test_quality_costs_bits(self, codec: Codec) -> None:
        video = clip()
        low, high = encode(video, 8.0, codec, 45), encode(video, 8.0, codec, 20)
        assert low.bits < 0.6 * high.bits
        assert psnr(video, low.frames) < psnr(video, high.frames) - 5

    def test_slices_alone_are_counted(self, codec: Codec) -> None:
        coded = encode(clip(), 8.0, codec, 30)
        assert len(coded.pictures) == 9
        assert coded.bits == 8 * len(b"".join(coded.pictures))
        assert b"x26" not in b"".join(coded.pictures), "the encoder's signature is in the count"
        assert len(units(coded, codec)) == 9
        assert max(units(coded, codec)) <= (5 if codec.standard == "H.264" else 31)

    def test_a_clip_is_one_group_of_pictures_even_with_a_cut(self, codec: Codec) -> None:
        video = np.concatenate([clip(0, 12), 255 - clip(1, 6)[:, :, ::-1]])
        keys = {5} if codec.standard == "H.264" else set(range(16, 24))
        kinds = units(encode(video, 8.0, codec, 25), codec)
        assert [kind in keys for kind in kinds] == [True] + 17 * [False]

    def test_a_lone_image_is_a_clip(self, codec: Codec) -> None:
        assert encode(clip(frames=1), 0.0, codec, 20).frames.shape == (1, 64, 80, 3)

    def test_what_it_cannot_take_is_named(self, codec: Codec) -> None:
        for shape in [(2, 65, 64, 3), (2, 64, 79, 3), (2, 8, 64, 3), (2, 64, 14, 3)]:
            with pytest.raises(ShapeError, match=f"{shape[1]}x{shape[2]}"):
                encode(np.zeros(shape, np.uint8), 8.0, codec, 20)
        with pytest.raises(ShapeError, match="crf is 0 to 51"):
            encode(clip(), 8.0, codec, 52)
        with pytest.raises(ShapeError, match="float64"):
            encode(clip().astype(float), 8.0, codec, 20)


def test_what_is_no_slice_is_cut_out() -> None:
    parameters, message, picture = b"\x67\x01\x02", b"\x06\x05x264 - core", b"\x65\x88\x00\x03\x07"
    packet = b"\0\0\0\1" + parameters + b"\0\0\1" + message + b"\0\0\1" + picture
    assert codecs._slices(packet, "H.264") == b"\0\0\1" + picture
    parameters, picture = b"\x40\x01\x0c", b"\x26\x01\xaf"
    assert codecs._slices(b"\0\0\0\1" + parameters + b"\0\0\0\1" + picture, "H.265") == b"\0\0\1" + picture


def test_the_presets_matter_and_unknown_ones_are_refused() -> None:
    medium, strong = (encode(clip(), 8.0, codec, 30) for codec in CODECS[:2])
    assert medium.bits != strong.bits
    with pytest.raises(BackendError, match=r"H\.266"):
        Codec("H.266")
    with pytest.raises(BackendError, match="hasty"):
        encode(clip(), 8.0, Codec("H.264", "hasty"), 30)
    with pytest.raises(BackendError, match="tune 'nobody'"):
        encode(clip(), 8.0, Codec("H.265", tune="nobody"), 30)


def test_frames_that_libx265_cannot_be_trusted_with_are_refused() -> None:
    assert encode(clip(height=48, width=16, frames=1), 8.0, CODECS[0], 20).frames.shape == (1, 48, 16, 3)
    with pytest.raises(ShapeError, match="64 pixels or more here, not 64x48"):
        encode(clip(width=48, frames=2), 8.0, CODECS[2], 20)


def test_a_curve_weighs_bits_by_pixels_and_scores_by_clips() -> None:
    codec = Codec("H.264", "ultrafast")
    small, large = clip(0, 3, 32, 32), clip(1, 5, 64, 48)
    curve = RateDistortion(codec, crfs=(40, 25))
    for frames in (small, large):
        curve.add(frames, 8.0)
    low, high = curve.points
    first, second = encode(small, 8.0, codec, 40), encode(large, 8.0, codec, 40)
    assert low.crf == 40
    assert low.bits_per_pixel == pytest.approx((first.bits + second.bits) / (3 * 32 * 32 + 5 * 64 * 48))
    assert low.psnr == pytest.approx((psnr(small, first.frames) + psnr(large, second.frames)) / 2)
    assert low.ssim == pytest.approx((ssim(small, first.frames) + ssim(large, second.frames)) / 2)
    assert high.psnr > low.psnr


def test_odd_clips_are_padded_and_scored_without_the_padding() -> None:
    video = clip(height=33, width=47, frames=5)
    curve = RateDistortion(Codec("H.264", "ultrafast"), crfs=(20,))
    with pytest.raises(ShapeError, match="no clips"):
        _ = curve.points
    curve.add(video, 8.0)
    padded = np.concatenate([video, video[:, -1:]], 1)
    padded = np.concatenate([padded, padded[:, :, -1:]], 2)
    coded = encode(padded, 8.0, curve.codec, 20)
    (point,) = curve.points
    assert point.bits_per_pixel == pytest.approx(coded.bits / (5 * 33 * 47))
    assert point.psnr == pytest.approx(psnr(video, coded.frames[:, :33, :47]))


def test_a_rate_between_points_is_interpolated_in_its_logarithm_and_none_is_made_up() -> None:
    points = [RatePoint(20, 0.4, 40.0, 0.9), RatePoint(40, 0.1, 30.0, 0.7), RatePoint(30, 0.2, 36.0, 0.8)]
    assert at_rate(points, 0.1 * math.sqrt(2)) == pytest.approx((33.0, 0.75))
    assert at_rate(points, 0.2) == pytest.approx((36.0, 0.8))
    assert at_rate(points, 0.4) == pytest.approx((40.0, 0.9))
    assert at_rate(points, 0.41) is None
    assert at_rate(points, 0.099) is None
    assert at_rate([], 0.1) is None
