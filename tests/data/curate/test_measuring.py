"""Measuring: a line a clip, once; resumed, added to, and the same bytes from any number of workers."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.arrays import Frames
from vpoet.data.curate.measuring import FOLDER, OWN, measure, recorded
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.errors import DataError
from vpoet.media.video import Video


class Counting:
    """A judge that tells the mean grey and how often it was asked."""

    def __init__(self, identity: str = "one") -> None:
        self.identity, self.asked = identity, 0

    def __call__(self, frames: Frames, captions: Sequence[str]) -> Mapping[str, Any]:
        self.asked += 1
        return {"grey": float(frames.mean()), "words": float(len(captions)), "embedding": np.ones(3, np.float32)}


def raw(folder: Path, clips: int = 4, per_shard: int = 2, damaged: int = -1) -> Path:
    random = np.random.default_rng(0)
    with ShardWriter(folder, kind="raw", samples_per_shard=per_shard) as writer:
        for i in range(clips):
            frames = random.integers(0, 256, (5, 16, 24, 3), np.uint8)
            payload = b"no video" if i == damaged else Video(frames, 8).encode(".mp4")
            about = {"caption": "a", "fps": 8, "frames": 5, "height": 16, "width": 24, "source": f"{i}"}
            writer.write(f"clip-{i}", {"mp4": payload, "json": about})
    writer.manifest().save(folder)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()}


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / FOLDER).glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_a_line_a_clip_and_the_same_bytes_from_two_workers(tmp_path: Path) -> None:
    one, two = raw(tmp_path / "one"), raw(tmp_path / "two")
    told = [0, 0]

    def progress(shards: int, clips: int) -> None:
        told[0] += shards
        told[1] += clips

    assert measure(one, dict, 1, progress).total == 0
    assert told == [2, 4]
    measure(two, dict, 2)
    assert tree(one) == tree(two)
    found = lines(one)
    assert [(line["key"], line["number"]) for line in found] == [(f"clip-{i}", i % 2) for i in range(4)]
    assert {"motion", "camera_motion", "object_motion", "sharpness", "brightness", "contrast",
            "letterbox", "cuts", "phash"} <= found[0].keys()  # fmt: skip
    assert len(found[0]["phash"]) == 4
    shard = recorded(one, Manifest.load(one).shards[0])
    assert shard is not None
    assert shard.arrays["thumbnails"].shape == (2, 24, 24, 24)
    assert shard.groups == OWN


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    folder, judge = raw(tmp_path), Counting()
    measure(folder, dict, 1)
    plain = lines(folder)
    measure(folder, lambda: {"grey": judge}, 1)
    assert judge.asked == 4
    assert [{name: line[name] for name in plain[0]} for line in lines(folder)] == plain
    assert all(line["words"] == 1 for line in lines(folder))
    before = tree(folder)
    measure(folder, lambda: {"grey": judge}, 1)
    measure(folder, dict, 1)  # asks for less, and what is known stays
    assert (judge.asked, tree(folder)) == (4, before)
    other = Counting("two")
    measure(folder, lambda: {"grey": other}, 1)
    assert other.asked == 4
    shard = recorded(folder, Manifest.load(folder).shards[0])
    assert shard is not None
    assert shard.groups == {**OWN, "grey": "two"}
    assert shard.arrays["embedding"].shape == (2, 3)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "noise", "pipe"])
def test_a_damaged_shard_of_measures_is_made_again(tmp_path: Path, suffix: str, damage: str) -> None:
    folder, judge = raw(tmp_path), Counting()
    measure(folder, lambda: {"grey": judge}, 1)
    whole = tree(folder)
    path = next(iter(sorted((folder / FOLDER).glob(f"*-00000{suffix}"))))
    if damage in ("gone", "pipe"):
        path.unlink()
        if damage == "pipe":
            os.mkfifo(path)
    else:
        path.write_bytes(path.read_bytes()[:20] if damage == "cut" else b"\xff" * 50)
    measure(folder, lambda: {"grey": judge}, 1)
    assert judge.asked == 6
    assert tree(folder) == whole


def test_a_shard_that_is_another_is_measured_again(tmp_path: Path) -> None:
    folder, judge = raw(tmp_path), Counting()
    measure(folder, lambda: {"grey": judge}, 1)
    raw(tmp_path, clips=3)
    measure(folder, lambda: {"grey": judge}, 1)
    assert judge.asked == 5
    assert [line["key"] for line in lines(folder)] == ["clip-0", "clip-1", "clip-2"]


def test_what_cannot_be_decoded_is_left_out_and_told_every_time(tmp_path: Path) -> None:
    folder = raw(tmp_path, damaged=1)
    for _ in range(2):
        problems = measure(folder, dict, 1)
        assert problems.counts == {"cannot be decoded": 1}
    assert [line["number"] for line in lines(folder)] == [0, 0, 1]
    with pytest.raises(DataError, match="not one clip could be measured"):
        measure(raw(tmp_path / "all", clips=1, damaged=0), dict, 1)
    Manifest("tokens", [], "x").save(tmp_path / "tokens")
    with pytest.raises(DataError, match="raw ones are measured"):
        measure(tmp_path / "tokens", dict, 1)
