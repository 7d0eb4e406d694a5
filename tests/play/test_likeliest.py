"""Actions by Bayes' rule, against the full pass over a document for each action and outcome."""

import numpy as np
import pytest

from vpoet.arrays import Codes, Ints
from vpoet.errors import ShapeError
from vpoet.generate.asks.table import served
from vpoet.generate.model import Model
from vpoet.play.inverse import told
from vpoet.play.likeliest import IMPROBABLE, explains, likeliest
from vpoet.sequence.actions import START
from vpoet.sequence.arrangements import Given, Sample
from vpoet.worlds.playground.physics import ACTIONS

STEPS = 3


def nats(model: Model, codes: Codes, actions: Ints, outcomes: Ints) -> tuple[float, float]:
    """-log p of the last frame's outcome, and of its codes."""
    text = np.array(model.bundle.text.encode("a robot"), np.int32)
    sample = Sample(text, codes, 8, actions=actions, outcomes=outcomes)
    (each,) = model.token_nats([served(model.bundle, sample, "play", Given())])
    return float(each[-1 - codes[0].size]), float(each[-codes[0].size :].sum())


def test_each_action_is_the_one_that_explains_the_next_frame_best(toy: Model) -> None:
    """The first one by all ways to it; those after it, given what was read."""
    assert explains(toy)
    codes = toy.bundle.video.encode(np.random.default_rng(5).integers(0, 256, (STEPS + 1, 32, 32, 3), np.uint8))
    found = likeliest(toy, codes, "a robot")
    assert found.values.shape == found.nats.shape == (STEPS, 1)
    logs = np.full((6, 8), -np.inf)
    for action in range(6):
        for outcome in range(8):
            costs = nats(toy, codes[:2], np.array([[action + 1]], np.int32), np.array([outcome], np.int32))
            if outcome != START and np.exp(-costs[0]) > IMPROBABLE:
                logs[action, outcome] = -sum(costs)
    each = np.logaddexp.reduce(logs, axis=1)
    assert found.values[0, 0] == each.argmax() + 1
    np.testing.assert_allclose(found.nats[0, 0], np.logaddexp.reduce(each) - each.max(), atol=1e-3)
    near = [action + 1 for action in range(6) if action != each.argmax() and each[action] > each.max() - np.log(2)]
    assert found.alike[0] == near
    assert told(found)[0]["or"] == [ACTIONS[action - 1] for action in near]
    again = likeliest(toy, codes, "a robot")
    assert again.values.tolist() == found.values.tolist()
    assert again.nats.tolist() == found.nats.tolist()
    assert likeliest(toy, codes[:3], "a robot").values.tolist() == found.values[:2].tolist()  # the past alone


def test_a_longer_video_than_a_document_is_read_to_its_end(toy: Model) -> None:
    """1,600 tokens hold 87 frames of 18 tokens, and this model has no window."""
    assert not toy.bundle.config.window
    codes = toy.bundle.video.encode(np.random.default_rng(6).integers(0, 256, (92, 32, 32, 3), np.uint8))
    assert likeliest(toy, codes).values.shape == (91, 1)
    with pytest.raises(ShapeError, match="more than the 1600 tokens"):
        likeliest(toy, codes[:2], "robot " * 1000)
    with pytest.raises(ShapeError, match="a single frame"):
        likeliest(toy, codes[:1])
