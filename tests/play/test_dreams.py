"""Learned worlds behind frames that were seen: planned in by the code that plans in the real one."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.errors import DataError, PromptError
from vpoet.generate.model import Model
from vpoet.generate.play_decoder import PlayDecoder
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.play import futures as imagined
from vpoet.play.control import Control, Seen
from vpoet.play.costs import reward
from vpoet.play.dreams import Dreams
from vpoet.play.futures import carried_out, futures, space_of
from vpoet.play.planners import Planner
from vpoet.play.suggestions import POLICIES, suggestions

Run = Callable[..., tuple[int, str, str]]
PLANNER = Planner(horizon=3, samples=12, rounds=2, elites=2)


def seen_of(actions: list[int]) -> Seen:
    world = worlds.stepped("world:playground", 32, 32)
    first = world.reset(2)
    done = carried_out(world, np.array(actions))
    return Seen(np.concatenate([first[None], done.frames]), done.taken, done.rewards.tolist())


def test_what_is_imagined_follows_from_what_was_seen_and_done(toy: Model) -> None:
    dreams = Dreams(toy, "a robot", seed=2, horizon=3)
    plans = np.array([[2, 2, 2], [2, 2, 1], [3, 0, 0]])

    def imagined(seen: Seen) -> list[bytes]:
        return [future.frames.tobytes() for future in futures(dreams(seen), plans)]

    first = imagined(seen_of([2, 2, 1]))
    assert imagined(seen_of([2, 2, 1])) == first
    assert imagined(seen_of([2, 2, 3])) != first
    assert len(set(first)) > 1
    place = dreams(seen_of([2, 2, 1]))
    assert place.fork().step(2)[0].tobytes() == first[0][: 32 * 32 * 3]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_futures_side_by_side_are_those_of_one_after_the_other_in_a_step_each(
    toy: Model, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    """More than are in memory at once, some of them twice; some worlds end before. With guesses, as by default, and
    without, side by side and one after the other."""
    monkeypatch.setattr(imagined, "AT_ONCE", 7)
    place, plain = (
        Dreams(model, "a robot", seed=5, horizon=4, sampling=Sampling(guidance=guidance))(seen_of([2, 2, 1]))
        for model in (Model(toy.bundle), Model(toy.bundle, guesses=0))
    )
    plans = np.random.default_rng(0).integers(0, 3, (9, 4))
    plans[:, 0] %= 2
    alone = [carried_out(plain.fork(), plan) for plan in plans]
    assert len({len(future) for future in alone}) > 1
    assert len({future.frames.tobytes() for future in alone}) > 4
    steps: list[int] = []
    step = PlayDecoder.step

    def counted(self: PlayDecoder, actions: Any, generators: Any) -> Any:
        steps.append(len(actions))
        return step(self, actions, generators)

    monkeypatch.setattr(PlayDecoder, "step", counted)
    for here in (place, place, plain):  # it is left as it was
        steps.clear()
        for one, other in zip(futures(here, plans), alone, strict=True):
            assert np.array_equal(one.plan, other.plan)
            assert np.array_equal(one.frames, other.frames)
            assert np.array_equal(one.rewards, other.rewards)
            assert one.ended == other.ended
        assert len(steps) <= 2 * 4
        assert max(steps) <= 7
        assert sum(steps) < sum(len(future) for future in alone)  # what plans share is made once
    with pytest.raises(DataError):
        futures(place, np.array([[2], [99]]))


def test_futures_in_several_threads_are_the_same(toy: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Dreams(toy, "a robot", seed=5, horizon=4)(seen_of([2, 2, 1]))
    plans = np.random.default_rng(0).integers(0, 3, (9, 4))
    assert place.lanes == 1
    wanted, met = futures(place, plans), set()
    step = PlayDecoder.step

    def noted(self: PlayDecoder, actions: Any, generators: Any) -> Any:
        met.add(threading.get_ident())
        return step(self, actions, generators)

    monkeypatch.setattr(PlayDecoder, "step", noted)
    monkeypatch.setattr("vpoet.generate.environment.threads_left", lambda transformer: 3)
    for one, other in zip(futures(place, plans), wanted, strict=True):
        assert one.frames.tobytes() == other.frames.tobytes()
        assert np.array_equal(one.rewards, other.rewards)
    assert len(met) > 1
    with pytest.raises(DataError):
        futures(place, np.array([[2], [99]]))


def test_a_compiled_model_has_forks_alone(toy: Model) -> None:
    place = Dreams(Model(toy.bundle, guesses=0), "a robot", seed=1, horizon=2)(seen_of([2]))
    plans = np.array([[2, 2], [2, 1]])
    assert place.branches() is not None
    wanted = futures(place, plans)
    place._decoding = replace(place._decoding, build_play=lambda step, *shape: step)
    assert place.branches() is None
    for one, other in zip(futures(place, plans), wanted, strict=True):
        assert np.array_equal(one.frames, other.frames)


def test_no_more_is_told_than_a_document_has_room_for(toy: Model) -> None:
    """A frame is 18 tokens of 1,600: where 66 frames may be imagined, there is room for 20."""
    dreams = Dreams(toy, "a robot", horizon=66)
    assert dreams.most == 20
    seen = seen_of([0, 2, 1] * 10)
    assert len(seen.frames) == 31
    last = seen.last(20)
    assert (len(last.frames), len(last.actions), len(last.rewards)) == (20, 19, 19)
    one, other = (futures(dreams(told), np.array([[2]]))[0].frames for told in (last, seen))
    assert np.array_equal(one, other)


def test_control_plans_in_a_model_from_its_own_suggestions(toy: Model) -> None:
    world = worlds.stepped("world:playground", 32, 32)
    frame = world.reset(2)
    state = world.save()
    goal = carried_out(world, np.full(4, 2)).frames[-1]
    dreams = Dreams(toy, "a robot", seed=1, horizon=3)
    hints = suggestions(dreams, ["policy", "inverse"], 3, goal)
    assert len(hints(Seen(frame[None], np.zeros(0, np.int64), []))) == POLICIES + 1
    control = Control(cost=reward, planner=PLANNER, space=space_of(world), every=2, suggest=hints)
    episodes = []
    for _ in range(2):
        world.restore(state)
        episodes.append(control.run(world, frame, steps=4, dream=dreams, seed=5))
    one, two = (episode.seen.actions.tolist() for episode in episodes)
    assert one == two
    assert np.array_equal(episodes[0].imagined, episodes[1].imagined)
    world.restore(state)
    assert np.array_equal(carried_out(world, np.array(one, np.int64)).frames, episodes[0].seen.frames[1:])
    with pytest.raises(PromptError, match="give one"):
        suggestions(dreams, ["inverse"], 3)


def test_the_programs_take_a_bundle(toy_bundle: Path, program: Run, tmp_path: Path) -> None:
    world = worlds.stepped("world:playground", 32, 32)
    goal: Frames = world.reset(9)
    Video(goal[None], 0.0).write(tmp_path / "goal.png")
    quick = ("--model", toy_bundle, "--device", "cpu", "--json")
    for number, what in enumerate(
        (("--goal", tmp_path / "goal.png", "--proposals", "policy"), ("--prompt", "a robot"))
    ):
        asked = (*what, "--steps", 3, "--horizon", 3, "--samples", 6, "--rounds", 2, "--seed", 2, *quick)
        status, out, err = program("sample/plan.py", "world:playground", *asked, "--out", tmp_path / f"plan{number}")
        assert status == 0, err
        assert len(json.loads(out)["actions"]) <= 3
    status, out, err = program(
        "sample/reach.py", "world:playground", "--count", 2, "--samples", 2, *quick, "--out", tmp_path / "reach"
    )
    assert status == 0, err
    rows = [row["who"] for row in json.loads(out.splitlines()[-1])["rows"]]
    assert rows == [
        "random keys", "oracle, random shooting, 2", "model, random shooting, 2", "oracle, CEM, 2", "model, CEM, 2",
        "model, CEM from its policy, 2", "model, CEM from its inverse, 2", "model, inverse alone", "model, policy",
    ]  # fmt: skip
