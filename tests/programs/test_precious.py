"""What a command is given, and what others made, stays: a result takes the place of nothing but its like."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.shards import ShardWriter
from vpoet.media.video import Video
from vpoet.tokenizer.text import TextTokenizer

PROGRAMS = {
    "sample": "sample/generate.py", "reconstruct": "sample/reconstruct.py", "score": "sample/score.py",
    "report": "train/report.py", "train-text": "tokenizers/train_text.py", "export": "train/export.py",
    "finetune": "train/finetune.py",
}  # fmt: skip

SAMPLE = ("sample", "--model", "bundle", "--prompt", "a", "--frames", "5")
CASES = {
    "a clip over the video it goes on from": (*SAMPLE[:-1], "9", "--video", "clip.mp4", "--out", "clip.mp4"),
    "a clip over its first frame": (*SAMPLE, "--image", "still.png", "--out", "still.png"),
    "one of several clips over their image": (*SAMPLE, "--image", "x-1.png", "--count", "2", "--out", "x.png"),
    "a link to its first frame": (*SAMPLE, "--image", "link.png", "--out", "still.png"),
    "a sheet over the clip it shows": (*SAMPLE, "--out", "new.png", "--sheet", "./new.png"),
    "a sheet over an image": (*SAMPLE, "--image", "still.png", "--out", "new.mp4", "--sheet", "still.png"),
    "both over the video": ("reconstruct", "clip.mp4", "--tokenizer", "bundle", "--out", "clip.mp4"),
    "a plot over the picture that is scored": ("score", "still.png", "--model", "bundle", "--plot", "still.png"),
    "a report over the run's numbers": ("report", "run", "--out", "run/metrics.jsonl"),
    "a report over the run's recipe": ("report", "run", "--out", "run/resolved.yaml"),
    "a tokenizer over a manifest": ("train-text", "raw", "--size", "300", "--out", "raw/manifest.json"),
    "a tokenizer over a clip": ("train-text", "raw", "--size", "300", "--out", "clip.mp4"),
    "a bundle over a video tokenizer": ("export", "run", "--out", "bundle/video_tokenizer"),
    "a bundle over a run": ("export", "run", "--out", "run"),
    "a bundle over a project with a config.yaml": ("export", "run", "--out", "project"),
    "a bundle over one with photos in it": ("finetune", "bundle", "raw", "--out", "holiday"),
    "an adapter over weights": ("export", "run", "--out", "bundle/model.safetensors"),
    "an adapter over weights, by finetune": (
        *("finetune", "bundle", "raw", "--lora", "2", "--out", "bundle/model.safetensors"),
    ),
}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("precious")
    make_bundle(folder, depth=1, frames=5, height=16, width=16, length=128)
    clip = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8), 8)
    clip.write(folder / "clip.mp4")
    for name in ("still.png", "x-1.png"):
        Video(clip.frames[:1], 0).write(folder / name)
    (folder / "link.png").symlink_to("still.png")
    with ShardWriter(folder / "raw", kind="raw") as writer:
        writer.write("0", {"mp4": clip.encode(".mp4"), "json": {"caption": "a robot"}})
    writer.manifest().save(folder / "raw")
    for name in ("run/metrics.jsonl", "run/resolved.yaml", "project/config.yaml", "project/thesis.tex"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    shutil.copytree(folder / "bundle", folder / "holiday")
    (folder / "holiday" / "beach.jpg").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("case", CASES)
def test_nothing_precious_is_written_over(
    things: Path, case: str, program: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(things)
    before = {path: path.read_bytes() for path in things.rglob("*") if path.is_file()}
    command, *words = CASES[case]
    status, out, err = program(PROGRAMS[command], *words)
    assert status == 2, out + err
    assert "; choose another name" in err or "cannot write" in err
    for path in things.glob("x-0*"):  # the others of several are made
        path.unlink()
    assert {path: path.read_bytes() for path in things.rglob("*") if path.is_file()} == before


def test_like_replaces_like(things: Path, tmp_path: Path, program: Callable[..., tuple[int, str, str]]) -> None:
    model = tmp_path / "text.model"
    for before in (b"", b"again"):
        model.write_bytes(model.read_bytes() if before else b"")
        status, _, err = program(PROGRAMS["train-text"], things / "raw", "--size", 300, "--out", model)
        assert status == 0, err
    assert TextTokenizer.load(model).size <= 300


@pytest.mark.parametrize("name", ["a:b.mp4", "http:x.mp4", "12:30/x.mp4", "http:/127.0.0.1:9/x.mp4", "pipe:1.mp4"])
def test_the_name_of_an_output_is_no_address(
    things: Path, tmp_path: Path, name: str, program: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for words in (
        ("sample", "--model", things / "bundle", "--prompt", "a", "--out", name),
        ("reconstruct", things / "clip.mp4", "--tokenizer", things / "bundle", "--out", name),
    ):
        status, out, err = program(PROGRAMS[str(words[0])], *words[1:])
        assert status == 0, out + err
        assert Video.read(tmp_path / name).frames.shape[0] == 5
