"""What can be done: names and bounds are checked, actions and their values are inverse, outcomes have their classes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import ConfigError, DataError
from vpoet.sequence.actions import BINS, OUTCOMES, START, UNKNOWN, ActionSpace, outcome_values
from vpoet.sequence.vocabulary import Vocabulary

KEYS = ActionSpace(names=["noop", "left", "right"])
PUSH = ActionSpace(low=[-1.0, 0.0], high=[1.0, 512.0])


def test_indices_and_names_become_values_and_indices_again() -> None:
    values = KEYS.values([0, "right", np.int64(1)])
    assert values.tolist() == [[1], [3], [2]]  # 0 is no action at all
    assert KEYS.actions(values) == [0, 2, 1]
    assert (KEYS.arity, dict(KEYS.ranges)) == (1, {"actions": 4, "outcomes": 8})


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 512)), max_size=5))
def test_a_vector_comes_back_within_half_a_bin(vectors: list[tuple[float, float]]) -> None:
    values = PUSH.values([list(vector) for vector in vectors])
    assert values.shape == (len(vectors), 2)
    assert ((values >= 1) & (values <= BINS)).all()
    found = np.array(PUSH.actions(values))
    wanted = np.array(vectors).reshape(-1, 2)
    assert (np.abs(found - wanted) <= np.array([2, 512]) / BINS / 2 + 1e-9).all()
    assert np.array_equal(PUSH.values(found), values), "the middle of a bin is in it"


def test_the_bounds_are_in_the_first_and_the_last_bin() -> None:
    assert PUSH.values([[-1, 0], [1, 512]]).tolist() == [[1, 1], [BINS, BINS]]


@pytest.mark.parametrize(
    ("space", "actions", "message"),
    [
        (KEYS, [0, 3], "step 1: no action 3; there are 0 noop, 1 left, 2 right"),
        (KEYS, ["up"], "step 0: no action 'up'"),
        (KEYS, [-1], "no action -1"),
        (KEYS, [True], "no action True"),
        (KEYS, [None], "no action None"),
        (KEYS, [[0]], r"no action \[0\]"),
        (PUSH, [[0, 1], [0, 513.0]], r"step 1: \[0, 513.0\] is outside .* widen action_space"),
        (PUSH, [[0.0]], "step 0: an action is a list of 2 numbers"),
        (PUSH, [0], "an action is a list of 2 numbers"),
        (PUSH, [[0.0, None]], "an action is a list of 2 numbers"),
        (PUSH, [[0.0, float("nan")]], "an action is a list of 2 numbers"),
        (PUSH, [[0.0, 10**400]], "an action is a list of 2 numbers"),
    ],
)
def test_an_action_that_is_none_is_named_with_its_step(space: ActionSpace, actions: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        space.values(actions)


@pytest.mark.parametrize("space", [KEYS, PUSH])
def test_what_is_told_of_a_space_is_that_space(space: ActionSpace) -> None:
    assert ActionSpace.of(space.told()) == space


@pytest.mark.parametrize(
    "told",
    [
        None, [], {}, {"names": []}, {"names": "ab"}, {"names": ["a", "a"]}, {"names": ["a", 1]}, {"keys": ["a"]},
        {"low": [0.0]}, {"low": [0.0], "high": [0.0]}, {"low": [0.0], "high": [1.0, 2.0]}, {"low": [0], "high": ["1"]},
        {"names": ["a"], "low": [0.0], "high": [1.0]}, {"low": [0.0], "high": [None]},
    ],
)  # fmt: skip
def test_what_is_no_space_is_refused(told: Any) -> None:
    with pytest.raises(DataError, match="action_space"):
        ActionSpace.of(told)


def test_a_config_of_no_space_is_refused() -> None:
    with pytest.raises(ConfigError, match="action_space: give names, or as many bounds"):
        ActionSpace()


def test_an_outcome_is_the_sign_of_the_reward_and_whether_it_was_the_end() -> None:
    values = outcome_values([-0.5, 0, 3, 0.0], [False, False, False, True])
    assert [OUTCOMES[value] for value in values] == [
        "reward negative", "reward none", "reward positive", "reward none, end",
    ]  # fmt: skip
    assert (OUTCOMES[START], OUTCOMES[UNKNOWN], len(set(OUTCOMES))) == ("start", "unknown", 8)
    for rewards, ends in (([None], [False]), ([0.0], [0]), (["1"], [True])):
        with pytest.raises(DataError, match="outcomes: a reward is a number"):
            outcome_values(rewards, ends)


def test_play_appends_its_ranges_and_leaves_the_others_alone() -> None:
    plain = Vocabulary(text=20, visual=(3, 4), text_hash="text", visual_hash="visual")
    played = KEYS.vocabulary(plain)
    assert {name: played.ranges[name] for name in plain.ranges} == plain.ranges
    assert played.appended == (("actions", 4), ("outcomes", 8))
