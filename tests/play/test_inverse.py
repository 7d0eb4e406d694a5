"""Actions read off videos, and suggestions of plans by the tasks `inverse` and `policy`."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.arrays import Frames
from vpoet.errors import ConfigError, PromptError, ShapeError
from vpoet.generate.asks.table import served
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.play import reading
from vpoet.play.control import Seen
from vpoet.play.inverse import between, told
from vpoet.play.reading import actions_of
from vpoet.play.suggestions import Policy, on_the_way
from vpoet.sequence.actions import outcome_values
from vpoet.sequence.arrangements import Given, Sample, frames_between


def clip(frames: int, seed: int = 0) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, 32, 32, 3), np.uint8)


def nats_of(model: Model, codes: Any, values: Any) -> Any:
    """-log p of actions between the frames of a video, by the full pass."""
    text = np.array(model.bundle.text.encode("a robot"), np.int32)
    document = served(model.bundle, Sample(text, codes, 8, actions=values), "inverse", Given())
    return model.token_nats([document])[0]


def test_each_action_is_the_most_probable_one_after_those_before(toy: Model) -> None:
    codes = toy.bundle.video.encode(clip(4))
    found = between(toy, codes, "a robot")
    np.testing.assert_allclose(nats_of(toy, codes, found.values), found.nats[:, 0], atol=1e-4)
    for step in range(3):
        for other in range(1, 7):
            values = found.values.copy()
            values[step] = other
            assert nats_of(toy, codes, values)[step] >= found.nats[step, 0] - 1e-4
    assert found.actions == (found.values[:, 0] - 1).tolist()
    rows = told(found)
    assert [row["frame"] for row in rows] == [0, 1, 2]
    assert all(0 < row["probability"] <= 1 for row in rows)


def test_a_long_video_is_read_in_pieces_that_share_a_frame(toy: Model) -> None:
    """A document of 1,600 tokens holds 87 frames of 16 codes with their actions."""
    frames = clip(95)
    codes = toy.bundle.video.encode(frames)
    found = between(toy, codes, "a robot")
    assert found.values.shape == (94, 1)
    text = np.array(toy.bundle.text.encode("a robot"), np.int32)
    most = frames_between(Sample(text, codes, 8, actions=found.values, room=1600))
    assert 80 < most < 90
    first, second = (between(toy, codes[a:b], "a robot").values for a, b in ((0, most), (most - 1, 95)))
    assert np.concatenate([first, second]).tolist() == found.values.tolist()
    whole, changes = actions_of(toy, Video(frames, 8.0), "a robot", "inverse")
    assert (whole.values.tolist(), changes) == (found.values.tolist(), ())


def test_a_film_is_read_without_holding_its_frames(toy: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """These are 16 MB."""
    monkeypatch.setattr(reading, "infer", lambda model, codes, prompt, by: len(codes))
    Video(np.repeat(clip(20), 16, axis=1).repeat(16, axis=2), 8.0).write(tmp_path / "film.mp4")
    wanted: Any = (20, ("from 512x512 to 32x32 pixels",))
    assert actions_of(toy, tmp_path / "film.mp4", by="inverse") == wanted  # what is set up once is not counted
    tracemalloc.start()
    found = actions_of(toy, tmp_path / "film.mp4", by="inverse")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == wanted
    assert most < 8e6


def test_what_cannot_be_read_is_told(toy: Model, toy_bundle: Path) -> None:
    with pytest.raises(ShapeError, match="a single frame"):
        actions_of(toy, Video(clip(1), 0.0))
    with pytest.raises(ShapeError, match="more than the 1600 tokens"):
        between(toy, toy.bundle.video.encode(clip(2)), "robot " * 1000)
    other = vpoet.load(toy_bundle, device="cpu", precision="fp32")
    other.bundle.config.tasks = ["policy"]
    with pytest.raises(PromptError, match="by a model that was trained for play"):
        actions_of(other, Video(clip(2), 8.0), by="play")
    with pytest.raises(ConfigError, match="play or inverse"):
        actions_of(other, Video(clip(2), 8.0), by="luck")
    other.bundle.config.tasks = ["t2v"]
    for refused in (lambda: actions_of(other, Video(clip(2), 8.0)), lambda: Policy(other)):
        with pytest.raises(PromptError, match="was not trained for"):
            refused()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_policy_draws_actions_by_their_probability(toy: Model, guidance: float) -> None:
    """Against -log p of each action in the full pass, with the prompt and without; 200 draws are off by more than 4 of
    their standard errors once in 10,000."""
    codes = toy.bundle.video.encode(clip(3))
    seen = Seen(clip(3), np.array([2, 1]), [0.0, 1.0])
    text = np.array(toy.bundle.text.encode("a robot"), np.int32)
    odds = []
    for action in range(6):
        sample = Sample(
            text, np.concatenate([codes, codes[:1]]), 8,
            actions=np.array([[3], [2], [action + 1]], np.int32), outcomes=outcome_values([0.0, 1.0, 0.0], [False] * 3),
        )  # fmt: skip
        told = served(toy.bundle, sample, "policy", Given())
        named, bare = (-nats[-(codes[0].size + 2)] for nats in toy.token_nats([told, told.unprompted()]))
        odds.append(float(np.exp(bare + guidance * (named - bare))))
    odds = [each / sum(odds) for each in odds]  # but for none, which leads to a first frame alone
    policy = Policy(toy, "a robot", guidance)
    drawn = [int(policy.draw(seen, np.random.default_rng(seed))) for seed in range(200)]
    for action in range(6):
        share = drawn.count(action) / 200
        assert abs(share - odds[action]) < 4 * np.sqrt(odds[action] * (1 - odds[action]) / 200) + 1e-9
    assert drawn[:20] == [int(policy.draw(seen, np.random.default_rng(seed))) for seed in range(20)]


def test_the_policy_goes_on_in_its_own_imagination(toy: Model) -> None:
    world = toy.play("a robot", seed=3)
    seen = Seen(world.frame[None], np.zeros(0, np.int64), [])
    policy = Policy(toy, "a robot")
    plans = [policy.plan(world.fork(), seen, 4, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1, 2, 3)]
    assert plans[0] == plans[1]
    assert len({tuple(plan) for plan in plans}) > 1
    assert all(len(plan) == 4 and set(plan) <= set(range(6)) for plan in plans)


def test_the_way_to_a_goal_is_imagined_and_its_actions_read(toy: Model, toy_bundle: Path) -> None:
    first, last = clip(2)
    plan = on_the_way(toy, first, last, 4, prompt="a robot", seed=2)
    way = toy.sample("a robot", image=Video(first[None], 0.0), last=Video(last[None], 0.0), frames=5, seed=2)
    assert plan.tolist() == actions_of(toy, way, "a robot")[0].actions
    other = vpoet.load(toy_bundle, device="cpu", precision="fp32")
    other.bundle.config.tasks = ["play", "inverse"]
    held = on_the_way(other, first, last, 4)
    assert held.tolist() == held[:1].tolist() * 4
