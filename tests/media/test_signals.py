"""What pixels say: motion of camera and objects that is known, pictures whose sharpness, bars and cuts are known."""

import io
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter

from vpoet.arrays import Frames
from vpoet.media import signals
from vpoet.media.codec_vectors import Vectors, codec_motion
from vpoet.media.video import Video

FPS = 8.0


def texture(height: int = 200, width: int = 240, seed: int = 0) -> Frames:
    """Something to be seen everywhere."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def pan(step: int = 3, count: int = 5, seed: int = 0) -> Frames:
    """A camera that goes right by ``step`` of 128 pixels."""
    whole = texture(seed=seed)
    return np.stack([whole[:128, step * t : step * t + 160] for t in range(count)])


def mover(step: int = 3, count: int = 5) -> Frames:
    """A square of 32 pixels that goes right on a ground that stands still."""
    frames = np.stack([texture()[:128, :160]] * count)
    square = texture(32, 32, seed=1)
    for t, frame in enumerate(frames):
        frame[40:72, 20 + step * t : 52 + step * t] = square
    return frames


def test_a_camera_is_told_from_an_object() -> None:
    found = signals.motion(signals.greys(pan()), FPS)
    wanted = 3 / 128 * 100 * FPS
    assert found.camera == pytest.approx(wanted, rel=0.05)
    assert found.whole == pytest.approx(wanted, rel=0.1)
    assert found.object < 0.1 * wanted
    found = signals.motion(signals.greys(mover()), FPS)
    assert found.camera < 0.05
    assert found.object == pytest.approx(wanted * 32 * 32 / (128 * 160), rel=0.4)
    assert found.whole == pytest.approx(found.object, abs=0.05)


def plain(side: int, step: int) -> Frames:
    """A square of nearly one colour that goes right before a sky of one."""
    frames = np.full((7, 128, 160, 3), (120, 180, 230), np.uint8)
    frames[:, 90:] = texture()[90:128, :160]  # a ground to see that the camera stands still
    for t, frame in enumerate(frames):
        frame[30 : 30 + side, 40 + step * t : 40 + step * t + side] = (200, 60, 40)
        frame[36 : 30 + side, 44 + step * t : 46 + step * t] = (250, 240, 90)
    return frames


@pytest.mark.parametrize(
    ("frames", "camera", "own", "sharp", "contrast"),
    [
        (pan(), 18.744397, 0.019744, 33.161011, 0.157039),
        (pan(step=1), 6.254974, 0.0, 32.752897, 0.156666),
        (mover(), 0.0, 0.939271, 95.932262, 0.157399),
        (plain(14, 6), 0.0, 0.424258, 115.457391, 0.119868),
        (plain(18, 2), 0.0, 0.182320, 135.085516, 0.121008),
    ],
)
def test_what_is_said_is_what_was_always_said(
    frames: Frames, camera: float, own: float, sharp: float, contrast: float
) -> None:
    """Numbers of a slow version, whose camera was fitted to every second pixel, in real numbers."""
    pictures = signals.greys(frames)
    found = signals.motion(pictures, FPS)
    assert found.camera == pytest.approx(camera, rel=1e-4)
    assert found.object == pytest.approx(own, rel=1e-3)
    assert signals.sharpness(pictures) == pytest.approx(sharp, rel=1e-6)
    assert signals.contrast(pictures) == pytest.approx(contrast, abs=1e-6)


@pytest.mark.parametrize(("side", "step"), [(14, 2), (14, 6), (18, 2), (18, 5)])
def test_a_plain_thing_moves_with_its_inside_and_without_what_it_covers(side: int, step: int) -> None:
    """Its inside looks the same before and after, and what it covers and uncovers changes without moving."""
    found = signals.motion(signals.greys(plain(side, step)), FPS)
    wanted = step / 128 * 100 * FPS * side * side / (128 * 160)
    assert found.camera < 0.05
    assert found.object == pytest.approx(wanted, rel=0.35)


def test_a_slow_camera_is_seen() -> None:
    """Half a pixel of 128 a step: less changes by noise than a quick one leaves."""
    whole = Image.fromarray(texture(400, 480))
    ways = [np.asarray(whole.resize((160, 128), Image.Resampling.BOX, box=(t, 0, 320 + t, 256))) for t in range(6)]
    found = signals.motion(signals.greys(np.stack(ways)), FPS)
    assert found.camera == pytest.approx(0.5 / 128 * 100 * FPS, rel=0.15)
    assert found.object < 0.1 * found.camera


def test_a_zoom_is_the_camera_and_what_stands_still_does_not_move() -> None:
    whole = Image.fromarray(texture())
    boxes = [(t * 2, t * 1.6, 200 - t * 2, 160 - t * 1.6) for t in range(5)]
    zoom = np.stack([np.asarray(whole.resize((160, 128), Image.Resampling.BICUBIC, box=box)) for box in boxes])
    found = signals.motion(signals.greys(zoom), FPS)
    assert found.camera > 3
    assert found.object < 0.2 * found.camera
    assert signals.motion(signals.greys(pan(step=0)), FPS) == (0, 0, 0)
    assert signals.motion(signals.greys(pan(count=1)), 0.0) == (0, 0, 0)


def test_motion_does_not_depend_on_size_or_rate() -> None:
    frames = pan(step=2, count=9)
    here = signals.motion(signals.greys(frames), FPS)
    larger = signals.motion(signals.greys(frames.repeat(2, 1).repeat(2, 2)), FPS)
    slower = signals.motion(signals.greys(frames[::2]), FPS / 2)
    assert larger.camera == pytest.approx(here.camera, rel=0.05)
    assert slower.camera == pytest.approx(here.camera, rel=0.05)


def test_codec_vectors_of_a_pan_and_none_of_an_image() -> None:
    frames = pan(step=4, count=9)
    told = codec_motion(Video(frames, FPS).encode(".mp4"))
    wanted = 4 / 128 * 100 * FPS
    assert told is not None
    assert wanted / 2 < told < 2 * wanted  # vectors may lead to frames farther away
    assert codec_motion(Video(frames[:1], 0.0).encode(".png")) is None


def test_a_clip_is_decoded_once_for_its_pixels_and_its_vectors() -> None:
    payload = Video(pan(step=4, count=9), FPS).encode(".mp4")
    vectors = Vectors()
    video = Video.read(payload, look=vectors.add)
    assert np.array_equal(video.frames, Video.read(payload).frames)
    assert vectors.motion(video.fps) == codec_motion(payload)
    lengths = []
    with av.open(io.BytesIO(payload)) as container:  # the same, of a decoder that is asked for vectors alone
        stream = container.streams.video[0]
        stream.codec_context.options = {"flags2": "+export_mvs"}
        for frame in container.decode(stream):
            told: Any = frame.side_data.get("MOTION_VECTORS")
            if told is not None:
                each = [(np.hypot(v.motion_x, v.motion_y) / v.motion_scale, float(v.w) * v.h) for v in told]
                whole = max(sum(area for _, area in each), 128 * 160)
                lengths.append(sum(way * area for way, area in each) / whole / 128)
    assert vectors.motion(video.fps) == pytest.approx(np.mean(lengths) * 100 * FPS)


def test_sharpness_brightness_and_contrast() -> None:
    sharp = pan(count=2)
    soft = np.stack([np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(3))) for frame in sharp])
    sharp, soft, half = (signals.greys(frames) for frames in (sharp, soft, sharp // 2))
    assert signals.sharpness(sharp) > 4 * signals.sharpness(soft)
    assert signals.brightness(half) == pytest.approx(signals.brightness(sharp) / 2, abs=0.01)
    assert signals.contrast(half) == pytest.approx(signals.contrast(sharp) / 2, abs=0.01)


def test_bars_are_measured_and_a_dark_scene_is_none() -> None:
    frames = pan().copy()
    assert signals.letterbox(signals.greys(frames)) == 0
    frames[:, :16] = frames[:, -16:] = 5
    assert signals.letterbox(signals.greys(frames)) == pytest.approx(0.25, abs=0.02)
    frames[:, :, :40] = 0
    assert signals.letterbox(signals.greys(frames)) == pytest.approx(1 - 0.75 * 0.75, abs=0.03)
    assert signals.letterbox(signals.greys(pan() // 16)) == 0


def test_bars_are_counted_line_by_line_as_all_at_once() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        pictures = random.integers(0, random.choice([20, 40, 256]), (3, 40, 56), np.uint8)
        top, bottom, left, right = random.integers(0, 9, 4)
        pictures[:, :top] = pictures[:, 40 - bottom :] = random.integers(0, 20)
        pictures[:, :, :left] = pictures[:, :, 56 - right :] = random.integers(0, 30)
        peak, low = pictures.max(0).astype(float), pictures.min(0).astype(float)
        kept = 1.0
        for axis in (1, 0):
            level, spread = np.percentile(peak, 95, axis=axis), np.percentile(peak - low, 95, axis=axis)
            dark = np.append((level < signals.DARK) & (spread < signals.FLAT), False)
            first, last = (int(np.argmin(each)) for each in (dark, np.append(dark[-2::-1], False)))
            kept *= max(len(level) - first - last, 0) / len(level)
        assert signals.letterbox(pictures) == pytest.approx(1 - kept)


def test_a_cut_is_counted_and_a_flash_or_a_pan_is_not() -> None:
    joined = np.concatenate([pan(step=1), pan(step=1, seed=1)])
    assert signals.cuts(joined) == 1
    assert signals.cuts(pan(step=10)) == 0
    flash = pan(count=7).copy()
    flash[3] = 255 - (255 - flash[3]) // 4
    assert signals.cuts(flash) == 0
    assert signals.cuts(pan(count=1)) == 0


def test_what_sweeps_through_the_picture_is_no_cut() -> None:
    ground = np.stack([texture(128, 160)] * 9)
    swept = ground.copy()
    for t, left in enumerate((0, 0, 0, 0, 0, 0, 70, 10, 70)):
        swept[t, 10:, left : left + 48] = 250
    assert np.abs(np.diff(swept.astype(float), axis=0)).mean((1, 2, 3)).max() > signals.CUT
    assert signals.cuts(swept) == 0
    other = np.stack([texture(128, 160, seed=3)] * 9)
    joined = np.concatenate([swept, other])
    assert signals.cuts(joined) == 1
    barred = joined.copy()
    barred[:, :40] = barred[:, -40:] = 4
    assert signals.cuts(barred) == 1
    sky = np.stack([ground, other])  # two shots that share most of what they show
    sky[:, :, :70] = 180
    assert signals.cuts(np.concatenate(list(sky))) == 1
