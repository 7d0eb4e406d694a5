"""`vpoet measure` and `vpoet select`, as a user runs them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpoet.data.folder import read_samples

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def raw(program: Program, tmp_path: Path) -> Path:
    out = tmp_path / "raw"
    size = ("--height", 32, "--width", 32, "--frames", 9, "--samples-per-shard", 4)
    assert program("train/ingest.py", "world:platformer", "--clips", 6, *size, "--out", out)[0] == 0
    return out


def result(out: str) -> dict[str, Any]:
    (line,) = out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_clips_are_measured_selected_and_shown(program: Program, raw: Path, tmp_path: Path) -> None:
    status, out, err = program("train/measure.py", raw, "--json")
    assert (status, result(out)["clips"]) == (0, 6), err
    status, out, err = program("train/measure.py", raw, "--json")
    assert (status, result(out)["clips"]) == (0, 6), err

    moving = [sample.key for sample in read_samples(raw) if sample.json["truth"]["action"] != "idle"]
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"key": moving[0], "caption": "something new"}))
    good = tmp_path / "good"
    arguments = (raw, "--where", "truth.action != 'idle' and motion >= 0", "--captions", captions, "--dedupe", 0.92)
    for _ in range(2):
        status, out, err = program("train/select_clips.py", *arguments, "--out", good, "--json")
        assert status == 0, err
        told = result(out)
        assert [stage["stage"] for stage in told["funnel"]] == [
            "truth.action != 'idle'",
            "motion >= 0",
            "no copies (0.92)",
        ]
        assert (told["measured"], told["kept"], told["recaptioned"]) == (6, len(moving), 1)
    samples = list(read_samples(good))
    assert [sample.key for sample in samples] == moving
    assert samples[0].captions[0] == "something new"
    assert len(samples[0].captions) > 1
    assert samples[0].json["measures"]["object_motion"] >= 0
    page = (good / "select.html").read_text()
    assert "Fell at: truth.action != &#x27;idle&#x27;" in page
    assert page.count("<img") == 1 + sum(stage["fell"] > 0 for stage in told["funnel"])

    status, _, err = program("train/select_clips.py", raw, "--where", "motion > 1e9", "--out", tmp_path / "none")
    assert status == 2
    assert "nothing is left of 6 clips: 6 fell at 'motion > 1000000000.0'" in err
    status, _, err = program("train/select_clips.py", raw, "--out", raw)
    assert status == 2
    assert "choose another folder" in err


def test_selecting_needs_measures_where_they_are_asked_for(program: Program, raw: Path, tmp_path: Path) -> None:
    status, _, err = program("train/select_clips.py", raw, "--dedupe", 0.9, "--out", tmp_path / "good")
    assert status == 2
    assert f"run `vpoet measure {raw}` first" in err
    status, _, err = program("train/select_clips.py", raw, "--where", "motion > 1", "--out", tmp_path / "good")
    assert status == 2
    assert "no clip has 'motion'" in err
