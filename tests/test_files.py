"""Files: whole or not there, whatever the disk does; one writer a folder; no name leads out of its folder."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet import files
from vpoet.data.shards import ShardFile
from vpoet.errors import DataError, OutputError, VpoetWarning
from vpoet.media.video import Video

Python = Callable[..., subprocess.CompletedProcess[str]]


def write_shard(path: Path) -> None:
    with ShardFile(path) as shard:
        for number in range(40):
            shard.write(f"k{number}", {"mp4": bytes(3000), "json": {}})


WRITERS: dict[str, Callable[[Path], None]] = {
    "a": lambda path: files.write_atomic(path, bytes(2000)),
    "a.gif": lambda path: Video(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8), 8.0).write(path),
    "a.tar": write_shard,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, full: None, name: str) -> None:
    for before in (None, b"before"):
        if before is not None:
            (tmp_path / name).write_bytes(before)
        with pytest.raises(OutputError, match=f"{name}: cannot be written: File too large; make room"):
            WRITERS[name](tmp_path / name)
        assert [path.read_bytes() for path in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("name", WRITERS)
def test_places_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / name).mkdir(parents=True)
    for folder in (tmp_path / "file", tmp_path / "taken", Path("/proc")):
        with pytest.raises(OutputError, match="cannot be written"):
            WRITERS[name](folder / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["file", "taken", name])


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    def interrupted() -> None:
        with files.aside(tmp_path / "a.png") as fresh:
            assert fresh.suffix == ".png"
            fresh.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    files.write_atomic(tmp_path / "new" / ("x" * 250 + ".json"), "whole")
    assert [path.read_text() for path in tmp_path.glob("new/*")] == ["whole"]


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    def write(part: str, fails: bool = False) -> None:
        with files.folder_aside(tmp_path / "set") as fresh:
            (fresh / "in").mkdir()
            (fresh / "in" / part).write_text(part)
            if fails:
                raise OSError(errno.ENOSPC, "No space left on device")

    write("one")
    with pytest.raises(OutputError, match="set: cannot be written: No space left on device; make room"):
        write("two", fails=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "in", "one"]
    write("two")
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "in", "two"]


def test_a_folder_that_cannot_take_its_name_leaves_the_one_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "one").touch()

    def refused(fresh: Path, folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "put_in_place", refused)
    with (
        pytest.raises(OutputError, match="set: cannot be written: Input/output error"),
        files.folder_aside(tmp_path / "set"),
    ):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "one"]


def test_names_of_a_folder(tmp_path: Path) -> None:
    assert files.inside(tmp_path, "a.tar") == tmp_path / "a.tar"
    for name in (
        "",
        ".",
        "..",
        "../a",
        "/a",
        "a/b",
        "a\\b",
        "a\0",
        "a\n",
        "\u202ea",
        "x" * 256,
        "\udce9",
        None,
        5,
        ["a"],
    ):
        with pytest.raises(DataError, match="not the name of a file in this folder"):
            files.inside(tmp_path, name)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_a_damaged_file_of_ours_is_a_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - whichever
        files.read_json(tmp_path / "a.json")


def held_elsewhere(python: Python, folder: Path, **environment: str) -> bool:
    """Whether another process is refused the folder, and told so."""
    script = f"from vpoet.files import locked\nwith locked({str(folder)!r}): print('mine')"
    done = python("-c", script) if not environment else run(script, **environment)
    assert (done.returncode == 0) == (done.stdout == "mine\n")
    assert done.returncode == 0 or "is writing there; wait" in done.stderr
    return done.returncode != 0


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_a_folder_has_one_writer(tmp_path: Path, python: Python) -> None:
    folder = tmp_path / "new" / "out"
    with files.locked(folder):
        with files.locked(folder / ".." / "out"):  # a program that calls another
            pass
        assert held_elsewhere(python, folder)
        owner = json.loads((folder / files.LOCK).read_text())
        assert owner["pid"] == os.getpid()
    assert not held_elsewhere(python, folder)
    assert not list(folder.iterdir()), "nothing of the lock stays"


def test_a_kill_frees_the_folder_and_what_it_left_goes(tmp_path: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom vpoet import files\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "with files.locked(folder), files.aside(folder / 'a.tar') as fresh:\n"
        "    fresh.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match=f"process {process.pid} on .* is writing there"), files.locked(tmp_path):
            pass
        (tmp_path / ".mine.tmp").write_text("of somebody else")
        process.kill()
        process.wait()
    assert len(list(tmp_path.iterdir())) == 3
    with files.locked(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [files.LOCK, ".mine.tmp"]


def test_the_processes_of_a_launcher_share_a_folder(
    tmp_path: Path, python: Python, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank once; no other run, and no process of its own; whoever of them ends first."""
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in (place | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    with files.locked(tmp_path):
        assert not held_elsewhere(python, tmp_path, RANK="1")
        assert held_elsewhere(python, tmp_path, RANK="0")
        assert held_elsewhere(python, tmp_path, RANK="1", MASTER_PORT="29501")
        assert held_elsewhere(python, tmp_path, WORLD_SIZE="1")
    assert not list(tmp_path.iterdir())


def test_a_number_of_processes_that_is_none_keeps_nobody_from_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with files.locked(tmp_path):
        pass


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(VpoetWarning, match="no locks"), files.locked(tmp_path):
        pass


@pytest.mark.slow
def test_workers_end_with_the_run_that_is_killed(tmp_path: Path) -> None:
    """Else they would write on into the folder of the next one."""
    command = [
        "train/ingest.py",
        "world:platformer",
        "--clips",
        "5000",
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "2",
    ]
    root = Path(__file__).parent.parent
    with subprocess.Popen([sys.executable, *command], cwd=root, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            asides = list((tmp_path / "out").glob(".*.tmp.tar"))
            if len(asides) == 2:
                break
            time.sleep(0.1)
        workers = [int(path.name.split(".")[2].split("-")[1]) for path in asides]
        process.kill()
        process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{worker}/stat").exists() for worker in workers):
            break
        time.sleep(0.1)
    assert len(workers) == 2
    assert process.pid not in workers
    assert not [worker for worker in workers if files._lives(worker)]


@pytest.mark.parametrize("before", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"b', b'{"a": 1}\n\xff'])
def test_lines_are_added_after_half_a_line(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(before)
    for _ in range(2):
        with files.appending(path) as lines:
            lines.write("é\n")
    assert path.read_bytes() == before + b"\n" * (not before.endswith(b"\n") and before != b"") + "é\né\n".encode()


def test_lines_that_the_disk_refuses_name_their_file(tmp_path: Path, full: None) -> None:
    with (
        pytest.raises(OutputError, match=r"rows\.jsonl: cannot be written: File too large; make room"),
        files.appending(tmp_path / "rows.jsonl") as lines,
    ):
        lines.write("x" * 2000)
