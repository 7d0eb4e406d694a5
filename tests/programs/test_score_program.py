"""`sample/score.py` as a user runs it, on a bundle of random weights."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.generate.model import Model
from vpoet.media.video import Video

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("score"), depth=1, length=120, frames=9, height=16, width=16)


@pytest.fixture
def model(bundle: Path) -> Model:
    return vpoet.load(bundle, device="cpu")


@pytest.fixture
def score(bundle: Path, program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    for i, frames in enumerate((9, 9, 5)):
        noise = np.random.default_rng(i).integers(0, 256, (frames, 16, 16, 3), np.uint8)
        Video(noise, 8).write(tmp_path / f"{i}.mp4", lossless=True)
    return lambda *arguments: program("sample/score.py", *arguments, "--model", bundle)


def rows_of(out: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(out.splitlines()[-1])["rows"]
    return rows


def test_one_clip_is_scored_as_the_model_scores_it(score: Run, model: Model, tmp_path: Path) -> None:
    status, out, err = score("0.mp4", "--prompt", "a robot walks", "--plot", "pictures/x.png", "--json")
    assert status == 0, err
    (row,) = rows_of(out)
    wanted = model.score(tmp_path / "0.mp4", "a robot walks")
    assert row["nats"] == wanted.total.nats
    assert row["bits"] == wanted.total.bits
    assert (row["bits_per_token"], row["bits_per_frame"]) == (wanted.per_token.bits, wanted.per_frame.bits)
    assert row["bits_per_pixel"] == wanted.per_pixel.bits
    assert row["edges"] == [0, 1, 5, 9]
    assert row["nats_by_time"] == wanted.by_time.tolist()
    assert (row["video"], row["prompt"], row["task"], row["posterior"]) == ("0.mp4", "a robot walks", "t2v", None)
    assert (tmp_path / "pictures" / "x.png").stat().st_size > 1000
    assert "pictures/x.png: bits per token over the frames\n" in err
    assert f"{wanted.total.bits:10.1f} {wanted.per_token.bits:8.3f}" in err
    assert "scored" not in err  # nothing had to be done to the clip

    status, out, _ = score("0.mp4", "--json")
    assert (status, rows_of(out)[0]["task"]) == (0, "unconditional")
    assert score("0.mp4")[1] == ""


def test_prompts_for_a_clip_are_ranked_with_their_probabilities(score: Run) -> None:
    prompts = ("a robot walks right on grass", "", "a hero jumps on sand")
    status, out, err = score("0.mp4", *(f"--prompt={prompt}" for prompt in prompts), "--json")
    assert status == 0, err
    rows = rows_of(out)
    assert {row["prompt"] for row in rows} == set(prompts)
    nats = [row["nats"] for row in rows]
    assert nats == sorted(nats)
    shares = np.exp(nats[0] - np.array(nats))
    np.testing.assert_allclose([row["posterior"] for row in rows], shares / shares.sum())
    table = err.splitlines()
    assert [line.split("0.mp4")[1].strip() or "(none)" for line in table[1:]] == [
        row["prompt"] or "(none)" for row in rows
    ]


def test_clips_are_ranked_and_a_bad_one_does_not_stop_the_others(score: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_text("no video")
    given = ("2.mp4", "broken.mp4", "none.mp4", "0.mp4", "1.mp4")
    status, out, err = score(*given, "--prompt", "a hero", "--prompt", "a robot", "--json")
    assert status == 2
    rows = rows_of(out)
    assert sorted(row["video"] for row in rows) == ["0.mp4", "0.mp4", "1.mp4", "1.mp4", "2.mp4", "2.mp4"]
    best = rows[::2]
    assert [row["bits_per_token"] for row in best] == sorted(row["bits_per_token"] for row in best)
    for first, second in zip(best, rows[1::2], strict=True):
        assert first["video"] == second["video"]
        assert first["nats"] <= second["nats"]
        assert first["posterior"] + second["posterior"] == pytest.approx(1)
    assert {row["video"]: row["frames"] for row in rows} == {"0.mp4": 9, "1.mp4": 9, "2.mp4": 5}
    failed = json.loads(out.splitlines()[-1])["failed"]
    assert [message.partition(":")[0] for message in sorted(failed)] == ["broken.mp4", "none.mp4"]
    assert "skipped: none.mp4: no such file or folder" in err
    assert "error: 2 videos could not be scored; they are listed above, the others are done" in err


def test_a_bad_row_of_a_list_is_told_by_its_own_reason(score: Run, tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"path": "0.mp4"}\n{"path": 5}\n[1]\n{"caption": "x"}\n')
    status, out, err = score("list.jsonl", "--json")
    assert (status, [row["video"] for row in rows_of(out)]) == (2, ["0.mp4"])
    for entry, why in ((2, "'5' is not the name of a file"), (3, "not an object"), (4, "names no file")):
        assert f"skipped: list.jsonl, entry {entry}: {why}" in err
    assert "error: 3 videos could not be scored" in err


def test_the_entries_of_a_list_are_scored_with_their_captions(score: Run, tmp_path: Path) -> None:
    entries = [
        {"path": "0.mp4", "caption": "a robot"},
        {"path": "1.mp4", "caption": ["a hero", "a hero jumps"]},
        {"path": "2.mp4"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, entries)))
    status, out, err = score("list.jsonl", "--json")
    assert status == 0, err
    assert {(row["video"], row["prompt"]) for row in rows_of(out)} == {
        ("0.mp4", "a robot"),
        ("1.mp4", "a hero"),
        ("1.mp4", "a hero jumps"),
        ("2.mp4", ""),
    }
    _, out, _ = score("list.jsonl", "--prompt", "a robot", "--json")
    assert sorted(row["prompt"] for row in rows_of(out) if row["video"] == "1.mp4") == [
        "a hero",
        "a hero jumps",
        "a robot",
    ]
    assert sum(row["video"] == "0.mp4" for row in rows_of(out)) == 1


def test_given_frames_are_not_scored(score: Run) -> None:
    status, out, err = score("0.mp4", "--prompt", "a robot", "--given-frames", "5", "--plot", "x.svg", "--json")
    assert status == 0, err
    (row,) = rows_of(out)
    assert (row["task"], row["frames"], row["tokens"], row["pixels"]) == ("continuation", 4, 4, 4 * 16 * 16)
    assert row["nats_by_time"] == [None, None, row["nats"]]
    status, out, err = score("0.mp4", "2.mp4", "--given-frames", "5", "--json")
    assert (status, len(rows_of(out))) == (2, 1)
    assert "skipped: 2.mp4: given_frames = 5: for a clip of 5 frames it is 0, 1\n" in err


def test_what_had_to_be_done_to_a_clip_is_said(score: Run, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 20, 30, 3), np.uint8)
    Video(noise, 16).write(tmp_path / "big.mp4")
    status, _, err = score("big.mp4")
    assert status == 0
    changes = "from 20x30 to 16x16 pixels, from 16 to 8 frames per second, the first 9 frames only"
    assert err.startswith(f"big.mp4: scored {changes}\n")


def test_a_picture_of_many_clips_holds_the_first_ten(score: Run, tmp_path: Path) -> None:
    prompts = [f"--prompt={word}" for word in "abcdefghijkl"]
    status, _, err = score("2.mp4", *prompts, "--plot", "x.png")
    assert status == 0
    assert "x.png: bits per token over the frames; the first 10 of 12 rows" in err
    assert (tmp_path / "x.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.mp4",), "none of 1 videos could be scored; the reasons are above"),
        (("0.mp4", "--frames", "10"), "none of 1 videos could be scored"),
        (("0.mp4", "--plot", "x.doc"), "x.doc: cannot write .doc; use .png, .svg, .pdf"),
    ],
)
def test_what_cannot_be_done_is_an_error(score: Run, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = score(*arguments, "--json")
    assert (status, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"error: {message}")


def test_scoring_runs_by_its_path_and_helps_newcomers(
    python: Callable[..., subprocess.CompletedProcess[str]], root: Path, score: Run, bundle: Path, tmp_path: Path
) -> None:
    done = python(root / "sample" / "score.py", "0.mp4", "--model", bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    status, page, _ = score("--help")
    assert status == 0
    for words in ("vpoet score robot.mp4", "--given-frames", "--plot", "what the tokenizer leaves out"):
        assert words in " ".join(page.split())


def test_processes_of_a_launcher_share_out_the_videos(
    score: Run, bundle: Path, together: Callable[..., list[str]]
) -> None:
    arguments = ["0.mp4", "1.mp4", "2.mp4", "--prompt", "a robot", "--prompt", "", "--json"]
    status, out, err = score(*arguments)
    assert status == 0, err
    first, second = together("sample/score.py", 2, *arguments, "--model", bundle)
    assert first == out
    assert second == ""
