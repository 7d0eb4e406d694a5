"""`vpoet serve` as a user starts it, asked by `vpoet sample --server`; killed, and started again."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vpoet.media.video import Video
from vpoet.serve.client import Remote

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    return make_bundle(folder, depth=1, length=200, frames=9, height=16, width=24)


@contextmanager
def served(root: Path, *arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of a server, and its address."""
    command = [sys.executable, root / "sample/serve.py", *arguments, "--no-browser", "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    try:
        assert server.stderr is not None
        said = server.stderr.readline() + server.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/\S*", said)
        assert address, said + server.stderr.read()
        yield server, address[0].rstrip(";")
    finally:
        server.kill()
        server.communicate()


def test_a_server_makes_the_files_of_the_command_line_and_has_its_clips_after_a_kill(
    bundle: Path, tmp_path: Path, root: Path, program: Program
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
    Video(picture, 0).write(tmp_path / "first.png")
    asked = ("--prompt", "a robot", "--image", tmp_path / "first.png", "--seed", 2, "--count", 2, "--cfg", 1.5)
    here, there = tmp_path / "here", tmp_path / "there"
    assert program("sample/generate.py", "--model", bundle, *asked, "--out", here)[0] == 0
    with served(root, bundle, "--out", tmp_path / "kept") as (server, address):
        status, out, err = program("sample/generate.py", "--server", address, *asked, "--out", there, "--json")
        assert status == 0, err
        assert len(json.loads(out)["written"]) == 2
        for file in here.iterdir():
            assert (there / file.name).read_bytes() == file.read_bytes(), file.name
        status, _, err = program("sample/generate.py", "--server", address, "--frames", 8, "--out", there)
        assert status == 2
        assert "the nearest is 9 frames" in err
        status, _, err = program("sample/generate.py", "--server", address, "--model", "none", "--out", there)
        assert status == 2
        assert "no such model" in err
        edit = ("--edit", here / "a-robot-2.mp4", "--prompt", "a hero", "--top-k", 1, "--json")
        status, out, err = program("sample/generate.py", "--server", address, *edit, "--out", tmp_path / "edited.mp4")
        assert status == 0, err
        assert "of 18 codes of the clip that is edited are impossible" in err
        before = Remote(address).clips()
        assert len(before) == 3
        server.send_signal(signal.SIGKILL)
    with served(root, bundle, "--out", tmp_path / "kept") as (server, address):
        assert Remote(address).clips() == before
        server.send_signal(signal.SIGINT)
        assert server.wait(300) in (0, 130)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()


def test_the_api_is_described_without_a_server(bundle: Path, tmp_path: Path, program: Program) -> None:
    status, out, err = program("sample/serve.py", bundle, "--out", tmp_path / "kept", "--openapi")
    assert status == 0, err
    assert "/api/jobs" in json.loads(out)["paths"]
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--host", "256.1.1.1"), "port 0 of 256.1.1.1"),
        (("--out", "{file}"), "is no folder"),
        (("--port", "99999"), "--port"),
    ],
)
def test_what_cannot_be_served_is_told(
    bundle: Path, tmp_path: Path, program: Program, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "file").write_text("")
    words = [word.replace("{file}", str(tmp_path / "file")) for word in arguments]
    given = ("--no-browser", "--port", 0, "--out", tmp_path / "kept", *words)
    status, _, err = program("sample/serve.py", bundle, *given)
    assert status == 2
    assert said in err


@pytest.mark.parametrize("address", ["x", "ftp://127.0.0.1", "http://127.0.0.1:9"])
def test_a_server_that_is_none_is_told(tmp_path: Path, program: Program, address: str) -> None:
    status, _, err = program("sample/generate.py", "--server", address, "--prompt", "a", "--out", tmp_path / "x.mp4")
    assert status == 2
    assert address in err
    assert "Traceback" not in err
