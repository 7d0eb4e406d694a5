"""Pictures and videos as phones, screen recorders, downloaders and editors write them: read as a player shows them, or
refused with what is wrong. One row a case."""

import io
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image, ImageCms

from vpoet.errors import DataError
from vpoet.media.colour import HLG, PQ, tone_mapped
from vpoet.media.container import in_order
from vpoet.media.images import MOST_PIXELS
from vpoet.media.video import Video, stream_frames

H, W = 32, 48
Pixel = tuple[int, int, int]
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def plain(colour: Pixel, height: int = H, width: int = W) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def halves(left: Pixel, right: Pixel) -> np.ndarray:
    frame = plain(left)
    frame[:, W // 2 :] = right
    return frame


def greys(count: int) -> list[np.ndarray]:
    """Frame k is all 10 * k: it tells its own number."""
    return [plain((10 * k, 10 * k, 10 * k)) for k in range(count)]


def movie(
    *streams: Sequence[np.ndarray],
    container: str = "mp4",
    codec: str = "libx264",
    pixels: str = "yuv420p",
    source: str = "rgb24",
    options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 10),
    context: dict[str, Any] | None = None,
    disposition: Sequence[Disposition] = (),
    rate: int = 10,
) -> bytes:
    """A file by FFmpeg with a video stream for each list of frames; ``times`` count ``base``."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        made = []
        for number, frames in enumerate(streams):
            stream = file.add_stream(codec, rate=rate, options=options or ({"crf": "1"} if codec == "libx264" else {}))
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pixels
            stream.codec_context.time_base = base
            for name, value in (context or {}).items():
                setattr(stream.codec_context, name, value)
            if disposition:
                stream.disposition = disposition[number]
            made.append(stream)
        for stream, frames in zip(made, streams, strict=True):
            for index, array in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(array, format=source)
                frame = frame if source == pixels else frame.reformat(format=pixels, dst_colorspace="ITU601")
                frame.pts, frame.time_base = times[index] if times else index, base if times else Fraction(1, 10)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
    return buffer.getvalue()


def yuv(luma: int, blue: int, red: int, height: int = H, width: int = W) -> np.ndarray:
    """A frame of one colour as yuv420p is laid out in memory, untouched by any matrix."""
    sizes = height * width, height * width // 4, height * width // 4
    return np.concatenate([np.full(n, v, np.uint8) for n, v in zip(sizes, (luma, blue, red), strict=True)]).reshape(
        height * 3 // 2, width
    )


def latin(data: bytes) -> bytes:
    assert b"VideoHandler" in data
    return data.replace(b"VideoHandler", bytes([0xCE, 0xE1, 0xF0]) + b"orHandlr" + bytes([0xE8]))


def with_cover(frames: Sequence[np.ndarray], *, movie_too: bool = True) -> bytes:
    """An .mp4 whose first stream is a red cover picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        cover = file.add_stream("mjpeg", rate=1, options={"strict": "unofficial"})
        cover.height, cover.width, cover.pix_fmt, cover.disposition = H, W, "yuvj420p", Disposition.attached_pic
        sound = file.add_stream("aac", rate=8000, layout="mono")
        stream = file.add_stream("libx264", rate=10) if movie_too else None
        if stream:
            stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
        file.mux(cover.encode(av.VideoFrame.from_ndarray(plain(RED), format="rgb24").reformat(format="yuvj420p")))
        file.mux(cover.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 8000
        file.mux(sound.encode(silence))
        file.mux(sound.encode())
        for array in frames if stream else ():
            file.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        if stream:
            file.mux(stream.encode())
    return buffer.getvalue()


def trimmed(data: bytes, first: int, frames: int) -> bytes:
    """The edit list of an .mp4 of `movie` shows only some frames, as a phone's trimming does."""
    at = data.index(b"elst") + 12
    delay = int.from_bytes(data[at + 4 : at + 8], "big")
    edit = (frames * 100).to_bytes(4, "big") + (delay + first * 1024).to_bytes(4, "big")
    return data[:at] + edit + data[at + 8 :]


def combed() -> list[np.ndarray]:
    """A white bar that moves 8 pixels a frame, as a camera that takes odd lines half a frame later has it."""
    frames = []
    for k in range(4):
        frame = plain(BLACK)
        frame[::2, 8 * k : 8 * k + 8] = frame[1::2, 8 * k + 4 : 8 * k + 12] = WHITE
        frames.append(frame)
    return frames


def from_the_middle(data: bytes, part: float) -> bytes:
    """A recording of packets of 188 bytes, joined while it went on; the first two say what is in it."""
    cut = int(len(data) // 188 * part) * 188
    return data[: 3 * 188] + data[cut:]


def hue(frame: np.ndarray, at: float) -> Pixel:
    """The colour of the middle line at a share of the width."""
    return tuple(int(value) for value in frame[frame.shape[0] // 2, int(frame.shape[1] * at)])  # type: ignore[return-value]


def clear_right(colour: Pixel, alpha: int = 0) -> np.ndarray:
    return np.dstack([plain(colour), halves((255,) * 3, (alpha,) * 3)[..., :1]])


SKIN = 150, 90, 180
"""Y, Cb, Cr. By hand, BT.601 full range: R = 150 + 1.402 * 52 = 223, B = 150 + 1.772 * -38 = 83."""

HALF = {"pixels": "yuva420p", "source": "rgba"}
INTERLACED = {"flags": "+ildct", "x264-params": "tff=1"}
TEN = list(range(10))

MOVIES: dict[str, tuple[Callable[[], bytes], list[Any], Pixel | None, Pixel | None]] = {
    # name: (file, a tenth of each frame's brightness or how many frames, the first one's left and right colour)
    "names in latin-1": (lambda: latin(movie(greys(4))), [0, 1, 2, 3], None, None),
    "the default stream is the second": (
        lambda: movie([plain(RED)] * 2, [plain(BLUE)] * 2, disposition=[Disposition(0), Disposition.default]),
        [2], BLUE, BLUE,
    ),
    "a cover picture before the video": (lambda: with_cover([plain(BLUE)] * 2), [2], BLUE, BLUE),
    "a clock that jumps a day ahead": (
        lambda: movie(greys(10), times=[*range(6), *range(864006, 864010)]), TEN, None, None,
    ),
    "a .ts clock that jumps a minute": (
        lambda: movie(greys(10), container="mpegts", times=[*range(6), *range(606, 610)]), TEN, None, None,
    ),
    "two .ts files, one behind the other": (
        lambda: movie(greys(5), container="mpegts") + movie(greys(5), container="mpegts"), [0, 1, 2, 3, 4] * 2,
        None, None,
    ),
    "a clock that starts late": (
        lambda: movie(greys(4), container="mpegts", times=range(900, 904)), [0, 1, 2, 3], None, None,
    ),
    "frames before time 0": (lambda: movie(greys(8), times=range(-3, 5)), [3, 4, 5, 6, 7], None, None),
    "trimmed by an edit list": (lambda: trimmed(movie(greys(10)), 3, 4), [3, 4, 5, 6], None, None),
    "half clear VP9": (
        lambda: movie([clear_right(RED)] * 2, container="webm", codec="libvpx-vp9", **HALF), [2], RED, WHITE,
    ),
    "half clear ProRes": (
        lambda: movie(
            [clear_right(RED, 128)] * 2, container="mov", codec="prores_ks", pixels="yuva444p10le", source="rgba"
        ),
        [2], RED, (255, 127, 127),
    ),
    "BT.601": (lambda: movie([yuv(*SKIN)] * 2, source="yuv420p", context={"colorspace": 6}), [2], (238, 127, 79), None),
    "BT.709": (lambda: movie([yuv(*SKIN)] * 2, source="yuv420p", context={"colorspace": 1}), [2], (249, 136, 75), None),
    "BT.2020": (
        lambda: movie([yuv(*SKIN)] * 2, source="yuv420p", context={"colorspace": 9}), [2], (243, 129, 74), None,
    ),
    "untagged": (lambda: movie([yuv(*SKIN)] * 2, source="yuv420p"), [2], (238, 127, 79), None),
    "untagged HD": (lambda: movie([yuv(*SKIN, 720, 1280)] * 2, source="yuv420p"), [2], (249, 136, 75), None),
    "full range": (
        lambda: movie([yuv(*SKIN)] * 2, source="yuv420p", context={"colorspace": 6, "color_range": 2}),
        [2], (223, 126, 83), None,
    ),
    "HDR, PQ": (
        lambda: movie([plain((148,) * 3)] * 2, pixels="yuv420p10le", context={"color_trc": PQ, "colorspace": 9}),
        [2], (214, 214, 214), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVIES)
def test_a_video_is_read_as_a_player_shows_it(name: str) -> None:
    make, told, left, right = MOVIES[name]
    video = Video.read(make())
    assert video.fps == pytest.approx(10)
    assert told in ([len(video)], [round(float(frame.mean()) / 10) for frame in video.frames])
    for colour, at in ((left, 0.1), (right, 0.9)):
        assert colour is None or np.abs(np.subtract(hue(video.frames[0], at), colour)).max() <= 3


def test_interlaced_frames_are_deinterlaced_and_none_is_lost() -> None:
    """Of what moves, odd and even lines show the same; without the mark in the file, nothing is done."""
    as_told = Video.read(movie(combed(), options=INTERLACED)).frames[1].astype(int)
    unmarked = Video.read(movie(combed())).frames[1].astype(int)
    combs = [np.abs(np.diff(frame[8:-8, :, 0], axis=0)).mean() for frame in (as_told, unmarked)]
    assert combs[0] < combs[1] / 3
    assert len(Video.read(movie(combed(), options=INTERLACED))) == 4


def test_the_rate_of_a_screen_recorder() -> None:
    """A .webm that calls its clock's ticks a rate, and a still picture between two movements."""
    times = [0, 33, 67, 100, 900, 933, 967, 1000]
    data = movie(greys(8), container="matroska", base=Fraction(1, 1000), times=times, rate=1000)
    assert Video.read(data).fps == pytest.approx(30, abs=0.3)
    numbers = [round(float(frame.mean()) / 10) for frame in Video.read(data, fps=10).frames]
    assert numbers == [0, *[3] * 5, *[4] * 4, 7]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),
        ([5, 6, None, 8], [5, 6, 7, 8]),
        ([0, 1, 1, 0, 4], [0, 1, 2, 3, 4]),
        ([0, 1, 500, 501, 503], [0, 1, 2, 3, 5]),
        ([100, 101, 0, 1, 2], [100, 101, 102, 103, 104]),
        ([0, 1, 500, 3, 4], [0, 1, 2, 3, 4]),
        ([None, None], [0, 1]),
        ([0, 1, 9, 10], [0, 1, 9, 10]),
    ],
)
def test_clocks_are_put_in_order(told: list[float | None], expected: list[float]) -> None:
    assert [time for time, _ in in_order(((time, None) for time in told), 1.0, 20.0)] == expected


def test_a_clock_that_jumps_makes_no_endless_video() -> None:
    rate, frames = stream_frames(movie(greys(4), container="matroska", times=[0, 1, 2, 10**8]), fps=10)
    assert (rate, len(list(frames))) == (10, 4)


def test_frames_whose_size_changes_come_in_the_size_of_the_first() -> None:
    data = b"".join(
        movie([plain(colour, *size)] * 3, container="mpegts", options={"g": "1"})
        for colour, size in ((RED, (32, 48)), (BLUE, (64, 64)))
    )
    video = Video.read(data)
    assert video.frames.shape[1:] == (32, 48, 3)
    assert hue(video.frames[-1], 0.5)[2] > 240


@pytest.mark.parametrize("container", ["mpegts", "mp4", "matroska"])
def test_a_start_far_in(container: str) -> None:
    """Beyond the only keyframe, and beyond a gap that a clock's jump would be."""
    video = Video.read(movie(greys(25) * 6, container=container), start=12.0, max_frames=5)
    assert [round(float(frame.mean()) / 10) for frame in video.frames] == [20, 21, 22, 23, 24]


def test_a_recording_that_begins_between_keyframes() -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (40, H, W, 3), np.uint8))
    data = movie(frames, container="mpegts", options={"g": "10", "bf": "0"})
    assert 5 <= len(Video.read(from_the_middle(data, 0.3))) < 35


@pytest.mark.parametrize(("nits", "shown"), [(0, 0), (10, 63), (60.9, 149), (203, 214), (1000, 255), (4000, 255)])
def test_hdr_on_a_screen(nits: float, shown: int) -> None:
    """Grey: as it is up to 0.3 of the reference white (sRGB of 10 / 203 is 63, of 0.3 149), white at the peak."""
    light = nits / 10000
    root = light ** (2610 / 16384)
    signal = ((0.8359375 + 18.8515625 * root) / (1 + 18.6875 * root)) ** (2523 / 32)
    coded = np.full((1, 1, 3), round(signal * 65535), np.uint16)
    assert np.abs(tone_mapped(coded, PQ).astype(int) - shown).max() <= 1


def test_hlg_is_relative_to_its_own_peak() -> None:
    """Reference white is at 75% of the signal (BT.2408, table 1), and so what PQ's is shown as."""
    white, peak, black = (tone_mapped(np.full((1, 1, 3), level, np.uint16), HLG) for level in (49151, 65535, 0))
    assert np.abs(white.astype(int) - 214).max() <= 2
    assert (peak.min(), black.max()) == (255, 0)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pages(kind: str, **options: Any) -> bytes:
    """Red, green and blue."""
    first, *others = (Image.fromarray(plain(colour)) for colour in (RED, GREEN, BLUE))
    return saved(first, kind, save_all=True, append_images=others, **options)


def clear_palette() -> Image.Image:
    image = Image.fromarray(halves(RED, BLUE)).quantize(4)
    image.info["transparency"] = image.getpixel((W - 1, 0))
    return image


def swapped_profile() -> bytes:
    """A colour profile in which red is what sRGB calls green."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "wide".encode("utf-16-be"))


def deep(value: int, kind: str) -> bytes:
    return saved(Image.fromarray(np.full((H, W), value, np.uint16)), kind)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(halves(RED, BLUE)), "JPEG", exif=exif, quality=95)


PICTURES: dict[str, tuple[Callable[[], bytes], int, Pixel, Pixel]] = {
    # name: (file, frames, left colour, right colour of the first)
    "a phone's photo with a preview": (lambda: pages("MPO"), 1, RED, RED),
    "pages": (lambda: pages("TIFF"), 1, RED, RED),
    "an animated .gif": (lambda: pages("GIF", duration=100), 3, RED, RED),
    "an animated .webp": (lambda: pages("WEBP", duration=100, lossless=True), 3, RED, RED),
    "an animated .png": (lambda: pages("PNG", duration=100), 3, RED, RED),
    "an animated .png with another picture for old viewers": (
        lambda: pages("PNG", duration=100, default_image=True), 2, GREEN, GREEN,
    ),
    "an animated .avif": (lambda: pages("AVIF", duration=100, quality=100), 3, RED, RED),
    "an animation in haste": (lambda: pages("GIF", duration=10), 3, RED, RED),
    "16-bit grey": (lambda: deep(0x8080, "PNG"), 1, (128,) * 3, (128,) * 3),
    "dark 16-bit grey": (lambda: deep(200, "PNG"), 1, (1,) * 3, (1,) * 3),
    "16-bit grey .tiff": (lambda: deep(0xFFFF, "TIFF"), 1, WHITE, WHITE),
    "grey": (lambda: saved(Image.new("L", (W, H), 77), "PNG"), 1, (77,) * 3, (77,) * 3),
    "two colours": (lambda: saved(Image.fromarray(halves(BLACK, WHITE)).convert("1"), "PNG"), 1, BLACK, WHITE),
    "palette": (lambda: saved(Image.fromarray(halves(RED, BLUE)).quantize(4), "PNG"), 1, RED, BLUE),
    "palette with a clear colour": (lambda: saved(clear_palette(), "PNG"), 1, RED, WHITE),
    "clear grey": (lambda: saved(Image.fromarray(clear_right(BLACK)).convert("LA"), "PNG"), 1, BLACK, WHITE),
    "half clear": (lambda: saved(Image.fromarray(clear_right(BLACK, 51)), "PNG"), 1, BLACK, (204,) * 3),
    "for print": (lambda: saved(Image.fromarray(halves(RED, WHITE)).convert("CMYK"), "JPEG"), 1, (254, 0, 0), WHITE),
    "another colour space": (
        lambda: saved(Image.fromarray(halves(RED, WHITE)), "PNG", icc_profile=swapped_profile()), 1, GREEN, WHITE,
    ),
    "a damaged colour profile": (
        lambda: saved(Image.fromarray(halves(RED, BLUE)), "PNG", icc_profile=b"damaged" * 9), 1, RED, BLUE,
    ),
    "mirrored by EXIF": (lambda: turned(2), 1, BLUE, RED),
    "upside down by EXIF": (lambda: turned(3), 1, BLUE, RED),
    "an orientation that there is not": (lambda: turned(77), 1, RED, BLUE),
    "damaged EXIF": (lambda: turned(3).replace(b"Exif\0\0MM", b"Exif\0\0MX"), 1, RED, BLUE),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_read_as_a_viewer_shows_it(name: str) -> None:
    make, count, left, right = PICTURES[name]
    video = Video.read(make())
    assert (len(video), video.fps) == (count, pytest.approx(10) if count > 1 else 0)
    for colour, at in ((left, 0.1), (right, 0.9)):
        assert np.abs(np.subtract(hue(video.frames[0], at), colour)).max() <= 3


def bomb() -> bytes:
    """A .gif of some bytes that claims 65,500 x 65,500 pixels."""
    data = bytearray(saved(Image.new("P", (8, 8)), "GIF"))
    data[6:10] = (65500).to_bytes(2, "little") * 2
    return bytes(data)


def wide_bomb() -> bytes:
    """Pixels that are shown 1,000 times as wide as they are high."""
    return movie([plain(RED, 1024, 1024)] * 2, context={"sample_aspect_ratio": Fraction(1000, 1)})


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "the file is empty"),
    "text": (lambda: b"a list of clips\n" * 99, "not a video"),
    "half": (lambda: movie(greys(9))[:900], "moov atom not found"),
    "three quarters": (lambda: (data := movie(greys(12)))[: len(data) * 3 // 4], "or the file is cut short"),
    "a list of addresses": (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.ts\n", "not a video"),
    "a list of files": (lambda: b"ffconcat version 1.0\nfile other.mp4\n", "not a video"),
    "sound with a cover": (lambda: with_cover([], movie_too=False), "no video stream in it but a cover picture"),
    "HEIF": (lambda: movie(greys(2)).replace(b"ftypisom", b"ftypheic", 1), "HEIF"),
    "unknown colours": (lambda: movie(greys(2), context={"colorspace": 14}), "matrix 14"),
    "32-bit grey": (lambda: saved(Image.fromarray(np.ones((H, W), np.float32)), "TIFF"), "32 bits"),
    "a bomb": (bomb, "too large a picture"),
    "a wide bomb": (wide_bomb, f"{MOST_PIXELS} is the most"),
    "half a picture": (lambda: saved(Image.effect_noise((W, H), 99), "PNG")[:500], "broken while decoding"),
}


@pytest.mark.parametrize("suffix", [".mp4", ".png", ".txt"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named_and_told(
    name: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, said = REFUSED[name]
    file = tmp_path / f"odd{suffix}"
    file.write_bytes(make())
    with pytest.raises(DataError, match=rf"odd\{suffix}: .*{said}") as error:
        Video.read(file)
    assert "Errno" not in str(error.value)
    assert capfd.readouterr() == ("", ""), "nothing but the error tells of it"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    for name, said in (
        ("folder.mp4", "a folder"),
        ("pipe.mp4", "a pipe"),
        ("no.mp4", "no such file"),
        ("x" * 999, "cannot be read"),
    ):
        with pytest.raises(DataError, match=rf"{name}: {said}"):
            Video.read(tmp_path / name)
    with pytest.raises(DataError, match="a pipe or a device"):
        Video.read("/dev/zero")


def test_the_content_of_a_file_counts_and_no_part_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = movie(greys(3))
    for name in ("a.png", "a.txt", "concat:a|b", "no suffix", "50%.mp4"):
        (tmp_path / name).write_bytes(data)
        assert len(Video.read(tmp_path / name)) == 3
    monkeypatch.chdir(tmp_path)
    assert len(Video.read("concat:a|b")) == 3


@pytest.mark.parametrize(
    ("option", "value"), [("fps", 0), ("fps", 1e9), ("fps", float("nan")), ("start", -1), ("start", float("inf"))]
)
def test_numbers_that_make_no_sense_are_refused(option: str, value: float) -> None:
    with pytest.raises(DataError, match=r"a frame rate|read from 0 seconds"):
        stream_frames(movie(greys(2)), **{option: value})
