"""What training reads and does: recipes, shards and checkpoints that earlier versions wrote, and a few steps.

The programs run as their users run them, on the recipes kept here.
"""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet import config
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.recipe import PretrainConfig

Golden = Callable[..., None]
Program = Callable[..., tuple[int, str, str]]
DATA = Path(__file__).parent / "data"
RECIPES = sorted(path.relative_to(DATA / "recipes") for path in DATA.glob("recipes/*/*.yaml"))
OPTIMIZERS = {"adamw": ([], 1e-5), "muon": (["optimizer.matrix_lr=1e-2"], 1e-4)}
"""Overrides, and how far curves may be apart on different CPUs: Muon iterates in bfloat16."""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """The recipes name their files from there."""
    monkeypatch.chdir(root)


def curve(run: Path) -> list[dict[str, Any]]:
    """What a run logged, but for its speed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in row if key != "time" and not key.startswith("speed/")} for row in rows]


def passed(ran: tuple[int, str, str]) -> None:
    status, _, err = ran
    assert status == 0, err


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_recipes_that_shipped_load(golden: Golden, path: Path) -> None:
    schema = {"train": PretrainConfig, "tokenizers": VideoTokenizerRecipe}[path.parts[0]]
    golden(f"recipe {path}", config.to_dict(config.load(DATA / "recipes" / path, schema)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_in_one_process(program: Program, golden: Golden, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    overrides, tolerance = OPTIMIZERS[name]
    passed(program("train/pretrain.py", DATA / "pretrain.yaml", f"run={run}", "steps=3", *overrides))
    golden(f"three steps of {name}", curve(run), "one process", tolerance)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="DeepSpeed compiles an op on CPUs: no C++ compiler here"
)
def test_three_steps_in_two_processes(together: Callable[..., list[str]], golden: Golden, tmp_path: Path) -> None:
    run = tmp_path / "run"
    together("train/pretrain.py", 2, DATA / "pretrain.yaml", f"run={run}", "steps=3")
    golden("three steps of adamw", curve(run), "two processes")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_kept_checkpoint_goes_on(program: Program, golden: Golden, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    overrides, tolerance = OPTIMIZERS[name]
    shutil.copytree(DATA / name, run)
    passed(program("train/pretrain.py", DATA / "pretrain.yaml", f"run={run}", *overrides, "--resume"))
    golden(f"steps 4 to 6 of {name}", curve(run), tolerance=tolerance)


def test_a_kept_checkpoint_of_two_processes_goes_on_in_one(program: Program, golden: Golden, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(DATA / "slices", run)
    passed(program("train/pretrain.py", DATA / "pretrain.yaml", f"run={run}", "--resume"))
    golden("steps 4 to 6 of adamw", curve(run), "from slices")


def test_a_kept_run_is_exported(program: Program, golden: Golden, tmp_path: Path) -> None:
    passed(program("train/export.py", DATA / "adamw", "--out", tmp_path / "bundle"))
    bundle = vpoet.load(tmp_path / "bundle", device="cpu").bundle
    golden("exported bundle", {"hash": bundle.hash, "config": config.to_dict(bundle.config)})


def test_a_video_tokenizer_is_trained(program: Program, golden: Golden, tmp_path: Path) -> None:
    run = tmp_path / "run"
    passed(program("tokenizers/train_video.py", DATA / "codec.yaml", f"run={run}"))
    golden("four steps of a video tokenizer", curve(run))


def test_a_kept_checkpoint_of_a_video_tokenizer_goes_on(program: Program, golden: Golden, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(DATA / "codec", run)
    passed(program("tokenizers/train_video.py", DATA / "codec.yaml", f"run={run}"))
    golden("steps 3 and 4 of a video tokenizer", curve(run))


def codes(folder: Path) -> dict[str, list[int]]:
    """Every array of a folder of token shards, by file."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith((".codes.npy", ".keyframes.npy")):
                    file = shard.extractfile(member)
                    assert file is not None
                    found[member.name] = np.load(io.BytesIO(file.read()), allow_pickle=False).tolist()
    return found


def test_kept_raw_shards_are_encoded_as_they_were(program: Program, tmp_path: Path) -> None:
    kept = codes(DATA / "tokens")
    tokenizer = config.given(DATA / "pretrain.yaml")["video"]
    arguments = [DATA / "raw", "--tokenizer", tokenizer, "--keyframes", "--out", tmp_path / "tokens"]
    passed(program("tokenizers/encode_shards.py", *arguments))
    assert len(kept) == 8
    assert codes(tmp_path / "tokens") == kept
