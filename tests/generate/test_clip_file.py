"""Files of samples: whole or not there, written as frames come, with a record that tells how they were made."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.errors import OutputError, VpoetWarning
from vpoet.generate.clip_file import Film, is_made
from vpoet.generate.kept_codes import beside
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video

FRAMES = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
MADE: dict[str, Any] = {"prompt": "a", "seed": 1}


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_film_in_pieces_is_the_video_in_one(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / "new" / f"x{suffix}"
    with Film(file, 8) as film:
        film.add(FRAMES[:0])
        film.add(FRAMES[:4])
        film.add(FRAMES[4:])
        assert not file.exists()
        film.finish(MADE)
    assert file.read_bytes() == Video(FRAMES, 8).encode(suffix)
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, beside(file).name]


def test_a_png_is_a_frame_or_a_sheet(tmp_path: Path) -> None:
    for frames, picture in ((FRAMES[:1], FRAMES[0]), (FRAMES, contact_sheet([("a", FRAMES)]))):
        with Film(tmp_path / "x.png", 8) as film:
            film.add(frames)
            film.finish(MADE)
        assert np.array_equal(Video.read(tmp_path / "x.png").frames[0], picture)


def test_an_mp4_holds_no_frames(tmp_path: Path) -> None:
    with Film(tmp_path / "x.mp4", 8) as film:
        for _ in range(30):
            film.add(FRAMES)
        assert film._held == []
        film.finish(MADE)
    assert len(Video.read(tmp_path / "x.mp4")) == 180


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_breaks_off_leaves_the_film_that_was_there(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"x{suffix}"
    with Film(file, 8) as film:
        film.add(FRAMES)
        film.finish(MADE)
    before = file.read_bytes()
    film = Film(file, 8)
    film.add(FRAMES[:2])
    error = KeyboardInterrupt()
    film.__exit__(KeyboardInterrupt, error, None)
    assert file.read_bytes() == before
    assert is_made(file, MADE)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, full: None, suffix: str) -> None:
    def write() -> None:
        with Film(tmp_path / f"x{suffix}", 8) as film:
            film.add(FRAMES)
            film.finish(MADE)

    with pytest.raises(OutputError, match=f"x{suffix}: cannot be written: File too large"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_film_is_made_if_its_record_says_so(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    assert not is_made(file, MADE)
    with Film(file, 8) as film:
        film.add(FRAMES)
        film.finish(MADE | {"tokens": 3})
    assert is_made(file, MADE)
    assert not is_made(file, MADE | {"seed": 2})
    for rounding in ({"compiled": True}, {"guesses": 3}):  # told only where they are, so their absence says something
        beside(file).write_text(json.dumps(MADE | rounding))
        assert is_made(file, MADE | rounding)
        assert not is_made(file, MADE)
    beside(file).write_text("{")
    assert not is_made(file, MADE)


def test_a_clip_whose_record_does_not_tell_the_decoder_is_made_again_and_told(tmp_path: Path) -> None:
    file, now = tmp_path / "x.mp4", {"model": "a", "decoder": "b"}
    file.touch()
    beside(file).write_text(json.dumps({"model": "a"}))
    with pytest.warns(VpoetWarning, match=r"x\.mp4: an older vpoet made it"):
        assert not is_made(file, now)
    for other in ({**now, "decoder": "c"}, ["model"]):
        beside(file).write_text(json.dumps(other))
        assert not is_made(file, now)
    beside(file).write_text(json.dumps(now))
    assert is_made(file, now)


def test_a_suffix_in_capitals_is_that_suffix(tmp_path: Path) -> None:
    with Film(tmp_path / "x.GIF", 8) as film:
        film.add(FRAMES)
        film.finish(MADE)
    assert (tmp_path / "x.GIF").read_bytes() == Video(FRAMES, 8).encode(".gif")
