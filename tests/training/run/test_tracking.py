"""The curves of a run: what is written, what survives a resume, and that nothing here stops a training."""

import json
import math
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from vpoet.errors import VpoetWarning
from vpoet.media.video import Video
from vpoet.training.run.provenance import versions
from vpoet.training.run.tracking import Sampled, Tracker, read_metrics


def rows(run):
    return [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(run / "metrics.jsonl")]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")


@pytest.fixture
def no_wandb(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")


def offline_records(run):
    """Every record of the newest offline run. wandb's service writes the last of them just after ``finish`` returns."""
    path = max(run.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    for _ in range(1000):
        records = parse(path.read_bytes())
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.01)
    pytest.fail(f"{path} has no end")


def parse(data):
    """LevelDB's log format: blocks of 32 KiB, here behind a header of 7 bytes; a record may be cut into parts."""
    at, partial, records = 7, b"", []
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        partial += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(wandb_internal_pb2.Record.FromString(partial))
            partial = b""
    return records


def offline_summary(run):
    """What wandb shows of the run as a whole: the last value of each name."""
    return {
        "/".join(item.nested_key) or item.key: json.loads(item.value_json)
        for record in offline_records(run)
        if record.HasField("summary")
        for item in record.summary.update
    }


def offline_tables(run, name):
    """The rows of every table of that name, in order."""
    paths = run.glob(f"wandb/offline-run-*/files/media/table/{name}_*.table.json")
    ordered = sorted(paths, key=lambda path: int(path.name.split("_")[-2]))
    return [row for path in ordered for row in json.loads(path.read_text())["data"]]


def test_offline_run_holds_config_metrics_and_media(tmp_path):
    Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    run = tmp_path / "runs" / "a"
    tracker = Tracker(run, config={"model": {"layers": 4}}, about={"parameters": 7}, project="vpoet", name="a")
    tracker.log({"train/loss": 2.5}, 1)
    tracker.log({"train/loss": 1.5}, 2)
    tracker.video("samples/0", tmp_path / "clip.mp4", "a red fox", 2)
    Video(np.zeros((1, 32, 32, 3), np.uint8), 0).write(tmp_path / "sheet.png")
    tracker.image("reconstructions", tmp_path / "sheet.png", "step 2", 2)
    tracker.close()

    assert rows(run) == [{"step": 1, "train/loss": 2.5}, {"step": 2, "train/loss": 1.5}]
    records = offline_records(run)
    start = next(record.run for record in records if record.HasField("run"))
    config = {item.key: json.loads(item.value_json) for item in start.config.update}
    assert config["model"] == {"layers": 4}
    assert config["start"] == {"parameters": 7, **versions()}
    assert (start.project, start.display_name) == ("vpoet", "a")
    history = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    assert [(row["step"], row["train/loss"]) for row in history if "train/loss" in row] == [(1, 2.5), (2, 1.5)]
    assert any(row.get("samples/0/caption") == "a red fox" for row in history)
    assert any(row.get("reconstructions/caption") == "step 2" for row in history)
    assert len(list(run.glob("wandb/offline-run-*/files/media/images/**/*.png"))) == 1
    assert len(list(run.glob("wandb/offline-run-*/files/media/videos/**/*.mp4"))) == 1
    assert {path.name for path in run.iterdir()} == {"metrics.jsonl", "starts.jsonl", "wandb"}


def test_offline_run_holds_a_summary_that_a_resumed_run_carries_on(tmp_path):
    """Read back from wandb's own file: the best and the last held-out loss, tokens, rates, and which code it was."""
    rates = {"speed/mfu": 0.25, "speed/padding": 0.1, "speed/data_wait": 0.01}
    fast = {"speed/seconds_per_step": 0.5, "speed/tokens_per_second": 200.0, **rates}
    tracker = Tracker(tmp_path, config={}, about={"parameters": 7, "processes": 2}, tokens_per_step=100)
    for step, loss in ((10, 3.0), (20, 1.0)):
        tracker.log({"train/skipped": 1.0, "heldout/loss": loss, "heldout/bits": loss / math.log(2), **fast}, step)
    del tracker  # killed: never closed
    wandb.finish()
    killed = offline_summary(tmp_path)
    assert (killed["best/heldout_loss"], killed["total/tokens"]) == (1.0, 2000)

    tracker = Tracker(tmp_path, config={}, about={"parameters": 7, "processes": 1}, tokens_per_step=100, resume_step=20)
    tracker.log({"train/skipped": 2.0, "heldout/loss": 2.0, "heldout/bits": 2 / math.log(2), **fast}, 30)
    tracker.close()
    expected = {
        "final/heldout_loss": 2.0, "final/heldout_bits": 2 / math.log(2),
        "best/heldout_loss": 1.0, "best/heldout_bits": 1 / math.log(2), "best/step": 20,
        "total/steps": 30, "total/tokens": 3000, "total/hours": 15 / 3600, "total/skipped": 2,
        "mean/tokens_per_second": 200, "mean/mfu": 0.25, "mean/padding": 0.1, "mean/data_wait": 0.01,
        "parameters": 7, "processes": 1, **versions(),
    }  # fmt: skip
    summary = offline_summary(tmp_path)
    assert {name: summary.get(name) for name in expected} == pytest.approx(expected)
    table = dict(offline_tables(tmp_path, "summary"))
    assert table["held-out loss, best"] == "1.0000 nats, 1.443 bits per token, at step 20"
    assert table["tokens"] == "3,000, 10.0% of them padding"
    starts = read_metrics(tmp_path / "starts.jsonl")
    assert [(row["step"], row["processes"], row["torch"]) for row in starts] == [
        (0, 2, versions()["torch"]),
        (20, 1, versions()["torch"]),
    ]


def test_samples_are_shown_beside_real_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # where wandb would keep what belongs into the run folder
    for index, name in enumerate(("sampled", "real")):
        Video(np.full((5, 32, 32, 3), 90 * index, np.uint8), 8.0).write(tmp_path / f"{name}.mp4")
    run = tmp_path / "run"
    tracker = Tracker(run, config={})
    both = Sampled("a red fox", tmp_path / "sampled.mp4", tmp_path / "real.mp4", "a fox that is red")
    tracker.samples([both, Sampled("a dog", tmp_path / "sampled.mp4")], 6)
    tracker.samples([], 7)
    tracker.close()
    offline_records(run)
    rows = offline_tables(run, "samples/beside_real")
    assert [(step, prompt, caption) for step, prompt, _, _, caption in rows] == [
        (6, "a red fox", "a fox that is red"),
        (6, "a dog", ""),
    ]
    assert [[cell is not None for cell in row[2:4]] for row in rows] == [[True, True], [True, False]]
    clips = {(tmp_path / f"{name}.mp4").read_bytes() for name in ("sampled", "real")}
    kept = {path.read_bytes() for path in (run / "wandb/artifacts/staging").iterdir() if path.is_file()}
    assert clips <= kept, "a table's clips travel with the run folder"
    assert not list((tmp_path / "home").rglob("staging"))
    assert "WANDB_DATA_DIR" not in os.environ


def test_resuming_drops_later_rows_and_keeps_the_wandb_run(tmp_path):
    tracker = Tracker(tmp_path, config={})
    for step in range(1, 6):
        tracker.log({"loss": step / 4}, step)
    tracker.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    tracker = Tracker(tmp_path, config={}, resume_step=3)
    tracker.log({"loss": 9.0}, 4)
    tracker.close()
    assert rows(tmp_path) == [{"step": step, "loss": step / 4} for step in (1, 2, 3)] + [{"step": 4, "loss": 9.0}]
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}) == 1  # run-ID.wandb


@pytest.mark.usefixtures("no_wandb")
def test_a_new_run_starts_a_new_curve(tmp_path):
    for loss in (1.0, 2.0):
        tracker = Tracker(tmp_path, config={})
        tracker.log({"loss": loss}, 0)
        tracker.close()
    assert rows(tmp_path) == [{"step": 0, "loss": 2.0}]


@pytest.mark.usefixtures("no_wandb")
def test_values_that_are_not_finite_are_null(tmp_path):
    tracker = Tracker(tmp_path, config={})
    tracker.log({"a": float("nan"), "b": np.float32("inf"), "c": np.float64(0.5)}, 1)
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) | {"time": 0} == {
        "step": 1,
        "time": 0,
        "a": None,
        "b": None,
        "c": 0.5,
    }


def test_other_ranks_write_nothing(tmp_path):
    tracker = Tracker(tmp_path / "run", config={}, enabled=False)
    tracker.log({"loss": 1.0}, 1)
    tracker.video("samples", tmp_path / "none.mp4", "", 1)
    tracker.close()
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_wandb")
def test_a_disk_that_fails_is_warned_about_once_and_written_again_when_it_works(tmp_path, monkeypatch):
    tracker = Tracker(tmp_path, config={})
    tracker.log({"loss": 1.0}, 1)
    path = tmp_path / "metrics.jsonl"
    path.rename(tmp_path / "kept")
    path.mkdir()  # appending fails, even for root
    with pytest.warns(VpoetWarning, match=r"metrics\.jsonl: not written") as warned:  # noqa: PT031
        tracker.log({"loss": 2.0}, 2)
        tracker.log({"loss": 3.0}, 3)
    assert len(warned) == 1
    path.rmdir()
    path.write_text((tmp_path / "kept").read_text() + '{"step": 2, "lo')  # the disk was full in the middle of a line
    tracker.log({"loss": 4.0}, 4)
    assert rows(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 4, "loss": 4.0}]


def test_wandb_that_never_starts_is_warned_about_once(tmp_path, monkeypatch):
    def fail(**_):
        raise wandb.errors.CommError("no route to host")

    monkeypatch.setattr(wandb, "init", fail)
    with pytest.warns(VpoetWarning, match="no route to host") as warned:  # noqa: PT031
        tracker = Tracker(tmp_path, config={})
        tracker.log({"loss": 1.0}, 1)
        tracker.close()
    assert len(warned) == 1
    assert rows(tmp_path) == [{"step": 1, "loss": 1.0}]


def test_wandb_that_breaks_later_is_left_out(tmp_path, monkeypatch):
    tracker = Tracker(tmp_path, config={})
    monkeypatch.setattr(wandb.Run, "log", lambda *_, **__: 1 / 0)
    with pytest.warns(VpoetWarning, match="left out") as warned:  # noqa: PT031
        tracker.log({"loss": 1.0}, 1)
        tracker.log({"loss": 2.0}, 2)
        tracker.video("samples", tmp_path / "none.mp4", "", 2)
    tracker.close()
    wandb.finish()
    assert len(warned) == 1
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


def test_a_video_that_is_missing_is_warned_about(tmp_path):
    tracker = Tracker(tmp_path, config={})
    with pytest.warns(VpoetWarning, match=r"none\.mp4"):
        tracker.video("samples", tmp_path / "none.mp4", "", 1)
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert any(record.HasField("history") for record in offline_records(tmp_path))


@pytest.mark.parametrize(
    ("environment", "netrc", "expected"),
    [
        ({}, "", ["offline"]),
        ({"WANDB_API_KEY": "k" * 40}, "", ["online"]),
        ({}, "machine api.wandb.ai login user password x\n", ["online"]),
        ({}, "machine elsewhere.org login user password x\n", ["offline"]),
        ({}, "not a netrc", ["offline"]),
        ({"WANDB_BASE_URL": "https://wandb.lab"}, "machine wandb.lab login user password x\n", ["online"]),
        ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}, "", ["offline"]),
        ({"WANDB_MODE": "disabled"}, "", ["disabled"]),
    ],
)
def test_online_only_when_the_user_says_so(tmp_path, monkeypatch, environment, netrc, expected):
    (tmp_path / "netrc").write_text(netrc)
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"NETRC": str(tmp_path / "netrc"), **environment}.items():
        monkeypatch.setenv(name, value)
    modes = []
    monkeypatch.setattr(wandb, "init", lambda mode, **_: modes.append(mode) or FakeRun())
    Tracker(tmp_path / "run", config={})
    assert modes == expected


def test_an_unreachable_server_means_offline(tmp_path, monkeypatch):
    modes = []

    def init(mode, **_):
        modes.append(mode)
        if mode == "online":
            raise wandb.errors.CommError("timed out")
        return FakeRun()

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setattr(wandb, "init", init)
    with pytest.warns(VpoetWarning, match="does not answer .timed out.; this run is kept offline"):
        Tracker(tmp_path, config={})
    assert modes == ["online", "offline"]


def test_a_server_that_nobody_can_reach_leaves_a_whole_offline_run(tmp_path, monkeypatch):
    """wandb itself, and a port on which nothing listens."""
    for name, value in {"MODE": "online", "BASE_URL": "http://127.0.0.1:9", "API_KEY": "k" * 40}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    with pytest.warns(VpoetWarning, match="does not answer") as warned:  # noqa: PT031
        tracker = Tracker(tmp_path, config={})
        tracker.log({"train/loss": 2.5, "speed/mfu": 0.5}, 1)
        tracker.close()
    assert len(warned) == 1, "what follows is kept"
    assert offline_summary(tmp_path)["train/loss"] == 2.5
    assert len(rows(tmp_path)) == 1


RUN = """
import sys, time, warnings
from pathlib import Path
from vpoet.training.run.tracking import Tracker
tracker = Tracker(Path(sys.argv[1]), config={"seed": 1})
for step in range(1, 41):
    tracker.log({f"train/{i}": step / 7 for i in range(40)}, step)
    print(step, flush=True)
    sys.stdin.readline()
tracker.close()
print("closed", flush=True)
"""


def lonely_run(folder, **options):
    """A process that logs 40 steps, each after a line from us; with a wandb of its own, not the one that serves us."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}, text=True, **options,
    )  # fmt: skip


def processes_of_wandb(parent):
    """The processes that wandb has started to serve ``parent``."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            program, *words = (process / "cmdline").read_bytes().split(b"\0")
            if b"wandb" in program and str(parent).encode() in words:
                found.append(int(process.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").is_file(), reason="wandb's process is found in /proc")
def test_wandb_killed_in_mid_run_stops_nothing(tmp_path):
    """wandb does its work in a process of its own: that one is killed the hard way."""
    run = lonely_run(tmp_path)
    assert run.stdout.readline() == "1\n"
    services = processes_of_wandb(run.pid)  # two, while one has been forked and is not yet another program
    assert services
    for service in services:
        with suppress(ProcessLookupError):
            os.kill(service, signal.SIGKILL)
    for _ in range(39):  # what is logged at once is buffered by wandb, and nobody notices
        time.sleep(0.05)
        run.stdin.write("\n")
        run.stdin.flush()
    out, err = run.communicate("\n", timeout=60)
    assert run.returncode == 0, err
    assert out.endswith("40\nclosed\n")
    assert err.count("VpoetWarning: wandb failed and is left out from here") == 1
    assert [row["step"] for row in rows(tmp_path)] == list(range(1, 41))


@pytest.mark.parametrize("limit", [2_000, 30_000], ids=["from the start", "later"])
def test_a_full_disk_under_the_logs_and_wandb_stops_nothing(tmp_path, limit):
    """A limit on the size of files stands in for the full disk, for wandb's own process as well."""
    run = lonely_run(tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    out, err = run.communicate("\n" * 40, timeout=120)
    assert run.returncode == 0, err
    assert out.endswith("40\nclosed\n")
    assert err.count("metrics.jsonl: not written: File too large; training goes on") == 1
    kept = [row["step"] for row in rows(tmp_path)]
    assert kept == list(range(1, len(kept) + 1))
    assert 0 < len(kept) < 40


class FakeRun:
    def define_metric(self, *_, **__):
        pass
