"""The page of a training run: what it says of finished, broken off and bare runs, and that one file holds it all."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vpoet.errors import DataError
from vpoet.evaluate.page.html import Listing, Section, Table
from vpoet.evaluate.page.run import run_sections
from vpoet.media.video import Video

Program = Callable[..., tuple[int, str, str]]
PROMPTS = ["a red ball", "a <blue> dog"]
RECIPE = """
steps: 40
batch: 2
data: {length: 100}
heldout: [{path: tokens/heldout}]
samples: {prompts: [a red ball, a <blue> dog]}
"""


def log(run: Path, steps: int, heldout: bool = True) -> None:
    run.mkdir(parents=True, exist_ok=True)
    rows = []
    for step in range(1, steps + 1):
        row: dict[str, Any] = {"step": step, "time": 1.8e9 + step, "train/loss": 9 / step, "train/bits": 13 / step}
        row |= {"train/grad_norm": None if step == 7 else 1.0, "train/lr": 0.1, "train/skipped": float(step >= 7)}
        if step % 10 == 0:
            row |= {"speed/tokens_per_second": 400.0, "speed/seconds_per_step": 0.5, "speed/mfu": 0.25}
            row |= {"speed/data_wait": 0.015, "speed/padding": 0.05}
            row |= {"heldout/loss": 10 / step, "heldout/bits": 14 / step} if heldout else {}
        rows.append(json.dumps(row) + "\n")
    (run / "metrics.jsonl").write_text("".join(rows))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of 40 steps, resumed once, with two prompts sampled six times and a real clip for the first."""
    run = tmp_path / "runs" / "whole"
    log(run, 40)
    (run / "resolved.yaml").write_text(RECIPE)
    starts = [{"step": 0, "time": 1.8e9, "processes": 2, "commit": "abc"}, {"step": 20, "time": 1.8e9, "parameters": 9}]
    (run / "starts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in starts))
    for step in (5, 10, 15, 20, 25, 30):
        for i in range(2):
            Video(np.full((2, 16, 16, 3), step + i, np.uint8), 4.0).write(run / f"samples/step-{step}-{i}.mp4")
    Video(np.full((2, 16, 16, 3), 200, np.uint8), 4.0).write(run / "samples/real-0.mp4")
    real = [{"prompt": PROMPTS[0], "caption": "a ball that is red", "file": "real-0.mp4"}]
    (run / "samples/real.json").write_text(json.dumps(real))
    return run


def parts(sections: list[Section], title: str) -> Any:
    (section,) = [section for section in sections if section.title == title]
    return section.parts


def numbers(sections: list[Section]) -> dict[str, str]:
    (table,) = [part for part in parts(sections, "The run in numbers") if isinstance(part, Table)]
    return dict(table.rows)


def test_a_finished_run_shows_numbers_samples_curves_code_and_recipe(finished: Path, tmp_path: Path) -> None:
    sections = run_sections(finished, tmp_path)
    assert [section.title for section in sections] == [
        "The run in numbers", "Samples", "Learning", "Speed", "Code and machine", "Recipe"
    ]  # fmt: skip
    assert parts(sections, "The run in numbers")[0] == "Finished: 40 of 40 steps, at 2027-01-15 08:00 UTC."
    told = numbers(sections)
    assert told["tokens"] == "8,000, 5.0% of them padding"
    assert told["held-out loss, best"] == "0.2500 nats, 0.361 bits per token, at step 40"
    assert (told["waiting for data"], told["parameters"]) == ("1.50% of the time", "9")
    assert (told["steps left out"], told["left out were steps"]) == ("1", "7")

    shown = [part for part in parts(sections, "Samples") if not isinstance(part, str)]
    captions = [[picture.caption for picture in row] for row in shown]
    times = ["step 5", "step 15", "step 20", "step 30"]
    assert captions == [[*times, "real: a ball that is red"], times]
    assert "“a <blue> dog”" in parts(sections, "Samples")
    (table,) = [part for part in parts(sections, "Code and machine") if isinstance(part, Table)]
    assert table.header == ["when", "after step", "processes", "commit", "parameters"]
    assert [row[1:] for row in table.rows] == [["0", "2", "abc", ""], ["20", "", "", "9"]]
    assert parts(sections, "Recipe") == [Listing("resolved.yaml, with all defaults", RECIPE)]


def test_an_unfinished_run_says_where_it_stands(finished: Path, tmp_path: Path) -> None:
    log(finished, 25)
    with (finished / "metrics.jsonl").open("a") as file:
        file.write('{"step": 26, "ti')  # it is writing
    (told, *_) = parts(run_sections(finished, tmp_path), "The run in numbers")
    assert told.startswith("Not finished: step 25 of 40, at 2027-01-15 08:00 UTC.")


def test_a_run_without_held_out_clips_samples_or_record_of_its_start(tmp_path: Path) -> None:
    log(tmp_path, 3, heldout=False)
    (tmp_path / "resolved.yaml").write_text(
        "{steps: 3, batch: 2, data: {length: 100}, heldout: [], samples: {prompts: []}}"
    )
    sections = run_sections(tmp_path, tmp_path / "scratch")
    assert [section.title for section in sections] == ["The run in numbers", "Learning", "Recipe"]
    assert "names no held-out shards" in parts(sections, "The run in numbers")[1]
    assert not any("held-out" in what for what in numbers(sections))
    (tmp_path / "resolved.yaml").unlink()
    assert "is not known" in parts(run_sections(tmp_path, tmp_path / "scratch"), "The run in numbers")[0]


def test_a_tokenizers_run_shows_its_newest_reconstructions(tmp_path: Path) -> None:
    log(tmp_path, 3)
    (tmp_path / "resolved.yaml").write_text("{steps: 3, batch: 2, data: [raw/train], held_out: [raw/heldout]}")
    (tmp_path / "samples").mkdir()
    for step in (9, 10):
        Image.new("RGB", (4, 4)).save(tmp_path / f"samples/step-{step}.png")
    sections = run_sections(tmp_path, tmp_path / "scratch")
    ((picture,),) = parts(sections, "Samples")
    assert picture.caption == "step 10"
    assert "tokens" not in numbers(sections)


def test_a_run_that_has_not_taken_a_step_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(DataError, match="no step yet"):
        run_sections(tmp_path, tmp_path)


class Sources(HTMLParser):
    """What a page loads from elsewhere, and what it carries."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.carried: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.carried += [value for name, value in attrs if name in ("src", "href", "srcset", "poster") and value]


def test_report_writes_one_file_that_carries_everything(finished: Path, program: Program) -> None:
    status, out, err = program("train/report.py", finished, "--json")
    assert status == 0, err
    assert json.loads(out)["report"] == str(finished / "index.html")
    text = (finished / "index.html").read_text(encoding="utf-8")
    page = Sources(text)
    assert page.tags.count("video") == 9
    assert page.tags.count("img") == 2
    assert all(source.startswith("data:") for source in page.carried)
    assert not {"link", "script", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import", text)
    assert "a &lt;blue&gt; dog" in text
    for source in page.carried:
        kind, _, data = source.partition(";base64,")
        if kind == "data:image/svg+xml":  # names of its own standards are no links
            drawing = base64.b64decode(data).decode()
            assert not re.search(r'(?:href|src)="(?!#)|url\((?!#)|@import|<script', drawing)


def test_report_of_a_demo_shows_the_chain(tmp_path: Path, program: Program) -> None:
    run = tmp_path / "demo"
    log(run / "pretrain", 12)
    stage = {"stage": "world", "seconds": 61, "result": "runs/demo/raw", "command": "vpoet ingest world:platformer"}
    (run / "stages.jsonl").write_text(json.dumps(stage) + "\n")
    status, out, err = program("train/report.py", run, "--out", tmp_path / "page.html", "--json")
    assert status == 0, err
    assert json.loads(out)["sections"] == ["Learning: pretrain", "What ran"]
    assert "vpoet ingest world:platformer" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_report_of_a_wrong_folder_names_the_runs_below_it(finished: Path, program: Program) -> None:
    status, _, err = program("train/report.py", finished.parent)
    assert status == 2
    assert "neither a training run" in err
    assert str(finished) in err
    status, _, err = program("train/report.py", finished / "nowhere")
    assert status == 2
    assert "give it the folder of either" in err
