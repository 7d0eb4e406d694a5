"""Rewards by likelihood: those of `Model.score`, as they stream; the trap of the still figure, shown and avoided."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import vpoet
from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.errors import ConfigError, DataError, PromptError, ShapeError
from vpoet.generate.model import Model
from vpoet.generate.reward import Rewards, entropy
from vpoet.media.video import Video
from vpoet.play.futures import Future
from vpoet.play.goal_text import GoalText
from vpoet.play.rewards import Memory, Terms, earned
from vpoet.sequence.actions import ActionSpace


def clip(frames: int, seed: int = 0, side: int = 32) -> Frames:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), np.uint8)


def test_a_stream_s_rewards_are_the_score_of_the_clip_and_come_one_by_one(toy: Model) -> None:
    frames = clip(9)
    wanted = toy.score(Video(frames, 8.0), "a robot").by_time
    told = [reward.nats for reward in toy.reward(iter(frames), "a robot")]
    np.testing.assert_allclose(told, wanted, atol=1e-4)
    assert sum(told) == pytest.approx(toy.score(Video(frames, 8.0), "a robot").total.nats, abs=1e-4)
    stream = Rewards(toy.bundle, toy.decoding, "a robot")
    assert [reward.nats for frame in frames if (reward := stream(frame))] == told


def test_a_stream_goes_on_when_its_document_is_full(toy: Model) -> None:
    """The second document begins with the last half of the first, and is scored as it would be by itself."""
    frames = clip(20)
    told = [reward.nats for reward in toy.reward(frames, "a robot")]
    assert len(told) == 20
    second = toy.score(Video(frames[5:14], 8.0), "a robot").by_time
    np.testing.assert_allclose(told[9:14], second[4:], atol=1e-4)


def test_entropy_is_the_mean_of_minus_log_p_over_all_codes(toy: Model) -> None:
    """Of one code, by enumeration: the first group's entropy is exact, and so is what later ones are given."""
    head, transformer = toy.bundle.transformer.visual, toy.bundle.transformer
    torch.manual_seed(0)
    h_1D = torch.randn(1, transformer.config.width)
    size = toy.bundle.video.codebook_size
    codes_C = torch.arange(size)
    nats_C = head.nats(h_1D.expand(size, -1), codes_C)
    exact = float(((-nats_C).exp() * nats_C).sum())
    by_code = [(float((-nats_C[code]).exp()), entropy(head, h_1D, codes_C[code : code + 1])) for code in range(size)]
    assert sum(p * expected for p, expected in by_code) == pytest.approx(exact, rel=1e-5)


def test_frames_of_another_size_are_told(toy: Model) -> None:
    with pytest.raises(ShapeError, match="frames of this model are uint8"):
        list(toy.reward(clip(1, side=16)))


def test_goal_texts_cost_what_scores_say(toy: Model) -> None:
    frames = clip(5)
    future = Future(np.zeros(5, np.int64), frames, np.zeros(5), False)
    cost = GoalText(toy, "a robot walks right")(future)
    totals = [toy.score(Video(frames, 8.0), text).total.nats for text in ("a robot walks right", "")]
    assert cost[-1] == pytest.approx(totals[0] - totals[1], abs=1e-4)
    assert GoalText(toy, "a robot")(Future(np.zeros(1, np.int64), frames[:1], np.zeros(1), True)).tolist() == [np.inf]


def test_a_still_figure_is_the_most_probable_and_does_not_win() -> None:
    """The model that ships, and somebody who walks, or stands still in the picture of the clip's middle."""
    model = vpoet.load(device="cpu", precision="fp32")
    config = model.bundle.config
    world = worlds.find("platformer")(config.height, config.width, float(config.fps), config.frames)
    walks, told = world.clip(2)
    prompt = told["caption"] if isinstance(told["caption"], str) else told["caption"][0]
    assert prompt == "a zombie walks right on sand"
    stands = np.repeat(walks[8:9], len(walks), axis=0)

    def late(frames: Frames, **weights: float) -> float:
        """The mean of the last three cells: before, the model has not seen whether anything moves."""
        terms = Terms(**({"entropy": 0.0, "novelty": 0.0} | weights))
        return float(np.mean([each.value for each in earned(model, frames, prompt, terms)][2:]))

    assert late(stands) > late(walks) + 0.1
    assert late(stands, entropy=1.0) < late(walks, entropy=1.0) - 0.05
    assert late(stands, novelty=8.0) < late(walks, novelty=8.0) - 0.05
    assert late(stands, entropy=1.0, novelty=1.0) < late(walks, entropy=1.0, novelty=1.0) - 0.05


def test_what_is_new_is_what_no_remembered_frame_has_shown() -> None:
    def picture(x: int) -> Frames:
        frame = np.zeros((32, 32, 3), np.uint8)
        frame[:8, x : x + 8] = 255
        return frame

    memory = Memory(3)
    seen = [memory(picture(x)) for x in (0, 0, 8, 0, 8, 16, 16, 16, 16, 0)]
    assert seen == [0, 0, 2 / 16, 0, 0, 1 / 16, 0, 0, 0, 2 / 16]


@pytest.mark.parametrize("wrong", [{"entropy": -1.0}, {"novelty": float("nan")}, {"memory": 0}])
def test_terms_that_are_none_are_told(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="or"):
        Terms(**wrong)


def test_an_environment_is_rewarded_by_what_it_shows(toy: Model) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    from vpoet.play.gym_reward import Likelihood

    class Shown(gymnasium.Env):  # type: ignore[misc, name-defined]
        metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 8}
        action_space, observation_space = gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2)

        def __init__(self, render_mode: str | None = "rgb_array") -> None:
            self.render_mode = render_mode

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
            super().reset(seed=seed)
            self.at = 0
            return 0, {}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
            self.at += 1
            return 0, 7.0, self.at == 5, False, {}

        def render(self) -> Frames:
            return clip(6)[self.at]

    terms = Terms(entropy=0.0, novelty=2.0)
    env = Likelihood(Shown(), toy, "a robot", terms)
    wanted = [each.value for each in earned(toy, clip(6), "a robot", terms)]
    for _ in range(2):
        env.reset(seed=0)
        steps = [env.step(0) for _ in range(5)]
        assert [reward for _, reward, *_ in steps] == pytest.approx(wanted[1:], abs=1e-6)
        assert [info["reward"] for *_, info in steps] == [7.0] * 5
        assert [ended for _, _, ended, *_ in steps] == [False] * 4 + [True]
    with pytest.raises(DataError, match="shows no frames"):
        Likelihood(Shown(None), toy)


def test_a_model_that_makes_no_videos_has_no_rewards(toy_bundle: Any) -> None:
    model = vpoet.load(toy_bundle, device="cpu", precision="fp32")
    model.bundle.config.tasks = ["play", "policy"]
    model.bundle.config.actions = ActionSpace(names=list("abcdef"))
    with pytest.raises(PromptError, match="was not trained for t2v"):
        Rewards(model.bundle, model.decoding)
