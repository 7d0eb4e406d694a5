"""`vpoet chain` as a user runs it: from clips to a page, and through kills on the way."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.evaluate.chain import sources, stages
from vpoet.evaluate.chain.machine import settings_for
from vpoet.evaluate.chain.plan import Asked, Machine, Planner
from vpoet.evaluate.chain.trial import Rates
from vpoet.media.video import Video

SMALL = {
    "train-video": (
        "model.widths=[8,8,8]", "model.encoder_blocks=[0,0,0]", "model.decoder_blocks=[0,0,0]", "begin=''", "batch=2",
        "model.quantiser.codebook=256", "loss.evenness=0", "steps=4", "save_every=1", "dtype=fp32",
    ),
    "pretrain": (
        "model.width=32", "model.depth=1", "model.heads=2", "model.kv_heads=2", "model.hidden=48", "batch=1",
        "data.lookahead=4", "steps=4", "save_every=1", "evaluate_packs=1",
    ),
}  # fmt: skip
"""What makes the networks of a test small."""
RATES = Rates(0.01, {"fp32": 60.0}, {"fp32": 60.0}, (5, 8, 8), (4, 4, 4, 4), True)
MACHINE = Machine(cores=1, processes=1, cuda=False, start=1.0, read=0.01, measured=(1e9, 0.01), rates=RATES)
KILLED = ("ingest", "train-video", "pretrain", "sample")
"""One stage that writes shards, both that train, and the last but one."""
PATIENCE = 1200
"""Seconds, on a machine that has much else to do."""


def clips(folder: Path, count: int = 12) -> Path:
    folder.mkdir(parents=True)
    names = ("a red ball rolls", "a blue box falls", "a green cone turns")
    ground = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)[..., None] + np.zeros(3, np.uint8)
    for number in range(count):
        frames = np.stack([ground] * 20)
        for frame in range(20):
            at = frame + 2 * number
            frames[frame, 8 + number : 24 + number, at : at + 16, number % 3] = 255 - 4 * number
        Video(frames, 8).write(folder / f"{names[number % 3].replace(' ', '_')}-{number:02}.mp4")
    return folder


def planned(folder: Path) -> list[str]:
    """Make clips and a plan of a chain with small networks, as if it had been measured; the command's arguments."""
    clips(folder / "clips")
    asked = Asked(["clips"], 20.0, "", None, [], "contrast > 0.02", 0.92, None)
    found = sources.find(["clips"], None)
    planner = Planner(asked, found, 12, settings_for(asked, own=True), Path("mine"), MACHINE)
    plan = planner.plan()
    small = [replace(stage, command=[*stage.command, *SMALL.get(stage.name, ())], most=4) for stage in plan.stages]
    planner.sources.write(Path("mine"))
    replace(plan, stages=small).save(Path("mine"))
    return ["clips", "--out", "mine", "--hours", "20", "--where", "contrast > 0.02"]


def begun(folder: Path, name: str, said: str) -> bool:
    """Whether a stage has begun, and a training has something to go on from."""
    run = folder / "mine" / {"train-video": "video", "pretrain": "pretrain"}.get(name, "")
    trained = name not in SMALL or any(run.glob("checkpoints/*"))
    return f"== {name}: " in said and trained


@pytest.mark.slow
def test_kills_on_the_way_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launched: Callable[..., Any]
) -> None:
    results = []
    for kills in (False, True):
        folder = tmp_path / ("killed" if kills else "whole")
        folder.mkdir()
        monkeypatch.chdir(folder)
        arguments = planned(folder)
        names = [stage["name"] for stage in json.loads((folder / "mine" / stages.PLAN).read_text())["stages"]]
        assert set(KILLED) <= set(names)
        for name in KILLED if kills else ():
            chain = launched("train/chain.py", *arguments)
            until = time.monotonic() + PATIENCE
            while not begun(folder, name, chain.err):
                assert time.monotonic() < until, chain.err
                assert "rror: " not in chain.err, chain.err
                time.sleep(0.05)
            chain.kill()
            chain.wait()
        chain = launched("train/chain.py", *arguments, "--json")
        assert chain.wait(PATIENCE) == 0, chain.err
        told = json.loads(chain.out.splitlines()[-1])
        assert list(told["stages"]) == names
        assert Path(told["page"]).read_text().count("<video") >= 4
        results.append({path.name: path.read_bytes() for path in Path(told["bundle"]).rglob("*") if path.is_file()})
        results[-1] |= {path.name: path.read_bytes() for path in Path(told["samples"]).glob("sample-*.mp4")}
    whole, killed = results
    assert {"model.safetensors", "text.model", "sample-0.mp4", "sample-3.mp4"} <= whole.keys()
    assert [name for name in whole if whole[name] != killed.get(name)] == []
