"""Drift: rollouts are cut right, and every measure says what it is meant to say, of clips whose truth is known."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.errors import ShapeError
from vpoet.evaluate.adherence import Prompt
from vpoet.evaluate.drift import UNSEEN, Segments, curve, lasting, measure, panels, table
from vpoet.evaluate.intervals import wilson
from vpoet.evaluate.plots import drift_figure
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

SHARES = [f"{what}_{name}" for what in ("prompt", "start") for name in Platformer.kept] + ["prompt_intact"]
MEASURES = {"bits", *SHARES, "contrast", "sharpness", "motion"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    return vpoet.load(make_bundle(tmp_path_factory.mktemp("drift"), depth=1, length=400, frames=17), device="cpu")


@pytest.fixture(scope="module")
def asked() -> list[Prompt]:
    return lasting(Platformer(), 3)


def test_segments_share_a_frame_and_hold_no_more_than_themselves() -> None:
    whole = np.arange(30, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    cutter = Segments(5)
    found = []
    for piece in np.split(whole, [1, 2, 13, 13, 21]):
        found += list(cutter.add(piece))
        assert all(frame.base is None for frame in cutter._held)
        assert len(cutter._held) < 5
    assert [first for first, _ in found] == list(range(0, 25, 4))
    for first, segment in found:
        assert np.array_equal(segment, whole[first : first + 5])


def test_prompts_are_of_what_can_go_on_and_name_all_that_is_looked_for(asked: list[Prompt]) -> None:
    for prompt in asked:
        assert int(prompt.key) >= UNSEEN
        assert set(prompt.stated) == {"who", "action", *Platformer.kept, "creature", "faults"}
        assert prompt.stated["action"] == "jump"
        assert prompt.stated["who"] in prompt.text
        assert prompt.real.shape == (17, 64, 64, 3)
    assert len({prompt.key for prompt in asked}) == 3
    later = lasting(Platformer(), 2, seed=int(asked[1].key) - UNSEEN)
    assert [prompt.key for prompt in later] == [prompt.key for prompt in asked[1:]]


def test_what_changes_is_what_is_measured(model: Model, asked: list[Prompt]) -> None:
    world, prompt = Platformer(), asked[0]
    real = measure(model, world, prompt, prompt.real)
    assert set(real) == {*MEASURES, "seen"}
    assert {name for names in panels(real).values() for name in names} == MEASURES
    assert all(real[f"{kind}_{name}"] for kind in ("prompt", "start") for name in Platformer.kept)
    assert real["bits"] == model.score(Video(prompt.real, prompt.fps), prompt.text).per_token.bits

    still = measure(model, world, prompt, prompt.real[:1].repeat(17, axis=0), real)
    assert still["motion"] == 0 < real["motion"]
    assert real["prompt_intact"]
    shuffled = prompt.real[np.random.default_rng(0).permutation(17)]
    assert not measure(model, world, prompt, shuffled, real)["prompt_intact"]
    smooth = prompt.real.reshape(17, 32, 2, 32, 2, 3).mean((2, 4)).repeat(2, 1).repeat(2, 2).astype(np.uint8)
    assert measure(model, world, prompt, smooth, real)["sharpness"] < real["sharpness"]
    dull = measure(model, world, prompt, prompt.real // 2, real)
    assert dull["contrast"] == pytest.approx(real["contrast"] / 2, rel=0.05)

    other = next(each for each in asked if each.stated["ground"] != prompt.stated["ground"])
    swapped = measure(model, world, prompt, other.real, real)
    assert (swapped["prompt_ground"], swapped["start_ground"]) == (False, False)
    # as it began, though not as the prompt says
    kept = measure(model, world, replace(prompt, stated=other.stated), prompt.real, real)
    assert (kept["prompt_ground"], kept["start_ground"]) == (False, True)


def row(rollout: int, frame: int, right: bool, value: float) -> dict[str, Any]:
    shares = dict.fromkeys(SHARES, right)
    return {"rollout": rollout, "frame": frame, "bits": value, "contrast": value, "sharpness": 1, "motion": 2} | shares


def test_a_curve_has_the_mean_difference_to_each_rollouts_real_clip() -> None:
    reals = [row(0, 0, True, 1.0), row(1, 0, True, 5.0)]
    rows = [row(i, frame, right=frame == 0, value=reals[i]["bits"] + frame) for frame in (16, 0) for i in (1, 0)]
    (first, start), (second, end) = curve(rows, reals)
    assert (first, second) == (0, 16)
    assert start["bits"] == (0, 0, 0)
    assert end["bits"] == (16, 16, 16)  # the same for both, however far their clips are apart
    assert start["prompt_who"] == (1, *wilson(2, 2))
    assert end["start_sky"] == (0, *wilson(0, 2))
    lines = table([*rows, row(0, 32, right=True, value=4.0), row(1, 32, right=False, value=8.0)], reals).splitlines()
    assert lines[0] == "|  | real clips | from frame 0 | from frame 16 | from frame 32 | last less first |"
    assert lines[2].startswith(
        "| bits, minus the real clip's | 3.00 | +0.00 (+0.00 to +0.00) | +16.00 (+16.00 to +16.00)"
    )
    assert lines[2].endswith("| +3.00 (+3.00 to +3.00) | +3.00 (+3.00 to +3.00) |")
    assert lines[3].startswith("| prompt: who | 1.00 | 1.00 (0.34 to 1.00) | 0.00 (0.00 to 0.66) | 0.50 ")
    figure = drift_figure(curve(rows, reals), panels(rows[0]))
    assert [axes.get_lines()[0].get_ydata().tolist() for axes in figure.axes[:2]] == [[0, 16], [1, 0]]
    assert math.isnan(curve(rows[:1] + rows[2:3], reals)[0][1]["bits"][1])  # one rollout has no interval
    with pytest.raises(ShapeError, match="a curve of 1 segments"):
        drift_figure(curve(rows[:2], reals), panels(rows[0]))
