"""The curves of a run: what is written, what survives a resume, and that nothing here stops a training."""

import json
import struct
import time

import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from vpoet.data.video import Video
from vpoet.errors import VpoetWarning
from vpoet.training.tracking import Tracker, read_metrics


def rows(run):
    return [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(run / "metrics.jsonl")]


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


def test_offline_run_holds_config_metrics_and_media(tmp_path):
    Video(np.zeros((5, 32, 32, 3), np.uint8), 8.0).write(tmp_path / "clip.mp4")
    run = tmp_path / "runs" / "a"
    tracker = Tracker(run, config={"model": {"layers": 4}}, project="vpoet", name="a")
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
    assert {path.name for path in run.iterdir()} == {"metrics.jsonl", "wandb"}


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
    with pytest.warns(VpoetWarning, match="metrics not written") as warned:  # noqa: PT031
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


class FakeRun:
    def define_metric(self, *_, **__):
        pass
