"""The pretraining program, run as users run it: alone, and by the deepspeed launcher."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.training.run import checkpoint
from vpoet.training.run.tracking import read_metrics

Run = Callable[..., subprocess.CompletedProcess[str]]
Program = Callable[..., tuple[int, str, str]]
Launch = Callable[..., Any]
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="DeepSpeed compiles an op on CPUs: no C++ compiler here"
)


def curve(run: Path) -> list[tuple[int, float, float, float]]:
    """Step, loss, gradient norm, and held-out loss (0 where it was not measured)."""
    rows = read_metrics(run / "metrics.jsonl")
    return [(row["step"], row["train/loss"], row["train/grad_norm"], row.get("heldout/loss", 0.0)) for row in rows]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(root: Path, *arguments: object, processes: int = 2) -> list[str]:
    launcher = [
        sys.executable,
        "-m",
        "deepspeed.launcher.runner",
        "--num_accelerators",
        str(processes),
        "--master_port",
        str(free_port()),
    ]
    return [*launcher, str(root / "train/pretrain.py"), *map(str, arguments)]


def finish(command: list[str], expected: int = 0) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == expected, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def one(tokens: Any, tmp_path_factory: pytest.TempPathFactory, launched: Launch) -> Path:
    """A run of eight steps in one process that nothing interrupts."""
    run = tmp_path_factory.mktemp("runs") / "one"
    job = launched("train/pretrain.py", tokens.recipe(run.with_suffix(".yaml")))
    assert job.wait() == 0, job.err
    return run


def test_one_process_learns_and_its_interruption_changes_nothing(
    tokens: Any, tmp_path: Path, python: Run, program: Program, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = tokens.recipe(
        tmp_path / "whole.yaml",
        model="{width: 32, depth: 2, heads: 4, kv_heads: 2, dropout: 0.1}",
        samples="{every: 6, prompts: [a red ball], frames: 9, height: 16, width: 16}",
    )
    done = python(root / "train/pretrain.py", recipe, "steps=24", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    whole = curve(tmp_path / "whole")
    assert [row[0] for row in whole] == list(range(1, 25))
    assert result["train/loss"] == whole[-1][1]
    assert sorted(path.name for path in (tmp_path / "whole/samples").iterdir()) == [
        "real-0.mp4", "real.json", "step-12-0.mp4", "step-18-0.mp4", "step-24-0.mp4", "step-6-0.mp4"
    ]  # fmt: skip
    assert list((tmp_path / "whole/wandb").glob("offline-run-*/files/media/videos/samples/*.mp4"))
    assert len(list((tmp_path / "whole/wandb").glob("offline-run-*/files/media/table/samples/*.json"))) == 4
    (start,) = read_metrics(tmp_path / "whole/starts.jsonl")
    assert start["processes"] == 1
    assert start["parameters"] > 10_000
    assert whole[-1][1] < whole[0][1] - 1.0  # from ln 48 = 3.87 nats; the rule leaves only the first code unknown

    # Killed the hard way in mid-training, then resumed: the curve must be the same to the last bit.
    command = [sys.executable, str(root / "train/pretrain.py"), str(recipe), f"run={tmp_path / 'cut'}", "steps=24"]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "cut", 9)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    saved = checkpoint.newest(tmp_path / "cut").name
    assert saved != "step-24", "the kill came too late to test anything"
    assert program(*command[1:])[0] == 2, "an old run is not written over without --resume"
    finish([*command, "--resume"])
    assert curve(tmp_path / "cut") == whole


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A job of its own, of which nothing is left afterwards."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    job = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PATH": path},
    )  # fmt: skip
    try:
        yield job
    finally:
        with suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.communicate()


def process_of(recipe: Path, rank: int) -> int:
    """The training process of a rank."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(recipe).encode() in words and f"--local_rank={rank}".encode() in words:
                return int(process.name)
    raise AssertionError(f"no process of rank {rank}")


def wait_for(run: Path, step: int) -> None:
    """Until the run has logged a step."""
    deadline = time.monotonic() + 600
    while not ((run / "metrics.jsonl").exists() and len(read_metrics(run / "metrics.jsonl")) >= step):
        assert time.monotonic() < deadline, f"{run} did not reach step {step}"
        time.sleep(0.005)


def test_sigterm_saves_and_says_how_to_go_on(tokens: Any, tmp_path: Path, root: Path) -> None:
    recipe = tokens.recipe(tmp_path / "run.yaml", steps=100_000, save_every=100_000, evaluate_every=100_000)
    command = [sys.executable, str(root / "train/pretrain.py"), str(recipe)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "run", 3)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 143
    assert "stopped by SIGTERM and saved; go on with --resume" in said
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert checkpoint.newest(tmp_path / "run").name == f"step-{rows[-1]['step']}"


def test_a_run_that_diverges_ends_with_advice_and_untouched_weights(
    tokens: Any, tmp_path: Path, program: Program
) -> None:
    recipe = tokens.recipe(
        tmp_path / "run.yaml", steps=100, optimizer="{lr: 1e30, warmup: 0}", guard="{patience: 4}", save_every=1
    )
    status, _, told = program("train/pretrain.py", recipe)
    assert status == 2
    assert "the last 4 steps were left out, this one as its" in told
    assert "is not finite" in told
    assert "a lower optimizer.lr" in told
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["train/skipped"] for row in rows[-4:]] == [1, 2, 3, 4]
    states = [checkpoint.read_state(folder) for folder in checkpoint.complete(tmp_path / "run")]
    assert {state["updates"] for state in states} == {len(rows) - 4}


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_fp16_supported(), reason="this CPU has no arithmetic in fp16")
def test_fp16_learns_as_fp32(tokens: Any, tmp_path: Path, python: Run, root: Path) -> None:
    recipe = tokens.recipe(tmp_path / "half.yaml", engine="{dtype: fp16}")
    for command in ((recipe,), (recipe, f"run={tmp_path / 'full'}", "engine.dtype=fp32")):
        done = python(root / "train/pretrain.py", *command)
        assert done.returncode == 0, done.stderr
    half, full = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("half", "full"))
    assert (half[-1]["train/skipped"], half[-1]["train/loss_scale"]) == (0, 65536)
    assert "train/loss_scale" not in full[-1]
    for (step, *a), (_, *b) in zip(curve(tmp_path / "half"), curve(tmp_path / "full"), strict=True):
        assert a == pytest.approx(b, rel=0.01), f"step {step}"
    assert curve(tmp_path / "half") != curve(tmp_path / "full")


def test_a_disk_that_takes_no_checkpoint_stops_nothing_before_the_end(tokens: Any, tmp_path: Path, root: Path) -> None:
    """A limit on the size of files stands in for the full disk; the curve still fits."""
    recipe = tokens.recipe(tmp_path / "run.yaml")
    limit = 30_000
    done = subprocess.run(
        [sys.executable, str(root / "train/pretrain.py"), str(recipe)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    for step in (3, 6):
        assert f"step-{step}: not written, process 0 failed: [Errno 27] File too large" in done.stderr
    assert done.stderr.count("training goes on") == 2
    assert f"error: {tmp_path}/run/checkpoints/step-8: not written" in done.stderr
    assert [row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl")] == list(range(1, 9))
    assert list((tmp_path / "run/checkpoints").iterdir()) == []


@needs_compiler
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_two_processes_give_the_curve_of_one(
    tokens: Any, tmp_path: Path, one: Path, root: Path, together: Callable[..., list[str]], zero: int
) -> None:
    """Promise 9: same global batch, same losses, whatever is sharded; fp32, to rounding."""
    further = f", deepspeed: {root / 'train/deepspeed/zero3.json'}" if zero == 3 else ""
    two = tokens.recipe(tmp_path / "two.yaml", engine=f"{{zero: {zero}{further}}}")
    together("train/pretrain.py", 2, two)
    for (step, *a), (same, *b) in zip(curve(one), curve(tmp_path / "two"), strict=True):
        assert step == same
        assert a == pytest.approx(b, rel=2e-4), f"step {step}"


@needs_compiler
def test_any_engine_stage_and_number_of_processes_goes_on_from_any_other(
    tokens: Any, tmp_path: Path, program: Program, root: Path, together: Callable[..., list[str]]
) -> None:
    """torch -> 2 processes, stage 1 -> 4, stage 2 -> 2, stage 3 -> torch: each leg from another one's checkpoint, and
    all on the curve of one process that nothing interrupted, dropout and Muon included; fp32, to rounding. DeepSpeed's
    own launcher starts the first leg."""
    whole = tmp_path / "whole"
    recipe = tokens.recipe(
        tmp_path / "whole.yaml", keep=9, steps=15, model="{width: 32, depth: 2, heads: 4, kv_heads: 2, dropout: 0.1}",
        optimizer="{lr: 1e-2, matrix_lr: 1e-3, warmup: 2}",  # Muon's bf16 makes much of roundings at larger ones
    )  # fmt: skip
    assert program("train/pretrain.py", recipe)[0] == 0
    before = whole
    for step, processes, zero in ((3, 2, 1), (6, 4, 2), (9, 2, 3), (12, 1, 0)):
        run = tmp_path / f"from-{step}"
        shutil.copytree(before, run)
        for later in checkpoint.complete(run):
            if int(later.name.removeprefix("step-")) > step:
                shutil.rmtree(later)
        command = (recipe, f"run={run}", f"engine.zero={zero}", "--resume")
        if processes == 1:
            status, _, told = program("train/pretrain.py", *command)
            assert status == 0, told
        elif step == 3:
            done = finish(launch(root, *command, processes=processes))
            told = done.stdout + done.stderr
        else:
            together("train/pretrain.py", processes, *command)
        assert read_metrics(run / "starts.jsonl")[-1]["step"] == step
        for (number, *expected), (same, *found) in zip(curve(whole), curve(run), strict=True):
            assert number == same
            assert found == pytest.approx(expected, rel=2e-4), f"{processes} processes, stage {zero}: step {number}"
        before = run


@needs_compiler
def test_torture_by_sigkill_loses_no_checkpoint_and_changes_no_bit(
    tokens: Any, tmp_path: Path, launched: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Promise 8: two processes, killed at random moments, both or one, and resumed each time. VPOET_KILLS (`make
    torture`) says how often. Checkpoints are written beside training, so many kills fall between a checkpoint's step
    and its being there."""
    kills = int(os.environ.get("VPOET_KILLS", "2"))
    random = np.random.default_rng(kills)
    recipe = tokens.recipe(
        tmp_path / "whole.yaml", steps=20 + 8 * kills, save_every=2, evaluate_every=10, engine="{zero: 2, timeout: 60}",
        model="{width: 32, depth: 2, heads: 4, kv_heads: 2, dropout: 0.1}",
    )  # fmt: skip
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert [job.wait() for job in two(launched, recipe)] == [0, 0]

    reached, both, saving, beside, done = 0, 0, 0, 0, 0
    for number in range(kills):
        jobs = two(launched, recipe, f"run={cut}", "--resume")
        if number % 5 == 4:  # in the start, too
            time.sleep(float(random.uniform(0, 6)))
        else:
            wait_for(cut, int(done + random.integers(1, 9)))
            time.sleep(float(random.uniform(0, 0.2)))
        victims = jobs if random.random() < 0.5 else [jobs[int(random.integers(2))]]
        for victim in victims:
            victim.kill()
        both += len(victims) == 2
        assert all(job.wait(timeout=120) != 0 for job in jobs), "one that is left alone ends by itself"
        done = len(read_metrics(cut / "metrics.jsonl")) if (cut / "metrics.jsonl").exists() else 0
        unfinished = [int(path.stem.removeprefix("step-")) for path in (cut / "checkpoints").glob("*.tmp")]
        saving += bool(unfinished)
        beside += bool(unfinished) and done > max(unfinished)
        folders = checkpoint.complete(cut)
        newest = int(folders[-1].name.removeprefix("step-")) if folders else 0
        assert newest >= reached, f"kill {number + 1} lost checkpoint step-{reached}"
        assert not (folders and checkpoint.damage(folders[-1]))
        reached = newest
        with capsys.disabled():
            print(f"\r{number + 1} of {kills} kills", end="", flush=True)
    assert [job.wait() for job in two(launched, recipe, f"run={cut}", "--resume")] == [0, 0]
    assert curve(cut) == curve(whole)
    with capsys.disabled():
        print(
            f"\r{kills} kills, {both} of both processes, {saving} while saving and in {beside} of these with training "
            "gone on meanwhile: 0 checkpoints lost, curve bit-equal"
        )


def two(launched: Launch, *arguments: object) -> list[Any]:
    """Two processes as a launcher starts them, but with none that ends one for the other."""
    places = {"WORLD_SIZE": 2, "LOCAL_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    return [launched("train/pretrain.py", *arguments, **places, RANK=rank, LOCAL_RANK=rank) for rank in range(2)]


@needs_compiler
def test_a_process_that_hangs_ends_the_job(tokens: Any, tmp_path: Path, root: Path) -> None:
    """The other one gives up after ``engine.timeout`` with a traceback, and the launcher ends what is left."""
    recipe = tokens.recipe(tmp_path / "run.yaml", steps=100_000, engine="{timeout: 20}")
    with started(launch(root, recipe)) as job:
        wait_for(tmp_path / "run", 3)
        os.kill(process_of(tmp_path / "run.yaml", rank=1), signal.SIGSTOP)
        _, said = job.communicate(timeout=120)
    assert job.returncode != 0
    assert "Timed out waiting 20000ms" in said or "Timeout (0:00:25)!\nThread" in said


@needs_compiler
def test_a_process_that_is_left_alone_at_the_start_ends(tokens: Any, tmp_path: Path, launched: Launch) -> None:
    """The first process, which the others meet at, never came; torch's own wait is at times far longer than told."""
    recipe = tokens.recipe(tmp_path / "run.yaml", engine="{timeout: 15}")
    job = launched(
        *("train/pretrain.py", recipe),
        RANK=1, LOCAL_RANK=1, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(),
    )  # fmt: skip
    assert job.wait(120) == 1
    assert "Timeout (0:00:20)!\nThread" in job.err or "timed out after 15000ms" in job.err
    assert "in init_distributed" in job.err


def test_exported_weights_are_the_checkpoints(one: Path, tmp_path: Path, program: Program) -> None:
    status, out, err = program("train/export.py", one, "--out", tmp_path / "bundle", "--json")
    assert status == 0, err
    assert json.loads(out)["checkpoint"].endswith("step-8")
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {
        "config.yaml", "model.safetensors", "text.model", "video_tokenizer", "card.md"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 0}, "batch = 0"),
        ({"modle": "{}"}, "unknown key 'modle'; did you mean model?"),
        ({"text": "nowhere.model"}, "nowhere.model"),
        ({"attention": "flash"}, "attention backend flash runs on CUDA"),
        ({"attention": "fancy"}, "there are auto, sdpa, products, flex, varlen, flash and flash3"),
        ({"engine": "{zero: 7}"}, "engine.zero = 7"),
    ],
)
def test_mistakes_in_a_recipe_are_named(
    tokens: Any, tmp_path: Path, program: Program, changes: dict[str, object], named: str
) -> None:
    status, _, err = program("train/pretrain.py", tokens.recipe(tmp_path / "run.yaml", **changes))
    assert status == 2
    assert named in err
