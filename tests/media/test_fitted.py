"""Frames brought to a size in one step: as its slow twin does it in two, and None where the twin is needed."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from vpoet.errors import DataError
from vpoet.media.colour import HLG, frame_rgb
from vpoet.media.fitted import Fitted
from vpoet.media.video import resize_frame
from vpoet.worlds.platformer.world import Platformer


def coded(height: int, width: int, pixels: str = "yuv420p") -> Any:
    """A picture of the world, as a decoder gives it."""
    rgb = Platformer(height=height, width=width).clip(3)[0][0]
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)
    frame.time_base = Fraction(1, 30)
    return frame


@pytest.mark.parametrize(
    ("source", "size"),
    [((180, 320), (128, 128)), ((240, 320), (64, 64)), ((256, 480), (64, 96)), ((256, 256), (64, 64))],
)
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv444p", "yuv420p10le"])
def test_as_its_slow_twin(source: tuple[int, int], size: tuple[int, int], pixels: str) -> None:
    frame = coded(*source, pixels)
    fast, slow = Fitted(size)(frame), resize_frame(frame_rgb(frame, VideoReformatter(), 255), *size)
    assert fast is not None
    assert fast.shape == slow.shape == (*size, 3)
    off = fast.astype(float) - slow
    assert 10 * np.log10(255**2 / np.square(off).mean()) > 30
    assert np.abs(off.mean((0, 1))).max() < 2
    assert np.median(np.abs(off)) <= 1


def test_colours_to_a_level() -> None:
    """BT.601 in limited range, by its definition."""
    for y, u, v in ((126, 128, 128), (81, 90, 240), (41, 240, 110), (201, 100, 150)):
        planes = np.concatenate([np.full(96 * 96, y), np.full(48 * 48, u), np.full(48 * 48, v)]).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(planes.reshape(144, 96), format="yuv420p")
        light, blue, red = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
        true = [light + 1.402 * red, light - 0.344136 * blue - 0.714136 * red, light + 1.772 * blue]
        fitted = Fitted((32, 32))(frame)
        assert fitted is not None
        np.testing.assert_allclose(fitted.reshape(-1, 3), np.tile(np.clip(true, 0, 255), (1024, 1)), atol=1)


def test_fine_stripes_do_not_alias() -> None:
    """Stripes a pixel wide become grey, as whatever a pixel stands for is in it."""
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[:, ::2] = 255
    fitted = Fitted((60, 60))(av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv444p"))
    assert fitted is not None
    assert np.abs(fitted[4:-4, 4:-4].astype(int) - 127).max() < 16


def test_what_needs_the_twin() -> None:
    fit = Fitted((64, 64))
    assert fit(coded(32, 32)) is None  # larger
    assert fit(coded(64, 64)) is None  # as it is
    assert fit(coded(70, 75)) is None  # whole pixels would change its aspect
    for pixels in ("rgb24", "rgba", "yuva420p", "gray"):
        assert fit(coded(128, 128, pixels)) is None
    deep = coded(128, 128, "yuv420p10le")
    deep.color_trc = HLG
    assert fit(deep) is None


def test_unknown_colours_are_told() -> None:
    frame = coded(128, 128)
    frame.colorspace = 8  # YCgCo
    with pytest.raises(DataError, match="matrix 8"):
        Fitted((64, 64))(frame)
