"""`vpoet evaluate-play`: a row a course, a table at the end, and going on behind what is there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.playground.physics import ACTIONS

Program = Callable[..., tuple[int, str, str]]


def test_courses_are_judged_and_not_judged_again(
    tmp_path: Path, make_bundle: Callable[..., Path], program: Program
) -> None:
    settings = {"actions": ActionSpace(names=list(ACTIONS)), "tasks": ["play"], "window": 3}
    bundle = make_bundle(tmp_path / "model", depth=1, time_stride=1, length=400, height=32, width=32, **settings)
    out = tmp_path / "judged"
    asked = ("--model", bundle, "--out", out, "--seen", 2, "--length", 8, "--drift", 4, "--json")
    status, printed, err = program("sample/evaluate_play.py", *asked, "--count", 1)
    assert status == 0, err
    (first,) = (out / "courses.jsonl").read_text().splitlines()
    with (out / "courses.jsonl").open("a") as lines:
        lines.write('{"course": 1, "cut sh')
    status, printed, err = program("sample/evaluate_play.py", *asked, "--count", 2)
    assert status == 0, err
    rows = (out / "courses.jsonl").read_text().splitlines()
    assert rows[0] == first
    assert len({json.loads(row)["course"] for row in rows}) == 2
    figures = json.loads(printed)
    assert figures["courses"] == 2
    assert {"error_8", "ceiling_8", "followed_f1", "key_bits", "sound", "drift_sound"} <= figures.keys()
    assert (out / "sheet.png").stat().st_size > 1000
    assert json.loads((out / "results.json").read_text())["model"] in (out / "results.md").read_text()

    status, _, err = program("sample/evaluate_play.py", *asked[:4], "--seen", 3, "--length", 8)
    assert status == 2
    assert "courses.jsonl: made with seen 2, and now it is 3; give another --out" in err
    status, _, err = program("sample/evaluate_play.py", *asked, "--temperature", 0.5)
    assert status == 2
    assert "and now it is 0.5" in err
    assert (out / "courses.jsonl").read_text().splitlines() == rows


@pytest.mark.parametrize(
    ("name", "package", "space", "things"),
    [
        ("gym_pusht/PushT-v0", "gym_pusht", {"low": [0.0, 0.0], "high": [512.0, 512.0]}, ("agent", "block", "angle")),
        ("ALE/Breakout-v5", "ale_py", {"names": ["noop", "fire", "right", "left"]}, ("paddle", "lives", "score")),
    ],
)
def test_environments_are_judged_by_what_is_in_them(
    tmp_path: Path,
    make_bundle: Callable[..., Path],
    program: Program,
    name: str,
    package: str,
    space: dict[str, list[str] | list[float]],
    things: tuple[str, ...],
) -> None:
    pytest.importorskip(package)
    settings = {"actions": ActionSpace(**space), "tasks": ["play"], "window": 3}  # type: ignore[arg-type]
    bundle = make_bundle(tmp_path / "model", depth=1, time_stride=1, length=400, height=64, width=64, **settings)
    asked = ("--model", bundle, "--out", tmp_path / "judged", "--seen", 2, "--length", 8, "--drift", 2, "--json")
    status, printed, err = program("sample/evaluate_play.py", *asked, "--count", 1, "--world", f"env:{name}")
    assert status == 0, err
    figures = json.loads(printed)
    for thing in things:
        assert {f"{thing}_{what}_8" for what in ("error", "ceiling", "judge")} <= figures.keys()
        assert figures[f"{thing}_judge_8"] < 8
    assert {"psnr_8", "key_bits", "followed_f1", "sound", "sound_ceiling", "drift_sound"} <= figures.keys()
    assert not {"error_8", "jumps", "walls"} & figures.keys()
    assert "Left out: jumps and walls" in (tmp_path / "judged" / "results.md").read_text()

    status, _, err = program("sample/evaluate_play.py", *asked)
    assert status == 2
    assert "give the --world that it learned" in err
