"""Copies: found however they were made, and told from other recordings of the same place."""

import numpy as np
import pytest
from PIL import Image

from vpoet.arrays import Frames
from vpoet.data.curate.clip_measures import hashes, spread, thumbnails
from vpoet.data.curate.duplicates import likeness, originals
from vpoet.media.video import Video

LEAST = 0.92


def recording(place: int, seed: int, count: int = 19, side: int = 64) -> Frames:
    """Two squares on their ways across a place: another ``seed`` is another recording by the same camera."""
    ground = np.random.default_rng(place).integers(0, 200, (8, 8, 3), np.uint8)
    stage = np.asarray(Image.fromarray(ground).resize((side, side), Image.Resampling.BICUBIC))
    random = np.random.default_rng((place, seed))
    frames = np.stack([stage] * count)
    for _ in range(2):
        start, way = random.uniform(8, side - 24, 2), random.uniform(-1.5, 1.5, 2)
        colour = random.integers(100, 256, 3)
        for t, frame in enumerate(frames):
            x, y = (start + way * t).clip(0, side - 16).astype(int).tolist()
            frame[y : y + 16, x : x + 16] = colour
    return frames


def crop(frames: Frames) -> Frames:
    return Video(frames[:, 5:56, 9:60], 8).resize(64, 64).frames


COPIES = {
    "again": lambda frames: frames[:17],
    "compressed": lambda frames: Video.read(Video(frames[:17], 8).encode(".mp4", crf=30)).frames,
    "cropped": lambda frames: crop(frames[:17]),
    "later": lambda frames: frames[2:19],
    "mirrored": lambda frames: frames[:17, :, ::-1],
}


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_like_its_original_and_an_other_recording_of_that_place_is_not(kind: str) -> None:
    original, copy = thumbnails(recording(0, 0)[:17]), thumbnails(COPIES[kind](recording(0, 0)))
    assert likeness(original, copy) >= LEAST
    assert likeness(copy, original) >= LEAST
    for other in (recording(0, 1), recording(1, 0)):
        assert likeness(thumbnails(other[:17]), copy) < 0.8


def test_each_clip_is_kept_once_and_copies_of_copies_do_not_chain() -> None:
    clips = [recording(0, 0)[:17], *(make(recording(0, 0)) for make in COPIES.values()), recording(0, 1)[:17]]
    small = np.stack([thumbnails(np.ascontiguousarray(frames)) for frames in clips])
    every = [["0" * 16]] * len(clips)
    found = originals(small, None, every, LEAST)
    assert found.tolist() == [0, 0, 0, 0, 0, 0, 6]
    # the embeddings are asked first: a pair that is not near is not looked at
    apart, near = np.array([[1, 0], [0, 1], [-0.7, -0.7]]), np.array([[1, 0], [-1, 0], [0.9, 0.1]])
    three = small[[0, -1, 1]]
    assert originals(three, apart.astype(np.float32), every[:3], LEAST).tolist() == [0, 1, 2]
    assert originals(three, near.astype(np.float32), every[:3], LEAST).tolist() == [0, 1, 0]


def test_clips_whose_hashes_differ_are_not_compared() -> None:
    frames = recording(0, 0)[:17]
    small = np.stack([thumbnails(frames)] * 3)
    assert originals(small, None, [hashes(frames), hashes(recording(1, 5)), hashes(frames)], LEAST).tolist() == [
        0,
        1,
        0,
    ]
    assert originals(small[:0], None, [], LEAST).tolist() == []


def test_thumbnails_of_short_and_long_clips() -> None:
    frames = recording(0, 0, count=60)
    assert thumbnails(frames).shape == thumbnails(frames[:1]).shape
    assert (thumbnails(frames[:1]) == thumbnails(frames[:1])[0]).all()
    assert (thumbnails(frames)[1] == thumbnails(frames[3:4])[0]).all()


def test_a_copy_begun_later_is_found_by_the_frames_that_both_have() -> None:
    """Short clips are filled up with their last frame, which is another two frames later."""
    frames = recording(0, 0)
    for t, frame in enumerate(frames):
        frame[40:60, 2 * t : 2 * t + 20] = (240, 30, 200)  # large and quick, so that its last place counts
    assert likeness(thumbnails(frames[:17]), thumbnails(frames[2:19])) > 0.99
    still = np.stack([frames[0]] * 17)
    assert likeness(thumbnails(still), thumbnails(frames[:17])) < 0.8
    assert likeness(thumbnails(still), thumbnails(still[:1])) == pytest.approx(1)


def test_hashes_are_those_of_imagehash() -> None:
    imagehash = pytest.importorskip("imagehash")
    odd = np.random.default_rng(0).integers(0, 256, (4, 90, 61, 3), np.uint8)
    for frames in (recording(0, 0), recording(1, 1, side=40), odd, np.full_like(odd, 130)):
        wanted = [str(imagehash.phash(Image.fromarray(frame))) for frame in spread(frames, 4)]
        assert hashes(frames) == wanted
