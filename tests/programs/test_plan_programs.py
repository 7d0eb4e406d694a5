"""`vpoet plan`, `vpoet actions` and `vpoet reach` as a user runs them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet import worlds
from vpoet.media.video import Video
from vpoet.play.futures import carried_out
from vpoet.play.reading import actions_of
from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.playground.physics import ACTIONS

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--horizon", 8, "--samples", 40, "--rounds", 2, "--every", 8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    folder, keys = tmp_path_factory.mktemp("player"), ActionSpace(names=list(ACTIONS))
    return make_bundle(folder, depth=1, time_stride=1, length=1000, frames=5, height=32, width=32, actions=keys)


@pytest.fixture
def goal(tmp_path: Path) -> Path:
    """What six steps to the right lead to, of seed 3."""
    world = worlds.stepped("world:playground")
    world.reset(3)
    Video(carried_out(world, np.full(6, 2)).frames[-1:], 0.0).write(tmp_path / "goal.png")
    return tmp_path / "goal.png"


def result(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_a_plan_comes_to_its_goal_and_its_actions_do_what_its_video_shows(
    program: Run, tmp_path: Path, goal: Path
) -> None:
    asked = ("world:playground", "--goal", goal, "--seed", 3, "--steps", 16, *QUICK, "--json")
    status, out, err = program("sample/plan.py", *asked, "--out", tmp_path / "one")
    assert status == 0, err
    told = result(out)
    assert told["comes_to"] == 0 < told["begins"]
    world = worlds.stepped("world:playground")
    first = world.reset(3)
    came = carried_out(world, np.array([ACTIONS.index(name) for name in told["actions"]]))
    assert json.loads((tmp_path / "one" / "plan.json").read_text())["actions"] == told["actions"]

    video = Video.read(tmp_path / "one" / "plan.mp4")
    assert video.frames.shape == (1 + len(came), 64, 3 * 64 + 2 * 4, 3)
    shown = video.frames[:, :, 68:132].astype(int)
    assert np.abs(shown - np.concatenate([first[None], came.frames])).mean() < 8  # but for the codec
    assert (tmp_path / "one" / "plan.png").stat().st_size > 1000
    with (tmp_path / "one" / "candidates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == told["tried"]
    best = [row for row in rows if (row["search"], row["rank"]) == ("0", "0")]
    assert best[0]["actions"].split()[: int(best[0]["steps"])] == told["actions"][: int(best[0]["steps"])]

    status, again, _ = program("sample/plan.py", *asked, "--out", tmp_path / "two")
    assert status == 0
    assert result(again) | {"out": ""} == told | {"out": ""}
    for name in ("plan.json", "plan.mp4", "candidates.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_plan_of_nothing_says_why(program: Run, tmp_path: Path) -> None:
    """The first frame is the goal: nothing comes nearer."""
    Video(worlds.stepped("world:playground").reset(3)[None], 0.0).write(tmp_path / "here.png")
    asked = ("world:playground", "--goal", tmp_path / "here.png", "--seed", 3, *QUICK, "--json")
    status, out, err = program("sample/plan.py", *asked, "--out", tmp_path / "plan")
    assert (status, result(out)["actions"]) == (0, [])
    assert "no plan that was tried comes nearer than staying" in " ".join(err.split())


def test_rewards_are_planned_for_and_got(program: Run, tmp_path: Path) -> None:
    asked = ("--reward", "--scene", "a robot on grass", "--seed", 1, "--steps", 24, "--samples", 96, "--rounds", 3)
    status, out, err = program("sample/plan.py", "world:playground", *asked, "--out", tmp_path / "coins", "--json")
    assert status == 0, err
    assert sum(result(out)["rewards"]) >= 1


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ((), "say what for: one of --goal PICTURE, --prompt TEXT and --reward"),
        (("--reward", "--prompt", "a robot"), "say what for"),
        (("--prompt", "a robot on grass"), "give --model"),
        (("--reward", "--proposals", "policy"), "give --model"),
        (("--reward", "--proposals", "luck"), "--proposals luck: there are policy, inverse"),
        (("--reward", "--distance", "miles"), "--distance miles: there are pixels, features"),
        (("--reward", "--samples", 0), "--samples"),
    ],
)
def test_what_cannot_be_planned_is_told(program: Run, tmp_path: Path, asked: tuple[Any, ...], why: str) -> None:
    status, _, err = program("sample/plan.py", "world:playground", *asked, "--out", tmp_path / "out")
    assert status == 2
    assert why in err
    assert not (tmp_path / "out").exists()


def test_the_actions_of_videos_are_read_and_listed(program: Run, tmp_path: Path, bundle: Path) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
    for number, frames in enumerate(clips):
        Video(frames, 8.0).write(tmp_path / f"{number}.mp4", lossless=True)
    (tmp_path / "broken.mp4").write_text("no video")
    files = [tmp_path / f"{name}.mp4" for name in ("0", "broken", "1")]
    asked = ("--model", bundle, "--out", tmp_path / "list.jsonl", "--device", "cpu", "--json")
    status, out, err = program("sample/actions.py", *files, *asked)
    assert status == 2
    assert "1 videos could not be read" in err
    rows = result(out)["rows"]
    model = vpoet.load(bundle, device="cpu")
    for row, file in zip(rows, (files[0], files[2]), strict=True):
        found, _ = actions_of(model, file)
        assert [ACTIONS.index(step["action"]) for step in row["steps"]] == found.actions
        assert [step["probability"] for step in row["steps"]] == found.probabilities.tolist()
    listed = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert [line["actions"] for line in listed] == [[step["action"] for step in row["steps"]] for row in rows]
    assert listed[0]["action_space"] == {"names": list(ACTIONS)}


def test_goals_are_reached_by_the_oracle_and_what_was_done_is_not_done_again(program: Run, tmp_path: Path) -> None:
    asked = ("--count", 4, "--samples", "32", "--out", tmp_path / "reach", "--json")
    status, out, err = program("sample/reach.py", *asked)
    assert status == 0, err
    rows = {row["who"]: row for row in result(out)["rows"]}
    assert list(rows) == ["random keys", "oracle, random shooting, 32", "oracle, CEM, 32"]
    assert rows["oracle, CEM, 32"]["reached"] >= 3 > rows["random keys"]["reached"]
    assert all(row["of"] == 4 for row in rows.values())
    assert "| oracle, CEM, 32 |" in (tmp_path / "reach" / "results.md").read_text()
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "reach" / "episodes").iterdir()}
    assert len(kept) == 12
    status, again, _ = program("sample/reach.py", *asked)
    assert (status, result(again)) == (0, result(out))
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_model_that_cannot_be_measured_is_told_before_anything_is_done(
    program: Run, tmp_path: Path, make_bundle: Callable[..., Path]
) -> None:
    sizes = {"time_stride": 1, "length": 1000, "frames": 5, "height": 32, "width": 32}
    other, keys = ActionSpace(names=["left", "right"]), ActionSpace(names=list(ACTIONS))
    for settings, told, why in (
        ({"actions": other}, (), "its actions are not those of world:playground"),
        ({"actions": other}, ("--texts",), "its actions are not those of world:playground"),
        ({"actions": keys, "tasks": ["inverse"]}, (), "was not trained for play; it was for inverse"),
    ):
        model = make_bundle(tmp_path, depth=1, **sizes, **settings)
        status, _, err = program("sample/reach.py", "--model", model, *told, "--count", 2, "--out", tmp_path / "reach")
        assert (status, why in err) == (2, True), err
        assert not (tmp_path / "reach").exists()


def test_commands_have_sixteen_steps_whatever_is_asked_of_goals(program: Run, tmp_path: Path) -> None:
    status, _, err = program("sample/reach.py", "--texts", "--ahead", 25, "--out", tmp_path / "told")
    assert (status, "--ahead is of goals' pictures" in err) == (2, True), err
    assert not (tmp_path / "told").exists()


def test_commands_are_given_and_what_came_of_them_is_told(program: Run, tmp_path: Path) -> None:
    status, out, err = program("sample/reach.py", "--texts", "--count", 3, "--out", tmp_path / "told", "--json")
    assert status == 0, err
    (row,) = result(out)["rows"]
    assert (row["who"], row["of"]) == ("random keys", 3)
    kept = [json.loads(file.read_text()) for file in sorted((tmp_path / "told" / "episodes").iterdir())]
    assert sum(one["reached"] for one in kept) == row["reached"]
    assert all(one["command"].startswith(("a ", "an ")) for one in kept)
    assert (tmp_path / "told" / "reach.png").stat().st_size > 1000


def test_rewards_of_players_between_an_expert_and_chance_are_measured_and_not_made_again(
    program: Run, tmp_path: Path, bundle: Path
) -> None:
    out = tmp_path / "rewards"
    asked = (bundle, "--count", 2, "--steps", 6, "--out", out, "--device", "cpu", "--json")
    status, said, err = program("sample/rewards.py", *asked)
    assert status == 0, err
    found = result(said)
    assert [row["reward"] for row in found["rows"]] == [
        "log-likelihood alone", "and entropy", "and entropy and novelty"
    ]  # fmt: skip
    assert len(found["returns"]) == 12
    kept = {file: file.stat().st_mtime_ns for file in (out / "episodes").iterdir()}
    assert len(kept) == 24
    one = json.loads((out / "episodes" / "stands-still-2000000.json").read_text())
    assert (one["steps"], one["returned"]) == (6, 0)
    assert "| stands still |" in (out / "results.md").read_text()
    assert (out / "rewards.png").stat().st_size > 1000
    status, again, _ = program("sample/rewards.py", *asked)
    assert (status, result(again)) == (0, found)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    for file, text in zip(kept, ("", "[]", '{"steps'), strict=False):  # a disk that was full, or a copy cut short
        file.write_text(text)
    status, again, _ = program("sample/rewards.py", *asked)
    assert (status, result(again)) == (0, found)
