"""The learned world: driven by the code that drives any stepped world, and repeatable."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.arrays import Frames
from vpoet.errors import DataError, PromptError, ShapeError
from vpoet.generate.decoder import Decoding
from vpoet.generate.environment import Game, Session
from vpoet.generate.play_decoder import Scene
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.vocabulary import Vocabulary

SPACE = ActionSpace(names=["left", "right", "jump"])


def session(window: int = 3, guidance: float = 1.0, temperature: float = 1.0) -> Session:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, SPACE.vocabulary(Vocabulary(30, (6, 4), "t", "v"))).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)
    decoding = Decoding(
        transformer=transformer, attention=backend("sdpa", torch.device("cpu"), torch.float32), window=window
    )
    game = Game(
        model="toy",
        space=SPACE,
        scene=Scene(fps=8, grid=(2, 2), actions=1),
        size=(2, 2),
        length=200,
        encode=lambda text: [len(word) for word in text.split()],
        show=lambda codes, past: np.repeat(codes[..., None], 3, axis=3).astype(np.uint8),
        see=lambda frames: frames[..., 0].astype(np.int32),
    )
    return Session(decoding, game, Sampling(guidance=guidance, temperature=temperature))


class Corridor:
    """A real world of one line, under the contract of worlds."""

    actions = ("left", "right", "jump")
    fps = 8.0

    def reset(self, seed: int, prompt: str = "") -> Frames:
        self.at = seed % 3
        return np.full((2, 2, 3), self.at, np.uint8)

    def step(self, action: int) -> tuple[Frames, float, bool]:
        if not 0 <= action < 3:
            raise DataError(f"no action {action}")
        self.at += (-1, 1, 0)[action]
        return np.full((2, 2, 3), self.at, np.uint8), float(self.at > 2), self.at > 9


def drive(world: Any, seed: int, keys: list[int]) -> list[tuple[bytes, float, bool]]:
    """Code that needs not know which of the two it drives."""
    seen = [(world.reset(seed, "a robot walks").tobytes(), 0.0, False)]
    for key in keys:
        assert key < len(world.actions)
        frame, reward, end = world.step(key)
        assert (frame.shape, frame.dtype) == ((2, 2, 3), np.uint8)
        seen.append((frame.tobytes(), reward, end))
        if end:
            break
    return seen


KEYS = [0, 1, 1, 2, 0, 0, 1, 2, 2, 1, 0, 1]


@pytest.mark.parametrize("world", [Corridor(), session()], ids=["real", "learned"])
def test_the_real_and_the_learned_world_are_driven_by_the_same_code(world: Any) -> None:
    first = drive(world, 1, KEYS)
    assert drive(world, 1, KEYS) == first
    assert drive(world, 2, KEYS) != first
    world.reset(1)
    with pytest.raises(DataError, match="no action"):
        world.step(3)


def press(played: Session, key: int) -> list[float]:
    """The nats of the next frame; an untrained model says at random that this is the end, and goes on all the same."""
    played.outcome = "unknown"
    played.step(key)
    return played.nats.tolist()


def test_a_fork_goes_on_from_its_frame_and_leaves_its_origin_alone() -> None:
    played = session()
    played.reset(5, "a robot")
    for key in KEYS[:4]:
        press(played, key)
    one, two, other = played.fork(), played.fork(), played.fork()
    wanted = [press(one, key) for key in KEYS]
    assert [press(other, 2 - key) for key in KEYS] != wanted
    assert [press(two, key) for key in KEYS] == wanted
    assert [press(played, key) for key in KEYS] == wanted


def test_another_prompt_changes_what_comes() -> None:
    told, untold, again = session(), session(), session()
    for one in (told, untold, again):
        one.reset(5, "a robot on grass")
    told.prompt("a very different robot")
    again.prompt("a very different robot")
    assert press(told, 1) != press(untold, 1)
    assert press(told, 1) == [press(again, 1) for _ in range(2)][1]


def test_what_came_of_a_step_is_told() -> None:
    played = session(temperature=1.5)
    seen = set()
    for seed in range(20):
        played.reset(seed)
        assert (played.outcome, played.nats[:2].tolist()) == ("start", [0.0, 0.0])
        _, reward, end = played.step(0)
        seen.add(played.outcome)
        assert reward == {"reward negative": -1, "reward positive": 1}.get(played.outcome.split(",")[0], 0)
        assert end == played.outcome.endswith(", end")
        if end:
            with pytest.raises(DataError, match="this is the end: reset"):
                played.step(0)
    assert len(seen) > 3


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_that_is_none_is_told_and_the_world_goes_on(seed: Any) -> None:
    world = session()
    world.reset(3, "a robot")
    fork = world.fork()
    with pytest.raises(DataError, match="a seed is an integer of 0 or more"):
        world.reset(seed)
    assert np.array_equal(world.step(1)[0], fork.step(1)[0])


def test_nothing_can_be_done_before_a_world_has_begun() -> None:
    with pytest.raises(DataError, match="reset first"):
        session().step(0)
    with pytest.raises(PromptError, match="nothing has begun"):
        session().prompt("a robot")


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_frames_that_were_seen_are_gone_on_from_as_if_they_had_been_made(guidance: float) -> None:
    """Those a model made, their actions and rewards, given to another session bring the same state: what comes next is
    equal bit for bit, after a change of prompt, too."""
    made, seen = session(guidance=guidance), session(guidance=guidance)
    for seed in range(200):  # an untrained model says at random what came of a step, and seldom what a recording can
        frames, rewards, outcomes = [made.reset(seed, "a robot")], [], []
        while len(rewards) < 2 and not made.outcome.endswith("end"):
            frame, reward, _ = made.step(KEYS[len(rewards)])
            frames.append(frame)
            rewards.append(reward)
            outcomes.append(made.outcome)
        if all(outcome.startswith("reward") and not outcome.endswith("end") for outcome in outcomes):
            break
    shown = seen.begin(seed, "a robot", np.stack(frames), KEYS[:2], rewards)
    assert np.array_equal(shown, made.frame)
    assert seen.outcome == made.outcome
    for one in (seen, made):
        one.prompt("a zombie on snow")
    assert [press(seen, key) for key in KEYS] == [press(made, key) for key in KEYS]


def test_frames_that_do_not_fit_are_refused_and_the_world_goes_on() -> None:
    world = session()
    world.reset(3, "a robot")
    fork = world.fork()
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(DataError, match="2 frames, 0 actions, 0 rewards: there is an action"):
        world.begin(0, "", np.repeat(picture, 2, 0))
    with pytest.raises(DataError, match="no action 9"):
        world.begin(0, "", np.repeat(picture, 2, 0), [9])
    with pytest.raises(ShapeError, match="frames of 3 x 2 cells, and those of this model have 2 x 2"):
        world.begin(0, "", np.zeros((1, 3, 2, 3), np.uint8))
    long = session(window=0)
    with pytest.raises(ShapeError, match="play ends here"):
        long.begin(0, "", np.repeat(picture, 40, 0), [0] * 39)
    assert press(world, 1) == press(fork, 1)


def test_the_learned_world_obeys_the_contract_of_worlds(obeys_the_contract: Callable[..., None]) -> None:
    obeys_the_contract(session(temperature=0.3), seeds=3, steps=12)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_saved_state_goes_on_in_another_session(guidance: float) -> None:
    one, other = session(guidance=guidance), session(guidance=guidance)
    one.reset(5, "a robot on grass")
    for key in KEYS[:5]:
        press(one, key)
    one.prompt("a zombie")
    state = one.save()
    other.reset(9, "a longer prompt than the first one was")
    other.restore(state)
    assert np.array_equal(other.frame, one.frame)
    assert (other.outcome, other.nats.tolist()) == (one.outcome, one.nats.tolist())
    assert [press(other, key) for key in KEYS] == [press(one, key) for key in KEYS]


def test_what_is_no_state_of_this_world_is_refused_and_it_goes_on() -> None:
    world = session()
    with pytest.raises(DataError, match="reset first"):
        world.save()
    world.reset(3, "a robot")
    state, fork = world.save(), world.fork()
    for wrong in (b"", state[:-1], state[:50], bytes([state[0] ^ 1]) + state[1:], state[:-1] + bytes([state[-1] ^ 1])):
        with pytest.raises(DataError, match="no saved state of a learned world"):
            world.restore(wrong)
    for strange in (session(window=4), session(guidance=2.0)):
        strange.reset(0)
        with pytest.raises(DataError, match="another window or guidance"):
            world.restore(strange.save())
    foreign = session()
    foreign.reset(0)
    foreign._game = replace(foreign._game, model="another")
    with pytest.raises(DataError, match="of model another; this is toy"):
        world.restore(foreign.save())
    assert press(world, 1) == press(fork, 1)
