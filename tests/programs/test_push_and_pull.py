"""A bundle and a tokenizer to a hub and back: byte for byte, over a kill, with a card; and what is refused."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vpoet import bundle
from vpoet.generate.model import load
from vpoet.media.video import Video
from vpoet.tokenizer.video import VideoTokenizer

Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def whole(make_bundle: Callable[..., Path], tmp_path: Path) -> Path:
    folder = make_bundle(tmp_path / "made", depth=1, frames=5, height=16, width=16, length=128)
    (folder / "card.md").write_text("# robots\n\nA small model | of robots.\n")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def head_of(card: bytes) -> tuple[dict[str, Any], str]:
    _, head, body = card.decode().split("---\n", 2)
    return yaml.safe_load(head), body


def run_folder(folder: Path) -> Path:
    """What a run leaves behind, as far as a card reads it."""
    (folder / "samples").mkdir(parents=True)
    rows = [
        {"step": n, "time": 1e9 + n, "train/loss": 5.0 - n, "heldout/loss": 5.5 - n, "heldout/bits": 7.9 - n}
        for n in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = "batch: 1\nsteps: 2\ndata: {sources: [{path: some/where}], length: 128}\nsamples: {prompts: [a robot]}\n"
    (folder / "resolved.yaml").write_text(recipe)
    Video(np.zeros((5, 16, 16, 3), np.uint8), 8).write(folder / "samples" / "step-2-0.mp4")
    return folder


def test_a_bundle_comes_back_byte_for_byte(server: Any, whole: Path, tmp_path: Path, program: Program) -> None:
    status, out, err = program("train/push.py", whole, "someone/robots", "--json")
    assert status == 0, err
    pushed = told(out)
    assert pushed["hash"] == bundle.load(whole).hash
    assert set(pushed["files"]) == {*contents(whole), "README.md"}
    assert server.newest("someone/robots").items() >= contents(whole).items()
    status, out, err = program("train/pull.py", "someone/robots", "--out", tmp_path / "back", "--json")
    assert status == 0, err
    assert contents(tmp_path / "back") == contents(whole)
    assert told(out) == {
        "folder": str(tmp_path / "back"), "kind": "bundle", "hash": pushed["hash"], "commit": pushed["commit"],
    }  # fmt: skip
    loaded = load(f"hf://someone/robots@{pushed['commit']}", "cpu")
    assert loaded.bundle.hash == pushed["hash"]
    assert np.array_equal(loaded.sample("a robot", seed=1).frames, load(whole, "cpu").sample("a robot", seed=1).frames)
    assert bundle.begin(loaded.bundle.transformer, "hf://someone/robots")[0] == pushed["hash"]
    described = [program("train/describe.py", where, "--json") for where in ("hf://someone/robots", whole)]
    assert [status for status, *_ in described] == [0, 0]
    assert described[0][1] == described[1][1]
    assert program("train/pull.py", "someone/robots", "--out", tmp_path / "back")[0] == 0  # in place of itself
    asked = "--model", "hf://someone/robots", "--prompt", "a robot", "--frames", "1", "--out", tmp_path / "clip.png"
    status, _, err = program("sample/generate.py", *asked)
    assert status == 0, err


def test_a_pull_that_was_killed_goes_on_where_it_was(
    server: Any, whole: Path, tmp_path: Path, root: Path, program: Program
) -> None:
    assert program("train/push.py", whole, "someone/robots")[0] == 0
    server.halt_after = (whole / "model.safetensors").stat().st_size // 2
    command = [sys.executable, root / "train" / "pull.py", "someone/robots", "--out", tmp_path / "back"]
    patient = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "600"}
    pulling = subprocess.Popen(command, env=patient, stderr=subprocess.DEVNULL)
    try:
        assert server.halted.wait(600)
        (part,) = waited(
            lambda: [path for path in tmp_path.rglob("*.incomplete") if path.stat().st_size == server.halt_after]
        )
    finally:
        pulling.kill()
        pulling.wait()
    assert not (tmp_path / "back").exists()
    kept = part.stat().st_size
    server.halt_after = None
    server.sent.clear()
    status, _, err = program("train/pull.py", "someone/robots", "--out", tmp_path / "back")
    assert status == 0, err
    assert contents(tmp_path / "back") == contents(whole)
    assert (part.name.partition(".")[0], kept) in server.sent


def waited(found: Callable[[], list[Path]]) -> list[Path]:
    """What it gives once it gives something: what was sent is still on its way."""
    while not (paths := found()):
        time.sleep(0.01)
    return paths


def test_a_tokenizer_comes_back_byte_for_byte(server: Any, whole: Path, tmp_path: Path, program: Program) -> None:
    tokenizer = whole / "video_tokenizer"
    status, out, err = program("train/push.py", tokenizer, "someone/codes", "--license", "cc-by-4.0", "--json")
    assert status == 0, err
    assert told(out)["kind"] == "video tokenizer"
    head, body = head_of(server.newest("someone/codes")["README.md"])
    assert (head["license"], head["tags"]) == ("cc-by-4.0", ["vpoet", "video-tokenizer"])
    assert "hf://someone/codes" in body
    assert program("train/pull.py", "hf://someone/codes", "--out", tmp_path / "back")[0] == 0
    assert contents(tmp_path / "back") == contents(tokenizer)
    assert VideoTokenizer.load(Path("hf://someone/codes")).hash == VideoTokenizer.load(tokenizer).hash


def test_the_card_tells_of_the_run(server: Any, whole: Path, tmp_path: Path, program: Program) -> None:
    from huggingface_hub import ModelCard

    run = run_folder(tmp_path / "run")
    shutil.copy(run / "samples" / "step-2-0.mp4", tmp_path / "mine.mp4")
    arguments = "--run", run, "--picture", tmp_path / "mine.mp4", "--license", "apache-2.0", "--private"
    status, _, err = program("train/push.py", whole, "someone/robots", *arguments)
    assert status == 0, err
    assert server.private == {"someone/robots"}
    files = server.newest("someone/robots")
    head, body = head_of(files["README.md"])
    assert head["pipeline_tag"] == "text-to-video"
    assert body.startswith("# robots\n\nA small model | of robots.\n")
    for words in (
        "held-out loss, last | 3.5000 nats, 5.900 bits",
        "`some/where`",
        "“a robot”",
        "vpoet.load",
        bundle.load(whole).hash,
    ):
        assert words in body
    shown = set(re.findall(r"\((pictures/[^)]+)\)", body))
    assert shown == {name for name in files if name.startswith("pictures/")}
    assert sorted(Path(name).name[3:] for name in shown) == ["learning.png", "mine.gif", "step-2-0.gif"]
    (figure,) = ModelCard(files["README.md"].decode()).data.eval_results
    assert (figure.metric_type, figure.metric_value) == ("bits_per_token", 5.9)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "it was changed or damaged"),
        (lambda data: data[: len(data) // 2], "not readable"),
    ],
)
def test_weights_that_are_not_the_bundles_own_are_refused(
    spoil: Callable[[bytes], bytes], said: str, server: Any, whole: Path, tmp_path: Path, program: Program
) -> None:
    """The hub's hash is right: whoever put it there had it so."""
    server.commit(
        "someone/robots", contents(whole) | {"model.safetensors": spoil(contents(whole)["model.safetensors"])}
    )
    status, _, err = program("train/pull.py", "someone/robots", "--out", tmp_path / "back")
    assert (status, said in err) == (2, True), err
    assert not (tmp_path / "back").exists()
    shutil.rmtree(whole)
    (tmp_path / "made" / "spoilt").mkdir()
    for name, data in server.newest("someone/robots").items():
        (tmp_path / "made" / "spoilt" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "made" / "spoilt" / name).write_bytes(data)
    status, _, err = program("train/push.py", tmp_path / "made" / "spoilt", "someone/else")
    assert (status, said in err) == (2, True), err
    assert "someone/else" not in server.files


def test_what_can_not_be_pushed_or_pulled_is_told_before(
    server: Any, whole: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    picture = tmp_path / "mine" / "thesis.txt"
    for words, said in (
        (("push", whole, "robots"), "no repository of a hub"),
        (("push", whole, "someone/robots@v1"), "leave out @v1"),
        (("push", tmp_path / "mine", "someone/robots"), "no config.yaml"),
        (("push", whole, "someone/robots", "--run", whole), "no training run"),
        (("push", whole, "someone/robots", "--picture", picture), "no picture that a card can show"),
        (("push", whole, "someone/robots", "--license", "Mine: all"), "the hub's short name"),
        (("pull", "someone/robots", "--out", tmp_path / "mine"), "holds thesis.txt"),
        (("pull", "someone/robots", "--out", tmp_path / "new"), "no such repository"),
    ):
        status, _, err = program(f"train/{words[0]}.py", *words[1:])
        assert (status, said in err) == (2, True), (words, err)
    assert not server.files
    assert not (tmp_path / "new").exists()
