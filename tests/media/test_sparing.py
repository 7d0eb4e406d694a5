"""Packets that are not decoded, as nobody would see their frames: what is seen is the same as if all had been."""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest

from vpoet.media.container import open_video
from vpoet.media.video import nearest_in_time, stream_frames, stream_numbered


def film(times: Sequence[int], container: str = "mp4", codec: str = "libx264") -> bytes:
    """Frames at times in hundredths of a second; a square that wanders over noise, so that no two are the same."""
    random = np.random.default_rng(0)
    ground = random.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        if codec == "libx264":
            stream.options = {"bf": "3", "g": "40"}
        for number, time in enumerate(times):
            picture = ground.copy()
            picture[number % 40 : number % 40 + 8, number % 56 : number % 56 + 8] = number % 256
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 100)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


def seen(data: bytes, fps: float, sparing: bool) -> tuple[list[Any], int]:
    """The pts of the frames that are shown, and how many were decoded."""
    decoded = 0
    rate, timed, _ = open_video(data, 0.0, 255, fps=fps if sparing else None)

    def counted() -> Any:
        nonlocal decoded
        for pair in timed:
            decoded += 1
            yield pair

    return [frame.pts for frame in nearest_in_time(counted(), fps, 1 / rate)], decoded


EVEN = [round(100 * k / 30) for k in range(150)]
UNEVEN = np.cumsum(np.random.default_rng(3).choice([2, 3, 3, 4, 4, 30, 90], 150)).tolist()
REPEATED = [time for time in EVEN if time % 7]


@pytest.mark.parametrize("fps", [2.0, 7.5, 8.0, 12.0, 24.0])
@pytest.mark.parametrize("times", [EVEN, UNEVEN, REPEATED], ids=["even", "uneven", "gaps"])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_what_is_seen_does_not_change(times: list[int], container: str, fps: float) -> None:
    data = film(times, container)
    (full, all_of_them), (spared, fewer) = seen(data, fps, sparing=False), seen(data, fps, sparing=True)
    assert spared == full
    assert fewer <= all_of_them


def test_frames_that_nobody_sees_are_left_out() -> None:
    data = film(EVEN)
    assert seen(data, 5.0, sparing=True)[1] < 0.8 * seen(data, 5.0, sparing=False)[1] == 0.8 * 150


def test_pixels_are_the_same_and_nothing_is_left_out_where_all_is_watched() -> None:
    data = film(EVEN)
    watched = 0

    def watch(_: Any) -> None:
        nonlocal watched
        watched += 1

    whole = [frame for _, frame in stream_numbered(data, fps=8.0, watch=watch)[1]]
    np.testing.assert_array_equal(np.stack(list(stream_frames(data, fps=8.0)[1])), np.stack(whole))
    assert watched == len(EVEN)


def test_a_codec_and_a_rate_at_which_nothing_can_be_spared() -> None:
    assert seen(film(EVEN, codec="mpeg4"), 5.0, sparing=True) == seen(film(EVEN, codec="mpeg4"), 5.0, sparing=False)
    assert seen(film(EVEN), 60.0, sparing=True) == seen(film(EVEN), 60.0, sparing=False)
