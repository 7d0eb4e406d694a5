"""`vpoet ladder` as a user runs it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

Program = Callable[..., tuple[int, str, str]]


def test_clips_are_damaged_and_a_second_run_reads_all_features(tmp_path: Path, program: Program) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    world = Platformer(32, 32, frames=4)
    for seed in range(17):
        Video(world.clip(seed)[0], 8.0).write(tmp_path / "clips" / f"{seed}.mp4", lossless=True)
    command = ("sample/ladder.py", tmp_path / "clips", "--protocol", "vpoet-16,frames=3,size=32", "--bootstrap", 10)
    results = []
    for _ in range(2):
        status, out, err = program(*command, "--device", "cpu", "--json", "--out", tmp_path / "out")
        assert status == 0, err
        results.append(json.loads(out))
    first, second = results
    assert (first["computed"], second["computed"]) == (8 * 21 + 8, 0)
    assert first["values"] == second["values"]
    assert first["clips"] == first["protocol"]["count"] == 8
    table = (tmp_path / "out" / "ladder.md").read_text()
    assert first["protocol"]["id"] in table
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 2 + len(first["values"])
    for name in ("ladder.png", "rungs.png"):
        assert Image.open(tmp_path / "out" / name).width > 100
    status, _, err = program(*command, "--protocol", "vpoet-16,count=9", "--out", tmp_path / "out")
    assert (status, "8 clips, and the protocol takes 9" in err) == (2, True), err
