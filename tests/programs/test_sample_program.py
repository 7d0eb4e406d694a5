"""`sample/generate.py` as a user runs it, on a bundle of random weights."""

import base64
import json
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet import cli
from vpoet.data.npy import npy_to_codes
from vpoet.generate.prompt_file import read_prompts
from vpoet.media.video import Video
from vpoet.sequence.tasks import COMPOSED, TABLE

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("sample"), depth=1, length=120, frames=5, height=16, width=16)


@pytest.fixture
def sample(
    model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Run the program in an empty folder, in this process: a new one spends its seconds on importing torch."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Done:
        program = runpy.run_path(str(root / "sample" / "generate.py"), run_name="vpoet.programs.sample")
        with pytest.raises(SystemExit) as exit_:
            cli.run(program["main"], arguments=["--model", str(model), *map(str, arguments)])
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(sys.argv, int(exit_.value.code or 0), out, err)

    return run


def result(done: Done) -> dict[str, object]:
    loaded: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def test_one_prompt_makes_one_clip_and_says_where_the_time_went(sample: Callable[..., Done], tmp_path: Path) -> None:
    done = sample("--prompt", "a robot walks", "--out", "x.mp4", "--json")
    assert done.returncode == 0, done.stderr
    assert Video.read(tmp_path / "x.mp4").frames.shape == (5, 16, 16, 3)
    summary = result(done)
    assert summary["written"] == ["x.mp4"]
    assert summary["tokens"] == 8
    assert summary["tokens_per_second"] > 0
    assert list(summary["seconds"]) == ["start", "load", "prepare", "prefill", "decode", "detokenise", "write"]
    assert "x.mp4" in done.stderr
    made = json.loads((tmp_path / "x.mp4.json").read_text())
    assert (made["prompt"], made["seed"], made["guidance"], made["tokens"]) == ("a robot walks", 0, 1.0, 8)

    stamp = (tmp_path / "x.mp4").stat().st_mtime_ns
    again = sample("--prompt", "a robot walks", "--out", "x.mp4", "--json")
    assert (again.returncode, result(again)["skipped"], result(again)["written"]) == (0, 1, [])
    assert (tmp_path / "x.mp4").stat().st_mtime_ns == stamp
    other = sample("--prompt", "a hero jumps", "--out", "x.mp4", "--json")
    assert result(other)["written"] == ["x.mp4"]


def test_guessed_codes_make_the_same_clip(sample: Callable[..., Done], tmp_path: Path) -> None:
    arguments = ("--prompt", "a robot walks", "--cfg", "2", "--seed", "5", "--out")
    for done in (sample(*arguments, "one.mp4"), sample(*arguments, "guessed.mp4", "--guesses", "3")):
        assert done.returncode == 0, done.stderr
    one, guessed = (Video.read(tmp_path / name).frames for name in ("one.mp4", "guessed.mp4"))
    assert np.array_equal(one, guessed)


def test_a_batch_reports_its_bad_lines_and_does_the_rest(sample: Callable[..., Done], tmp_path: Path) -> None:
    Video(np.zeros((1, 16, 16, 3), np.uint8), 0).write(tmp_path / "start.png")
    lines = [
        "a robot walks",
        '{"prompt": "a hero", "image": "start.png", "frames": 9}',
        '{"prompt": "a hero", "frames": 6}',
        '{"promt": "a hero"}',
        '{"prompt": "a hero", "frames": 1}',
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    arguments = ("--batch", "prompts.jsonl", "--out", "clips", "--cfg", "2", "--sheet", "all.png", "--json")
    done = sample(*arguments)
    assert done.returncode == 2
    assert "prompts.jsonl:3: 6 frames of 16x16 do not fit" in done.stderr
    assert "prompts.jsonl:4: unknown field 'promt'; did you mean 'prompt'?" in done.stderr
    assert "error: 2 requests failed" in done.stderr
    summary = result(done)
    assert len(summary["written"]) == 3
    assert len(summary["failed"]) == 2
    assert all((tmp_path / file).is_file() for file in summary["written"])
    assert (tmp_path / "all.png").is_file()
    again = sample(*arguments)
    assert (again.returncode, result(again)["skipped"], result(again)["written"]) == (2, 3, [])


def test_kinds_of_files_counts_and_seeds(sample: Callable[..., Done], tmp_path: Path) -> None:
    done = sample("--prompt", "a hero", "--count", "2", "--seed", "5", "--out", "x.gif")
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    seeds = [json.loads((tmp_path / f"x-{i}.gif.json").read_text())["seed"] for i in range(2)]
    assert seeds == [5, 6]
    alone = sample("--prompt", "a hero", "--seed", "6", "--out", "y.gif")
    assert alone.returncode == 0, alone.stderr
    assert (tmp_path / "y.gif").read_bytes() == (tmp_path / "x-1.gif").read_bytes()
    picture = sample("--prompt", "a hero", "--out", "z.png")
    assert picture.returncode == 0, picture.stderr
    assert Video.read(tmp_path / "z.png").width > 5 * 16  # a contact sheet of five frames


def test_every_task_has_its_flags(sample: Callable[..., Done], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("first.png", "last.png"):
        Video(random.integers(0, 256, (1, 16, 16, 3), np.uint8), 0).write(tmp_path / name)
    Video(random.integers(0, 256, (5, 16, 16, 3), np.uint8), 8).write(tmp_path / "clip.mp4")
    mask = np.zeros((1, 16, 16, 3), np.uint8)
    mask[:, :8, :8] = 255
    Video(mask, 0).write(tmp_path / "mask.png")
    frames = {
        ("--image", "first.png", "--last", "last.png"): 5,
        ("--last", "last.png"): 5,
        ("--video", "clip.mp4", "--task", "backward"): 9,
        ("--video", "clip.mp4", "--task", "interpolation"): 5,
        ("--video", "clip.mp4", "--mask", "mask.png"): 5,
        ("--image", "first.png", "--outpaint", "8,0,0,0"): 1,
        ("--via-image", "--min-p", "0.1"): 5,
        ("--frames", "21", "--overlap", "1"): 21,
        ("--frames", "13", "--then", "5: a hero jumps", "--then", "9: a robot"): 13,
    }
    for i, (flags, count) in enumerate(frames.items()):
        done = sample("--prompt", "a robot walks", *flags, "--out", f"x{i}.gif")
        assert done.returncode == 0, done.stderr
        assert len(Video.read(tmp_path / f"x{i}.gif")) == count
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_batch_of_every_task_resumes(sample: Callable[..., Done], tmp_path: Path) -> None:
    Video(np.zeros((1, 16, 16, 3), np.uint8), 0).write(tmp_path / "a.png")
    lines = [
        '{"prompt": "a robot", "last": "a.png"}',
        '{"prompt": "a robot", "image": "a.png", "outpaint": "8,0,0,0"}',
        '{"prompt": "a robot", "frames": 13, "story": ["5: a hero"]}',
        '{"prompt": "a robot", "frames": 13, "story": ["50: a hero"]}',
        '{"prompt": "a robot", "via_image": true}',
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    done = sample("--batch", "prompts.jsonl", "--out", "clips", "--json", "--batch-size", "3")
    assert done.returncode == 2
    assert "prompts.jsonl:4: story: prompts change at frames 50" in done.stderr
    written = result(done)["written"]
    assert isinstance(written, list)
    assert len(written) == 4
    (tmp_path / written[2]).unlink()
    again = sample("--batch", "prompts.jsonl", "--out", "clips", "--json")
    assert (result(again)["skipped"], result(again)["written"]) == (3, [written[2]])


def codes(file: Path) -> np.ndarray:
    return npy_to_codes(base64.b64decode(json.loads(file.with_name(f"{file.name}.json").read_text())["codes"]["npy"]))


@pytest.mark.filterwarnings("always::vpoet.errors.VpoetWarning")
def test_edits_work_on_the_codes_beside_a_clip(sample: Callable[..., Done], tmp_path: Path) -> None:
    """Not on its pixels: a file that was changed, or has no record, is encoded."""
    assert sample("--prompt", "a robot walks", "--out", "a.mp4").returncode == 0
    edit = ("--edit", "a.mp4", "--strength", "0", "--seed", "3", "--out")
    same = sample("--prompt", "a robot walks", *edit, "same.mp4")
    assert "same.mp4: taken from 'a robot walks'" in same.stderr
    assert np.array_equal(codes(tmp_path / "same.mp4"), codes(tmp_path / "a.mp4"))
    assert (tmp_path / "same.mp4").read_bytes() == (tmp_path / "a.mp4").read_bytes()
    assert sample("--prompt", "a hero", "--edit", "a.mp4", "--strength", "1", "--out", "b.mp4").returncode == 0
    assert not np.array_equal(codes(tmp_path / "b.mp4"), codes(tmp_path / "a.mp4"))

    (tmp_path / "alone.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    done = sample("--prompt", "a hero", "--edit", "alone.mp4", "--out", "c.mp4")
    assert (done.returncode, "was: no record beside the clip" in done.stderr) == (2, True)
    assert sample("--prompt", "a hero", "--edit", "alone.mp4", "--was", "a robot", "--out", "c.mp4").returncode == 0
    done = sample("--prompt", "a hero", "--edit", "alone.mp4", "--was", "auto", "--out", "d.mp4")
    assert (done.returncode, "does not tell the words that it knows" in done.stderr) == (2, True)
    (tmp_path / "a.mp4").write_bytes((tmp_path / "b.mp4").read_bytes())
    assert sample("--prompt", "a hero", *edit, "e.mp4").returncode == 2  # its prompt is no longer known, either
    done = sample("--prompt", "a hero", "--was", "a hero", *edit, "e.mp4")
    assert (done.returncode, "not used: the file was changed since" in done.stderr) == (0, True)


def test_a_chain_of_requests_in_a_file(sample: Callable[..., Done], tmp_path: Path) -> None:
    """Each step works on the clip of the one before, two seeds of all of them; a second run has nothing to do. What
    follows a step that failed is reported."""
    chain = [
        {"prompt": "a robot walks"},
        {"edit": "-", "prompt": "a hero walks", "strength": 0.5},
        {"video": "-", "prompt": "a hero jumps", "frames": 9, "story": ["5: a robot"]},
        {"video": "-", "prompt": "a hero", "outpaint": "8,0,0,0", "frames": 5},
    ]
    broken = [{"prompt": "a robot", "frames": 6}, {"edit": "-", "prompt": "a hero"}]
    lines = [chain, "a robot", broken, [{"edit": "-"}], [{"prompt": "a"}, {"prompt": "b"}], [], {"video": "-"}]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (tmp_path / "chain.jsonl").write_text(text)
    arguments = ("--batch", "chain.jsonl", "--count", "2", "--out", "x.mp4", "--json")
    done = sample(*arguments)
    assert done.returncode == 2
    written = result(done)["written"]
    assert isinstance(written, list)
    assert sorted(written) == sorted(f"x-{i}.mp4" for i in range(10))
    for number in range(2):
        records = [json.loads((tmp_path / f"x-{4 * number + i}.mp4.json").read_text()) for i in range(4)]
        assert [record["seed"] for record in records] == [number] * 4
        assert [record["prompt"] for record in records] == [step["prompt"] for step in chain]
        assert records[1]["edit"]["file"] == f"x-{4 * number}.mp4"
        assert records[1]["was"] is None
        assert records[1]["shows"] == "a robot walks"
        assert ["codes" in record for record in records] == [True, True, False, True]
    assert "chain.jsonl:3, step 1: 6 frames of 16x16 do not fit" in done.stderr
    assert "chain.jsonl:3, step 2: x-10.mp4: edit not readable: no such file" in done.stderr
    assert 'chain.jsonl:4: "-" is the clip before, and here is none' in done.stderr
    assert "chain.jsonl:5: step 2 works on the clip before it" in done.stderr
    assert "chain.jsonl:6: a chain is an array of JSON objects" in done.stderr
    assert 'chain.jsonl:7: "-" is the clip before' in done.stderr
    again = sample(*arguments)
    assert (result(again)["skipped"], result(again)["written"]) == (10, [])


def test_a_batch_that_was_killed_goes_on_and_makes_what_it_would_have(
    sample: Callable[..., Done], python: Callable[..., Done], model: Path, tmp_path: Path
) -> None:
    """SIGKILL when the third of five clips has its frames, but not yet its name."""
    killed = """
import os, signal
from vpoet import cli
from vpoet.generate.clip_file import Film

finish, finished = Film.finish, []

def finish_two(film, *told):
    if len(finished) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    finished.append(finish(film, *told))

Film.finish = finish_two
cli.main()
"""
    (tmp_path / "prompts.txt").write_text("\n".join(f"a robot {i}" for i in range(5)))
    arguments = ("--batch", "prompts.txt", "--batch-size", "2", "--json", "--out")
    done = python("-c", killed, "sample", "--model", model, *arguments, "clips", cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(list((tmp_path / "clips").glob("*.mp4.json"))) == 2
    again, whole = sample(*arguments, "clips"), sample(*arguments, "whole")
    assert (again.returncode, result(again)["skipped"], len(result(again)["written"])) == (0, 2, 3)
    assert (whole.returncode, result(whole)["skipped"]) == (0, 0)
    files = sorted((tmp_path / "whole").iterdir())
    assert [file.name for file in sorted((tmp_path / "clips").iterdir())] == [file.name for file in files]
    for file in files:
        if file.suffix == ".mp4":
            assert (tmp_path / "clips" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt", "a", "--frames", "6"), "error: --prompt 'a': 6 frames of 16x16 do not fit"),
        (("--prompt", "a", "--out", "x.avi"), "error: x.avi: cannot write .avi"),
        (("--prompt", "a", "--outpaint", "8"), "error: outpaint = '8': write left, top, right and bottom"),
        (("--prompt", "a", "--then", "b"), "error: a story's change of prompt is FRAME: TEXT"),
        (("--video", "none.mp4", "--task", "x"), "error: no --prompt: none.mp4: video not readable"),
        (("--prompt", "a", "--top-p", "0"), "error: top_p = 0.0: it must be above 0"),
        (("--prompt", "a", "--image", "none.png"), "error: --prompt 'a': none.png: image not readable"),
    ],
)
def test_what_cannot_be_served_is_an_error_of_one_line(
    sample: Callable[..., Done], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = sample(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_it_runs_by_its_path_and_imports_no_more_than_it_needs(
    python: Callable[..., Done], root: Path, model: Path, tmp_path: Path
) -> None:
    program = root / "sample" / "generate.py"
    done = python("-X", "importtime", program, "--model", model, "--prompt", "a robot", "--out", "x.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x.mp4").is_file()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "vpoet.generate.model" in imported
    # each of these takes as long as a clip, and none is needed for one
    assert not imported & {"torch._dynamo", "deepspeed", "matplotlib.figure", "scipy", "transformers", "wandb"}


def test_the_table_of_tasks_is_in_the_readme_with_an_example_and_flags_that_exist(
    program: Callable[..., tuple[int, str, str]], root: Path
) -> None:
    readme = (root / "sample" / "README.md").read_text()
    examples = [line.rpartition("# ")[2] for line in readme.splitlines() if line.startswith("    ") and "# " in line]
    status, page, _ = program("sample/generate.py", "--help")
    assert status == 0
    for words in ("vpoet sample --model", "--cfg", "--given-frames", "--sheet", "closer to the prompt"):
        assert words in " ".join(page.split())
    for row in [*(task for task in TABLE.values() if task.flag), *COMPOSED]:
        assert f"| {row.name} | {row.meaning} | `{row.flag}` | `{row.drawing}` |" in readme
        assert row.name in examples
        assert all(flag in page for flag in re.findall(r"--[a-z-]+", row.flag))


def test_the_shipped_prompts_are_readable(root: Path) -> None:
    files = sorted((root / "sample" / "prompts").iterdir())
    assert files
    for file in files:
        requests, problems = read_prompts(file, {})
        assert len(requests) >= 4
        assert problems == []


def test_processes_of_a_launcher_share_out_what_one_would_do_and_what_one_left(
    sample: Callable[..., Done], together: Callable[..., list[str]], model: Path, tmp_path: Path
) -> None:
    lines = ["a robot walks", '{"prompt": "a hero jumps", "image": "missing.png"}', *(f"a hero {i}" for i in range(4))]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    wanted = sample("--batch", "prompts.txt", "--out", "one", "--cfg", "2", "--json")
    assert wanted.returncode == 2
    for file in (tmp_path / "one").iterdir():  # what a process that was killed had done
        if file.stem.startswith("a-hero-1"):
            (tmp_path / "two").mkdir(exist_ok=True)
            (tmp_path / "two" / file.name).write_bytes(file.read_bytes())
    arguments = [
        "--model",
        model,
        "--batch",
        "prompts.txt",
        "--out",
        "two",
        "--cfg",
        "2",
        "--sheet",
        "all.png",
        "--json",
    ]
    printed = together("sample/generate.py", 2, *arguments, status=2)
    assert printed[1] == ""
    summary, alone = json.loads(printed[0].splitlines()[-1]), result(wanted)
    assert summary["skipped"] == 1
    assert len(summary["written"]) == 4
    assert summary["failed"] == alone["failed"]
    assert (tmp_path / "all.png").is_file()
    assert {file.name: file.read_bytes() for file in (tmp_path / "two").iterdir()} == {
        file.name: file.read_bytes() for file in (tmp_path / "one").iterdir()
    }
