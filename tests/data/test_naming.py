"""Captions of clips that come without any."""

from pathlib import Path

import pytest

from vpoet.data.naming import NOTHING, Named, named


@pytest.mark.parametrize(
    ("file", "caption", "source"),
    [
        ("a_red-ball rolls.mp4", "a red ball rolls", "name"),
        ("dog_runs-01.mp4", "dog runs", "name"),
        ("v_ApplyEyeMakeup_g01_c01.avi", "apply eye makeup", "name"),
        ("walking/IMG_0001.MOV", "walking", "folder"),
        ("day 3/two dogs/20230509_022247.mp4", "day two dogs", "folder"),
        ("VID_20230509_022247.mp4", NOTHING, "nothing"),
        ("20d7e5d4.mp4", NOTHING, "nothing"),
        ("chien_qui_court.mp4", "chien qui court", "name"),
        ("Москва_ночью.mp4", "москва ночью", "name"),
    ],
)
def test_names_become_captions(tmp_path: Path, file: str, caption: str, source: str) -> None:
    assert named(str(tmp_path / file), file) == Named(caption, source)


def test_a_text_beside_the_clip_comes_first(tmp_path: Path) -> None:
    (tmp_path / "dog_runs.txt").write_text("  A dog\n runs along a beach ")
    assert named(str(tmp_path / "dog_runs.mp4"), "dog_runs.mp4") == Named("A dog runs along a beach", "text")
    (tmp_path / "cat.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "cow.txt").mkdir()
    (tmp_path / "fox.txt").write_text(" \n")
    for name in ("cat", "cow", "fox"):
        assert named(str(tmp_path / f"{name}.mp4"), f"{name}.mp4") == Named(name, "name")
