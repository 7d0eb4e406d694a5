"""Frames made ahead are the frames."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vpoet
from vpoet.errors import DataError
from vpoet.generate.ahead import Ahead
from vpoet.generate.environment import Session
from vpoet.sequence.actions import ActionSpace

HELD = [1, 1, 1, 2, 2, 0, 1, 1, 1, 1, 0, 2]
"""What is pressed; ahead, the key of the step before is taken to be held."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("ahead")
    settings = {"actions": ActionSpace(names=["noop", "left", "right"]), "tasks": ["play"], "window": 3}
    return make_bundle(folder, depth=2, time_stride=1, length=300, height=16, width=16, **settings)


def state(session: Session) -> list[np.ndarray]:
    return [session.frame, session.nats, session.codes]


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_frames_made_ahead_for_the_held_key_are_the_frames_bit_for_bit(bundle: Path, guidance: float) -> None:
    model = vpoet.load(bundle, device="cpu")
    wanted = model.play("a robot", 3, guidance=guidance)
    ahead = Ahead(model.play("a robot", 3, guidance=guidance))
    taken = 0
    for last, key in zip([0, *HELD], HELD, strict=False):
        for one in (wanted, ahead.session):
            one.outcome = "unknown"  # an untrained model says at random that this is the end
        ahead.make(last)
        before = ahead.session
        frame, reward, end = ahead.step(key)
        again = wanted.step(key)
        assert (frame.tobytes(), reward, end) == (again[0].tobytes(), *again[1:])
        assert all(np.array_equal(a, b) for a, b in zip(state(ahead.session), state(wanted), strict=True))
        assert (ahead.session is before) == (last != key)
        taken += last == key
    assert 0 < taken < len(HELD)


def test_what_was_made_ahead_is_forgotten_when_the_prompt_changes(bundle: Path) -> None:
    model = vpoet.load(bundle, device="cpu")
    wanted, ahead = model.play("a robot", 3), Ahead(model.play("a robot", 3))
    ahead.make(1)
    ahead.forget()
    for one in (wanted, ahead.session):
        one.prompt("a hero jumps on sand")
    ahead.make(1)
    assert np.array_equal(ahead.step(1)[0], wanted.step(1)[0])
    assert np.array_equal(ahead.session.nats, wanted.nats)


def test_an_action_that_there_is_not_is_refused_ahead_too(bundle: Path) -> None:
    ahead = Ahead(vpoet.load(bundle, device="cpu").play("a robot", 3))
    with pytest.raises(DataError, match="no action 9"):
        ahead.make(9)
    assert ahead.step(1)[0].shape == (16, 16, 3)
