"""Super-resolution from raw shards to a clip of twice the size, at toy size."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet import bundle, config
from vpoet.media.video import Video
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.tracking import read_numbers

Program = Callable[..., tuple[int, str, str]]


def test_a_bundle_learns_tiles_and_makes_a_clip_finer(
    make_bundle: Callable[..., Path], tmp_path: Path, program: Program
) -> None:
    base = make_bundle(tmp_path / "base", depth=1, frames=5, height=16, width=16, length=96, tasks=["t2v", "t2i"])
    random = np.random.default_rng(0)
    for i in range(3):
        frames = random.integers(0, 256, (5, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        Video(frames, 8).write(tmp_path / f"{i}.mp4", lossless=True)
    (tmp_path / "list.csv").write_text("path,caption\n" + "".join(f"{i}.mp4,a robot {i}\n" for i in range(3)))
    raw, tokens, out = tmp_path / "raw", tmp_path / "tokens", tmp_path / "finer"

    def done(*command: object) -> str:
        status, said, told = program(*command)
        assert status == 0, told
        return said

    sizes = ("--frames", 5, "--height", 32, "--width", 32, "--lossless")
    done("train/ingest.py", tmp_path / "list.csv", *sizes, "--out", raw)
    video = base / "video_tokenizer"
    told = done(
        "tokenizers/encode_shards.py", raw, "--tokenizer", video, "--tiles", 4, "--tile", 16, "--out", tokens, "--json"
    )
    assert json.loads(told)["samples"] == 12

    about = bundle.load(base).config
    recipe = {
        "run": str(tmp_path / "run"), "begin": str(base), "text": str(base / "text.model"), "video": str(video),
        "model": config.to_dict(about.model), "batch": 1, "steps": 30, "optimizer": {"lr": 1e-2, "warmup": 2},
        "data": {"sources": [{"path": str(tokens)}], "tasks": {"sr": 1.0, "t2v": 1.0}, "length": 96},
        "samples": {"frames": 5, "height": 16, "width": 16},
    }  # fmt: skip
    config.save(config.from_dict(recipe, PretrainConfig, "the test"), tmp_path / "recipe.yaml")
    done("train/pretrain.py", tmp_path / "recipe.yaml")
    losses = [row["train/loss"] for row in read_numbers(tmp_path / "run/metrics.jsonl")]
    assert losses[-1] < losses[0] - 0.5
    done("train/export.py", tmp_path / "run", "--out", out)

    asked = ("--prompt", "a robot 1", "--video", tmp_path / "1.mp4", "--upscale", "--seed", 3)
    done("sample/generate.py", "--model", out, *asked, "--out", tmp_path / "large.mp4")
    made = Video.read(tmp_path / "large.mp4")
    assert (made.frames.shape, made.fps) == ((5, 64, 64, 3), 8)
    assert json.loads((tmp_path / "large.mp4.json").read_text())["upscale"] is True
    done("sample/generate.py", "--model", out, *asked, "--out", tmp_path / "again.mp4")
    assert np.array_equal(Video.read(tmp_path / "again.mp4").frames, made.frames)

    status, _, told = program("sample/generate.py", "--model", base, *asked, "--out", tmp_path / "no.mp4")
    assert (status, "this model was not trained for sr" in told) == (2, True), told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--tiles", 1, "--keyframes"), "--tiles makes samples of super-resolution alone"),
        (("--tiles", 1, "--tile", 18), "--tile 18: a multiple of 4"),
        (("--tiles", 1, "--tile", 20), "not one sample could be encoded"),
        (("--tiles", 1, "--tile", 64), "16x16 pixels have no tile of 64x64"),
    ],
)
def test_tiles_that_cannot_be_are_told(
    make_bundle: Callable[..., Path], tmp_path: Path, program: Program, flags: tuple[object, ...], told: str
) -> None:
    base = make_bundle(tmp_path / "base", depth=1, frames=5, height=16, width=16)
    Video(np.zeros((5, 16, 16, 3), np.uint8), 8).write(tmp_path / "0.mp4")
    sizes = ("--frames", 5, "--height", 16, "--width", 16)
    assert program("train/ingest.py", tmp_path / "0.mp4", *sizes, "--out", tmp_path / "raw")[0] == 0
    how = (tmp_path / "raw", "--tokenizer", base / "video_tokenizer", "--out", tmp_path / "tokens")
    status, _, said = program("tokenizers/encode_shards.py", *how, *flags)
    assert (status, told in said) == (2, True), said
