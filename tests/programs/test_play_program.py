"""`vpoet play` without a browser: keys in, a film and its record out; and its page, as a user starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.media.video import Video
from vpoet.sequence.actions import ActionSpace
from vpoet.serve.keys import read_keys
from vpoet.worlds import stepped
from vpoet.worlds.playground.physics import ACTIONS

Program = Callable[..., tuple[int, str, str]]
KEYS = "right 4\njump\n# and on\nright 3\nprompt a hero on snow\nleft 2\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    settings = {"actions": ActionSpace(names=list(ACTIONS)), "tasks": ["play"], "window": 3}
    folder = tmp_path_factory.mktemp("play")
    return make_bundle(folder, depth=1, time_stride=1, length=400, height=32, width=32, **settings)


def test_keys_become_a_film_of_the_real_and_the_learned_world_and_its_record_makes_it_again(
    bundle: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "keys.txt").write_text(KEYS)
    film = tmp_path / "both.mp4"
    arguments = (bundle, "--record", tmp_path / "keys.txt", "--seed", 4, "--prompt", "a robot on sand", "--json")
    status, out, err = program("sample/play.py", *arguments, "--out", film, "--scale", 2)
    assert status == 0, err
    told = json.loads(out)
    assert told["frames"] == 11
    video = Video.read(film)
    assert (video.frames.shape, video.fps) == ((11, 64, 2 * (32 + 2 + 32), 3), 8)
    record = json.loads(Path(told["record"]).read_text())
    assert record["keys"] == ["right 4", "jump 1", "right 3", "prompt a hero on snow", "left 2"]
    assert (record["world"], record["seed"], record["view"]) == ("world:playground", 4, "both")

    real = stepped("world:playground", 32, 32, 8)
    wanted = [real.reset(4, "a robot on sand")]
    wanted += [real.step(ACTIONS.index(key))[0] for key in 4 * ["right"] + ["jump"] + 3 * ["right"] + 2 * ["left"]]
    assert np.abs(video.frames[:, ::2, :64:2].astype(int) - np.stack(wanted)).mean() < 8  # as near as H.264 brings it

    again = tmp_path / "again.mp4"  # the record says seed and prompt
    status, _, err = program("sample/play.py", bundle, "--record", f"{film}.json", "--out", again, "--scale", 2)
    assert status == 0, err
    assert again.read_bytes() == film.read_bytes()
    status, _, err = program(
        *("sample/play.py", bundle, "--record", f"{film}.json", "--show", "model"),
        *("--out", tmp_path / "model.mp4", "--scale", 1, "--fps", 20),
    )
    assert status == 0, err
    slow = Video.read(tmp_path / "model.mp4")
    assert (slow.frames.shape, slow.fps) == ((11, 32, 32, 3), 20)
    again = tmp_path / "slow.mp4"  # and what is shown, at which rate
    status, _, err = program(
        "sample/play.py", bundle, "--record", tmp_path / "model.mp4.json", "--out", again, "--scale", 1
    )
    assert status == 0, err
    assert again.read_bytes() == (tmp_path / "model.mp4").read_bytes()
    assert "warning" not in err
    other = tmp_path / "other.json"
    other.write_text(json.dumps(record | {"model": "0" * 16}))
    status, _, err = program("sample/play.py", bundle, "--record", other, "--out", tmp_path / "other.mp4", "--scale", 1)
    assert status == 0
    assert "is of another model, '0000000000000000'" in err


@pytest.mark.parametrize(("changed", "told"), [({"view": "dream"}, "view: there are"), ({"fps": 0}, "fps: 0.5 to 240")])
def test_a_record_that_cannot_be_is_refused(tmp_path: Path, changed: dict[str, object], told: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"keys": ["right 2"]} | changed))
    with pytest.raises(DataError, match=told):
        read_keys(path, ACTIONS)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--record", "{keys}"), "belong together"),
        (("--out", "OUT.mp4"), "belong together"),
        (("--record", "{keys}", "--out", "OUT.png"), "cannot write .png"),
        (("--record", "{keys}", "--out", "OUT.mp4", "--show", "dream"), "there are real, model, both"),
        (("--record", "{keys}", "--out", "OUT.mp4", "--fps", "nan"), "0.5 to 240"),
        (("--record", "{keys}", "--out", "OUT.mp4", "--world", "none", "--show", "real"), "no real world here"),
        (("--record", "{keys}", "--out", "OUT.mp4", "--world", "world:platformer"), "cannot act"),
        (("--record", "{keys}", "--out", "OUT.mp4", "--prompt", "xyzzy"), "names nobody and no place"),
        (("--record", "{keys}", "--out", "{keys}"), "cannot write .txt"),
        (("--no-browser", "--port", "99999"), "--port"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(
    bundle: Path, tmp_path: Path, program: Program, arguments: tuple[str, ...], told: str
) -> None:
    (tmp_path / "keys.txt").write_text(KEYS)
    words = [
        word.replace("{keys}", str(tmp_path / "keys.txt")).replace("OUT", str(tmp_path / "x")) for word in arguments
    ]
    status, _, err = program("sample/play.py", bundle, *words)
    assert status == 2
    assert told in err
    assert [path.name for path in tmp_path.iterdir()] == ["keys.txt"]


def test_a_model_that_does_not_play_is_refused(
    tmp_path: Path, make_bundle: Callable[..., Path], program: Program
) -> None:
    still = make_bundle(tmp_path, depth=1, frames=5, height=16, width=16)
    status, _, err = program("sample/play.py", still, "--no-browser", "--port", 0)
    assert status == 2
    assert "was not trained for play" in err


def test_the_page_is_served_until_it_is_interrupted(bundle: Path, root: Path) -> None:
    command = [sys.executable, root / "sample/play.py", bundle, "--no-browser", "--port", "0"]
    page = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    try:
        assert page.stderr is not None
        said = page.stderr.readline()
        address = re.match(r"http://127\.0\.0\.1:\d+/", said)
        assert address, said + page.stderr.read()
        with urllib.request.urlopen(address[0], timeout=300) as answer:
            assert b"vpoet" in answer.read()
        page.send_signal(signal.SIGINT)
        assert page.wait(300) in (0, 130)
        assert "Traceback" not in page.stderr.read()
    finally:
        page.kill()
        page.communicate()
