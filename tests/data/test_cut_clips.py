"""Ingest with cuts: clips of one shot each, at any rate, and folders that were made without them go on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vpoet.arrays import Frames
from vpoet.data.clips import ClipSettings, shot_windows, windows
from vpoet.data.folder import read_videos
from vpoet.data.ingest import SETTINGS, ingest
from vpoet.data.sources import divide, gather
from vpoet.errors import BackendError, DataError
from vpoet.media import detectors
from vpoet.media.video import Video

LENGTHS = (20, 7, 33)
CUT = ClipSettings(frames=4, fps=8.0, height=16, width=24, cuts="vpoet")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shots at 24 frames a second, each of one picture."""
    chance = np.random.default_rng(0)
    pictures = [chance.integers(0, 256, (4, 6, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1) for _ in LENGTHS]
    frames = np.concatenate([[picture] * count for picture, count in zip(pictures, LENGTHS, strict=True)])
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    Video(frames.astype(np.uint8), 24.0).write(path)
    return path


def clips(film: Path, out: Path, settings: ClipSettings) -> list[tuple[dict[str, object], Frames]]:
    ingest(divide(gather([str(film)])), out, settings)
    return [(sample.json, video.frames) for sample, video in read_videos(out)]


def at(number: int) -> float:
    """Where the frame is in the film, in seconds."""
    return number / 8.0


def test_no_clip_has_frames_of_two_shots(film: Path, tmp_path: Path) -> None:
    found = clips(film, tmp_path / "out", replace(CUT, min_frames=2))
    # At 8 fps, shots are 0..6, 7..8 and 9..19: decoded frames 0, 3, ..., 18; 21, 24; 27, ..., 57.
    assert [(json["shot"], json["start"], json["frames"]) for json, _ in found] == [
        (0, at(0), 4), (0, at(4), 3), (1, at(7), 2), (2, at(9), 4), (2, at(13), 4), (2, at(17), 3),
    ]  # fmt: skip
    for _, frames in found:
        assert np.abs(frames.astype(int) - frames[0]).mean() < 3


def test_without_cuts_clips_go_over_them(film: Path, tmp_path: Path) -> None:
    found = clips(film, tmp_path / "out", replace(CUT, cuts=""))
    assert [json["start"] for json, _ in found] == [at(0), at(4), at(8), at(12), at(16)]
    assert "shot" not in found[0][0]
    assert any(np.abs(frames.astype(int) - frames[0]).mean() > 20 for _, frames in found)


def test_short_shots_are_left_out(film: Path, tmp_path: Path) -> None:
    found = clips(film, tmp_path / "out", replace(CUT, min_frames=2, min_shot=8))
    assert {json["shot"] for json, _ in found} == {2}


def test_windows_of_one_shot_are_those_of_a_film_without_cuts() -> None:
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(11)]
    whole = list(windows(frames, 4, 3, 2))
    shots = list(shot_windows([(5, frame) for frame in frames], 4, 3, 2))
    assert [(first, clip.tolist()) for first, clip in whole] == [(first, clip.tolist()) for first, _, clip in shots]
    assert {shot for _, shot, _ in shots} == {5}


def test_frames_between_shots_are_in_no_window() -> None:
    shots = [None, 0, 0, 0, None, None, 1, 1, 1, 1, 2]
    frames = [(shot, np.full((1, 1, 3), number, np.uint8)) for number, shot in enumerate(shots)]
    found = [(first, shot, clip[:, 0, 0, 0].tolist()) for first, shot, clip in shot_windows(frames, 2, 2, 1)]
    assert found == [(1, 0, [1, 2]), (3, 0, [3]), (6, 1, [6, 7]), (8, 1, [8, 9]), (10, 2, [10])]
    assert [shot for _, shot, _ in shot_windows(frames, 2, 2, 1, min_shot=4)] == [1, 1]


def test_a_folder_of_an_earlier_version_goes_on_and_one_with_cuts_is_another(film: Path, tmp_path: Path) -> None:
    clips(film, tmp_path / "out", replace(CUT, cuts=""))
    assert not {"cuts", "min_shot"} & set(json.loads((tmp_path / "out" / SETTINGS).read_text()))
    clips(film, tmp_path / "out", replace(CUT, cuts=""))
    with pytest.raises(DataError, match="cuts None -> vpoet"):
        clips(film, tmp_path / "out", CUT)
    clips(film, tmp_path / "cut", CUT)
    with pytest.raises(DataError, match="made with other settings"):
        clips(film, tmp_path / "cut", replace(CUT, cuts=""))


def test_a_detector_that_cannot_be_had_stops_before_anything_is_written(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ImportError("No module named 'scenedetect'")

    monkeypatch.setitem(detectors.DETECTORS, "content", missing)
    with pytest.raises(BackendError, match=r"vpoet\[curate\]"):
        clips(film, tmp_path / "out", replace(CUT, cuts="content"))
    with pytest.raises(DataError, match="no detector 'magic'"):
        clips(film, tmp_path / "out", replace(CUT, cuts="magic"))
    with pytest.raises(DataError, match="give cuts"):
        replace(CUT, cuts="", min_shot=3)
    assert not (tmp_path / "out").exists()
