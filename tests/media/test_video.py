"""Video files in and out: what a file says about itself is applied, and what is broken is named."""

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vpoet.errors import DataError
from vpoet.media.container import apply_display_matrix
from vpoet.media.mp4 import open_mp4
from vpoet.media.video import Video, nearest_in_time, read_image, resize_frame, stream_frames

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(height: int = 32, width: int = 48) -> np.ndarray:
    """uint8 [height, width, 3]: red and green above, blue and white below, so that every turn and mirror shows."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2], frame[: height // 2, width // 2 :] = RED, GREEN
    frame[height // 2 :, : width // 2], frame[height // 2 :, width // 2 :] = BLUE, WHITE
    return frame


def corners(frame: np.ndarray) -> list[tuple[int, ...]]:
    """The colours top left, top right, bottom left, bottom right, each channel rounded to 0 or 255."""
    height, width = frame.shape[:2]
    points = [frame[y, x] for y in (height // 4, -height // 4) for x in (width // 4, -width // 4)]
    return [tuple(int(255 * (value > 127)) for value in point) for point in points]


def greys(count: int, height: int = 16, width: int = 16) -> np.ndarray:
    """uint8 [count, height, width, 3]: frame k is all 10 * k, so a frame tells its own number."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None] * 10, (count, height, width, 3)).copy()


def numbers(video: Video) -> list[int]:
    return [round(float(frame.mean()) / 10) for frame in video.frames]


def encoded(
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    container: str = "mp4",
    times: Sequence[int] | None = None,
    rotation: int | None = None,
    pixel_aspect: Fraction | None = None,
    full_range: bool = False,
    source: str = "rgb24",
) -> bytes:
    """A file by FFmpeg, with what `Video.encode` never writes; ``times`` are in tenths of a second."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if codec == "libx264":
            stream.options = {"crf": "5"}
        if full_range:
            stream.codec_context.color_range = ColorRange.JPEG
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for index, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format=source).reformat(format=pixels)
            frame.pts, frame.time_base = (times[index] if times else index), Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", [".mp4", ".webp"])
def test_lossless_files_hold_every_pixel(suffix: str, tmp_path: Path) -> None:
    video = Video(np.random.default_rng(0).integers(0, 256, (5, 33, 47, 3), dtype=np.uint8), 8.0)
    video.write(tmp_path / f"deep/clip{suffix}", lossless=True)
    again = Video.read(tmp_path / f"deep/clip{suffix}")
    np.testing.assert_array_equal(again, video)
    assert again.fps == pytest.approx(8.0)


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 48), (32, 47), (31, 17)])
def test_mp4_keeps_colours_and_any_size(height: int, width: int) -> None:
    video = Video(np.stack([quarters(32, 48)] * 3), 12.5).resize(height, width)
    again = Video.read(video.encode(".mp4"))
    assert (again.frames.shape, again.fps) == ((3, height, width, 3), 12.5)
    assert np.abs(again.frames.astype(int) - video.frames).mean() < 8
    assert corners(again.frames[0]) == corners(video.frames[0])


def test_equal_frames_give_equal_bytes() -> None:
    frames = np.random.default_rng(1).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    results = {Video(frames.copy(), 8.0).encode(".mp4") for _ in range(20)}
    assert len(results) == 1


def test_gif_keeps_time_and_pictures() -> None:
    video = Video(greys(10), 8.0)
    again = Video.read(video.encode(".gif"), fps=8.0)
    assert numbers(again) == list(range(10))


def test_png_holds_one_frame_exactly() -> None:
    video = Video(quarters()[None], 0.0)
    again = Video.read(video.encode(".png"))
    np.testing.assert_array_equal(again, video)
    assert again.fps == 0
    with pytest.raises(DataError, match="one frame"):
        Video(greys(2), 8.0).encode(".png")
    with pytest.raises(DataError, match=r"\.avi"):
        video.encode(".avi")


@pytest.mark.parametrize(("frames", "fps"), [(greys(2).astype(np.float32), 8.0), (greys(2)[0], 8.0), (greys(0), 8.0)])
def test_a_video_checks_its_frames(frames: np.ndarray, fps: float) -> None:
    with pytest.raises(DataError, match="uint8"):
        Video(frames, fps)


@pytest.mark.parametrize("fps", [-1.0, float("nan"), float("inf")])
def test_a_video_checks_its_rate(fps: float) -> None:
    with pytest.raises(DataError, match="frame rate"):
        Video(greys(2), fps)


def test_grey_and_ten_bit_videos_read_as_rgb() -> None:
    grey = Video.read(encoded(list(greys(4)), pixels="gray", full_range=True))
    assert numbers(grey) == [0, 1, 2, 3]
    ten_bit = Video.read(encoded([quarters()] * 2, pixels="yuv420p10le"))
    assert corners(ten_bit.frames[0]) == [RED, GREEN, BLUE, WHITE]


def test_alpha_is_laid_over_white() -> None:
    rgba = np.dstack([quarters(), np.full((32, 48), 255, np.uint8)])
    rgba[:16, :24, 3] = 0
    video = Video.read(encoded([rgba] * 2, codec="qtrle", pixels="argb", container="mov", source="rgba"))
    assert corners(video.frames[0]) == [WHITE, GREEN, BLUE, WHITE]
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    assert corners(read_image(buffer.getvalue()).frames[0]) == [WHITE, GREEN, BLUE, WHITE]


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [(90, [GREEN, WHITE, RED, BLUE]), (-90, [BLUE, RED, WHITE, GREEN]), (180, [WHITE, BLUE, GREEN, RED])],
)
def test_rotation_metadata_turns_the_frames(rotation: int, expected: list[tuple[int, ...]]) -> None:
    video = Video.read(encoded([quarters()] * 2, rotation=rotation))
    assert video.frames.shape[1:3] == ((32, 48) if rotation == 180 else (48, 32))
    assert corners(video.frames[0]) == expected


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ((1, 0, 0, 1), [RED, GREEN, BLUE, WHITE]),
        ((-1, 0, 0, 1), [GREEN, RED, WHITE, BLUE]),
        ((0, 1, -1, 0), [BLUE, RED, WHITE, GREEN]),  # what a phone held upright writes: a quarter turn clockwise
        ((0, 1, 1, 0), [RED, BLUE, GREEN, WHITE]),
    ],
)
def test_display_matrix(matrix: tuple[int, int, int, int], expected: list[tuple[int, ...]]) -> None:
    a, b, c, d = (value * 65536 for value in matrix)
    shown = apply_display_matrix(quarters(), np.array([[a, b, 0], [c, d, 0], [0, 0, 1 << 30]], np.int32))
    assert corners(shown) == expected


def test_exif_orientation_turns_an_image() -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters()).save(buffer, "JPEG", exif=exif, quality=95)
    assert corners(read_image(buffer.getvalue()).frames[0]) == [BLUE, RED, WHITE, GREEN]


def test_non_square_pixels_are_made_square() -> None:
    assert Video.read(encoded([quarters()] * 2, pixel_aspect=Fraction(2, 1))).frames.shape[1:3] == (32, 96)


def test_variable_rate_becomes_constant() -> None:
    # Frames at 0, 0.1, 0.2, 0.7, 0.8 s: the third one stays for half a second.
    data = encoded(list(greys(5)), times=[0, 1, 2, 7, 8], container="matroska")
    assert numbers(Video.read(data, fps=10.0))[:9] == [0, 1, 2, 2, 2, 3, 3, 3, 4]


def test_lower_rate_drops_and_higher_rate_repeats() -> None:
    data = encoded(list(greys(10)))
    assert numbers(Video.read(data)) == list(range(10))
    assert numbers(Video.read(data, fps=5.0)) == [0, 2, 4, 6, 8]
    assert sorted(set(numbers(Video.read(data, fps=24.0)))) == list(range(10))
    assert len(Video.read(data, fps=24.0)) == 24


def test_start_and_max_frames_seek() -> None:
    data = encoded(list(greys(20)))
    assert numbers(Video.read(data, start=1.2, max_frames=3)) == [12, 13, 14]
    with pytest.raises(DataError, match=r"no frames after 5\.0 s"):
        Video.read(data, start=5.0)


@given(
    steps=st.lists(st.integers(1, 400), min_size=1, max_size=30),
    fps=st.sampled_from([1.0, 7.5, 8.0, 24.0, 29.97, 60.0]),
)
def test_each_output_frame_is_the_nearest(steps: list[int], fps: float) -> None:
    times = np.cumsum([0, *steps]) / 1000
    timed = [(float(time), np.full((1, 1, 3), index, np.uint8)) for index, time in enumerate(times)]
    chosen = [int(frame[0, 0, 0]) for frame in nearest_in_time(timed, fps, hold=0.04)]
    assert len(chosen) == np.ceil((times[-1] + 0.04) * fps - 1e-4)
    for k, index in enumerate(chosen):
        distances = np.abs(times - k / fps)
        assert distances[index] <= distances.min() + 1e-5


def test_resample_in_memory_equals_reading_at_that_rate() -> None:
    data = Video(greys(20), 10.0).encode(".mp4")
    np.testing.assert_array_equal(Video.read(data).resample(4.0), Video.read(data, fps=4.0))


def test_resize_covers_and_cuts_the_centre() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    square = resize_frame(wide, 10, 10)
    assert square.shape == (10, 10, 3)
    assert (square[:, 2:8] == 200).all()
    assert square.mean() > 180
    assert resize_frame(wide, 30, 10).shape == (30, 10, 3)


def test_one_frame_and_no_frame() -> None:
    single = Video.read(encoded(list(greys(1))))
    assert (len(single), single.fps) == (1, 10.0)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuv420p"
        file.start_encoding()
    with pytest.raises(DataError, match="not a video"):
        Video.read(buffer.getvalue())


def test_a_sound_file_has_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        sound.sample_rate = 8000
        file.mux(stream.encode(sound))
    with pytest.raises(DataError, match=r"sound\.wav: no video stream"):
        Video.read(path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    whole = encoded(list(greys(10)))
    for name, data in {"cut.mp4": whole[: len(whole) // 2], "junk.mp4": b"junk" * 100, "empty.mp4": b""}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=name):
            Video.read(tmp_path / name)
    png = Video(quarters()[None], 0.0).encode(".png")
    (tmp_path / "cut.png").write_bytes(png[: len(png) // 2])
    with pytest.raises(DataError, match=r"cut\.png"):
        read_image(tmp_path / "cut.png")
    with pytest.raises(DataError, match=r"absent\.mp4: no such file"):
        Video.read(tmp_path / "absent.mp4")


def test_a_stream_yields_before_the_file_is_read_through() -> None:
    rate, frames = stream_frames(encoded(list(greys(20))), fps=5.0)
    assert (rate, next(frames).shape) == (5.0, (16, 16, 3))
    with pytest.raises(DataError, match="above 0"):
        stream_frames(b"", fps=0.0)


def test_an_mp4_takes_its_frames_as_they_are_made(tmp_path: Path) -> None:
    """The same bytes as those of all frames at once; nothing lies there before the first, and none is refused."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    with open_mp4(tmp_path / "a.mp4", 8) as add:
        assert not (tmp_path / "a.mp4").exists()
        for frame in frames:
            add(frame)
    assert (tmp_path / "a.mp4").read_bytes() == Video(frames, 8).encode(".mp4")
    with pytest.raises(DataError, match="one frame at least"), open_mp4(tmp_path / "b.mp4", 8):
        pass
    assert not (tmp_path / "b.mp4").exists()
