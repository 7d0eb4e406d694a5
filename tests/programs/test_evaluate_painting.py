"""`vpoet evaluate-painting`: training's contexts are sampling's, and what a hidden code costs with them and without."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.painting import draw_mask, scaled, shown_codes
from vpoet.evaluate.painting import asked, costs, filled, later, saved
from vpoet.generate.model import Model, load
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.tasks import PAINTED, TABLE

Program = Callable[..., tuple[int, str, str]]
SIZES = {"frames": 5, "height": 32, "width": 32, "length": 400}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    return load(make_bundle(tmp_path_factory.mktemp("painter") / "model", depth=1, **SIZES), "cpu")


@pytest.mark.parametrize("task", PAINTED)
@pytest.mark.parametrize("seed", range(4))
def test_sampling_makes_the_very_document_that_is_trained(model: Model, task: str, seed: int) -> None:
    frames = np.random.default_rng(seed).integers(0, 256, (5, 32, 32, 3), np.uint8)
    coder = model.bundle.video
    whole = coder.encode(frames)
    mask = draw_mask(task, whole.shape, coder.stride, np.random.default_rng(seed))
    shown, hidden = shown_codes(*scaled(frames, mask, 32, 32), coder)
    sample = Sample(np.array(model.bundle.text.encode("a robot"), np.int32), whole, 8)
    trained = TABLE[task].document(sample, Given(hidden=hidden, shown=shown))
    assert filled(model.document(asked(task, frames, mask, "a robot", 8)), whole).equals(trained)


def test_bits_are_those_of_the_hidden_cells_alone(model: Model) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    found = dict(costs(model, frames, "a robot", (0, 1)))
    assert list(found) == list(PAINTED)
    whole = model.score(Video(frames, 8), "a robot")
    sample = Sample(np.array(model.bundle.text.encode("a robot"), np.int32), model.bundle.video.encode(frames), 8)
    (scored,) = model.likelihoods([TABLE["t2v"].document(sample)])
    for task, row in found.items():
        random = np.random.default_rng([0, 1, PAINTED.index(task)])
        mask = draw_mask(task, scored.cells.shape, model.bundle.video.stride, random)
        _, hidden = shown_codes(*scaled(frames, mask, 32, 32), model.bundle.video)
        by_time = [float(cells[there].sum() / np.log(2)) for cells, there in zip(scored.cells, hidden, strict=True)]
        assert row["first"]["t2v"] == pytest.approx(by_time[0], rel=1e-5)
        assert later(row)["t2v"] == pytest.approx(sum(by_time[1:]), rel=1e-5)
        assert row["training"] == pytest.approx(row["sampling"], rel=1e-6)
        assert 0 < row["cells"] < whole.tokens
        assert 0 < row["t2v"] < whole.total.bits
        assert 0 < row["first"]["cells"] < row["cells"]
    assert dict(costs(model, frames, "a robot", (0, 1))) == found
    assert dict(costs(model, frames, "a robot", (0, 2))) != found


def test_what_is_saved_is_a_share_of_text_to_videos_bits() -> None:
    row = {"cells": 4, "training": 6.0, "sampling": 6.0, "t2v": 8.0}
    other = {"cells": 6, "training": 3.0, "sampling": 2.0, "t2v": 2.0}
    found = saved([row, other])
    assert found == pytest.approx(
        {"training": 0.9, "sampling": 0.8, "t2v": 1.0, "saved": 0.2, "apart": 0.125, "cells": 10}
    )


def test_a_table_is_written_and_clips_are_not_scored_again(
    tmp_path: Path, make_bundle: Callable[..., Path], program: Program
) -> None:
    world, size = tmp_path / "raw", ("--frames", 5, "--height", 32, "--width", 32)
    status, _, err = program("train/ingest.py", "world:platformer", "--clips", 2, *size, "--out", world)
    assert status == 0, err
    bundle, out = make_bundle(tmp_path / "model", depth=1, **SIZES), tmp_path / "painted"
    asked_for = ("--model", bundle, "--clips", world, "--count", 2, "--out", out, "--json")
    status, printed, err = program("sample/evaluate_painting.py", *asked_for)
    assert status == 0, err
    results = json.loads(printed)["results"]
    assert set(results) == {*PAINTED, "both", "both, the first cell of time", "both, the later ones"}
    *tasks, both, first, rest = results.values()
    assert both["cells"] == sum(each["cells"] for each in tasks) == first["cells"] + rest["cells"]
    lines = (out / "rows.jsonl").read_text().splitlines()
    assert len(lines) == 2 * len(PAINTED)
    older = {name: value for name, value in json.loads(lines[0]).items() if name != "first"}  # of an earlier revision
    (out / "rows.jsonl").write_text("\n".join([json.dumps(older), *lines[1:-1]]) + '\n{"clip": "cut sh')
    status, printed, err = program("sample/evaluate_painting.py", *asked_for)
    assert status == 0, err
    assert json.loads(printed)["results"] == results
    assert "| outpainting |" in (out / "results.md").read_text()

    # other clips have the same keys, and fewer of them are no more than they are
    other = tmp_path / "other"
    assert program("train/ingest.py", "world:platformer", "--clips", 2, "--seed", 1, *size, "--out", other)[0] == 0
    found = {}
    for folder, to in ((other, out), (other, tmp_path / "anew")):
        asked_for = ("--model", bundle, "--clips", folder, "--count", 1, "--out", to, "--json")
        status, printed, err = program("sample/evaluate_painting.py", *asked_for)
        assert status == 0, err
        found[to] = json.loads(printed)["results"]
    assert found[out] == found[tmp_path / "anew"] != results

    blind = make_bundle(tmp_path / "blind", depth=1, tasks=["t2v"], **SIZES)
    status, _, err = program(
        "sample/evaluate_painting.py", "--model", blind, "--clips", world, "--out", tmp_path / "no"
    )
    assert (status, "not trained for inpainting, outpainting" in err) == (2, True)
