"""`vpoet evaluate-controls`: a row a sample, a table at the end, and going on behind what is there."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.evaluate import controls
from vpoet.evaluate.controls import STRENGTHS, coarse, conditions, mean_iou, moved
from vpoet.worlds.platformer.layers import LAYERS, labels
from vpoet.worlds.platformer.sight import Witness
from vpoet.worlds.platformer.world import Platformer

Program = Callable[..., tuple[int, str, str]]


def test_samples_are_judged_and_not_judged_again(
    tmp_path: Path, make_bundle: Callable[..., Path], program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"frames": 5, "height": 32, "width": 32, "length": 400}
    bundle = make_bundle(tmp_path / "model", depth=1, controls="edges", **sizes)
    out = tmp_path / "judged"
    asked = ("--model", bundle, "--out", out, "--json")
    status, printed, err = program("sample/evaluate_controls.py", *asked, "--count", 1)
    assert status == 0, err
    rows = (out / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 1 + len(conditions(["edges"]))
    with (out / "rows.jsonl").open("a") as lines:
        lines.write('{"clip": 1, "cut sh')
    status, printed, err = program("sample/evaluate_controls.py", *asked, "--count", 1)
    assert status == 0, err
    assert (out / "rows.jsonl").read_text().splitlines() == rows
    results = json.loads(printed)["results"]
    assert set(results) == {"through the tokenizer", *map(str, conditions(["edges"]))}
    assert {"moved", "miou_of_ceiling", "f1_of_ceiling", "told"} <= results["edges, 0.5"].keys()
    assert results["through the tokenizer"]["f1"] > 0
    assert (out / "sheet.png").stat().st_size > 1000
    assert json.loads((out / "results.json").read_text())["model"] in (out / "results.md").read_text()

    # a tokenizer that keeps no edges leaves nothing to have a share of
    monkeypatch.setattr(controls, "judged", lambda *_: {"moved": 0.0, "miou": 1.0, "f1": 0.0, "told": 1.0})
    status, _, err = program("sample/evaluate_controls.py", "--model", bundle, "--out", tmp_path / "no", "--count", 1)
    assert (status, "| edges, 0.5 | 0 | 1 | 1 | 0 | - | 1 |" in err) == (0, True), err

    bare = make_bundle(tmp_path / "bare", depth=1, **sizes)
    status, _, err = program("sample/evaluate_controls.py", "--model", bare, "--out", tmp_path / "none")
    assert status == 2
    assert "reads no controls" in err
    other = make_bundle(tmp_path / "other", depth=2, controls="edges", **sizes)
    status, _, err = program("sample/evaluate_controls.py", "--model", other, "--out", out)
    assert status == 2
    assert "rows.jsonl: made with model" in err


def test_what_the_judge_sees_of_a_clip_agrees_with_its_layers_and_less_so_elsewhere() -> None:
    world, witness = Platformer(frames=5), Witness()
    classes = np.array([{"ground": 1, "water": 1, "creature": 2, "character": 3}.get(x, 0) for x in LAYERS])
    wanted = classes[labels(world.control(2, "segmentation"))]
    sight = witness.look(world.clip(2)[0])
    found = coarse(sight, (64, 64))
    assert mean_iou(wanted, wanted) == 1
    assert mean_iou(wanted, found) > 0.8
    assert mean_iou(wanted, np.roll(found, 16, axis=2)) < mean_iou(wanted, found) - 0.2
    assert moved(sight, sight) == 0
    assert moved(sight, witness.look(np.roll(world.clip(2)[0], 4, axis=2))) == pytest.approx(4, abs=1)


def test_every_kind_is_tried_at_each_strength_and_against_the_prompt() -> None:
    found = [str(each) for each in conditions(["edges", "depth"])]
    assert found[0] == "none"
    assert [name for name in found if name.startswith("depth, ")][:-1] == [f"depth, {s:g}" for s in STRENGTHS]
    assert found[-2:] == ["edges, another prompt", "depth, another prompt"]
    assert "all, 1" in found
