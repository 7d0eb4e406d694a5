"""The learned world: driven by the code that drives any stepped world, and repeatable."""

from typing import Any

import numpy as np
import pytest
import torch

from vpoet.arrays import Frames
from vpoet.errors import DataError, PromptError
from vpoet.generate.decoder import Decoding
from vpoet.generate.environment import Game, Session
from vpoet.generate.play_decoder import Scene
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.vocabulary import Vocabulary

SPACE = ActionSpace(names=["left", "right", "jump"])


def session(**options: Any) -> Session:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    transformer = Transformer(config, SPACE.vocabulary(Vocabulary(30, (6, 4), "t", "v"))).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        parameter.mul_(4 if parameter.dim() > 1 else 1)
    decoding = Decoding(
        transformer=transformer, attention=backend("sdpa", torch.device("cpu"), torch.float32), window=3
    )
    game = Game(
        space=SPACE,
        scene=Scene(fps=8, grid=(2, 2), actions=1),
        length=200,
        encode=lambda text: [len(word) for word in text.split()],
        show=lambda codes, past: np.repeat(codes[..., None], 3, axis=3).astype(np.uint8),
    )
    return Session(decoding, game, **options)


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
    played = session(sampling=Sampling(temperature=1.5))
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
