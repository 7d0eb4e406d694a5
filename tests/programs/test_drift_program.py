"""`sample/drift.py` as a user runs it, on a bundle of random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vpoet.evaluate.drift import panels

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("drift"), depth=1, length=400, frames=17)


def test_rollouts_become_curves_a_picture_and_a_line_a_segment(program: Program, model: Path, tmp_path: Path) -> None:
    status, out, err = program(
        "sample/drift.py", "--model", model, "--count", 2, "--frames", 37, "--out", tmp_path / "drift", "--json"
    )
    assert status == 0, err
    lines = [json.loads(line) for line in (tmp_path / "drift" / "segments.jsonl").read_text().splitlines()]
    assert sorted((line["rollout"], line["frame"]) for line in lines) == [(0, 0), (0, 16), (1, 0), (1, 16)]
    assert all(line["start_who"] for line in lines if line["frame"] == 0)
    assert all(100 < line["megabytes"] < 1e5 for line in lines)
    result = json.loads(out.splitlines()[-1])
    assert [frame for frame, _ in result["curve"]] == [0, 16]
    assert (
        set(result["curve"][1][1])
        == set(result["real"])
        == {name for names in panels(lines[0]).values() for name in names}
    )
    assert result["real"]["prompt_ground"][0] <= 1
    assert "2 rollouts of 37 frames" in (tmp_path / "drift" / "results.md").read_text()
    for picture in ("drift.png", "rollouts.png"):
        assert Image.open(tmp_path / "drift" / picture).width > 150


def test_a_clip_too_short_for_a_curve_is_refused(program: Program, model: Path, tmp_path: Path) -> None:
    status, _, err = program("sample/drift.py", "--model", model, "--frames", 17, "--out", tmp_path / "drift")
    assert (status, err) == (2, "error: frames = 17: a curve begins with two segments, 33 frames\n")
