"""Commands: what is asked for is what the recording's player did next, and is told as done when it is."""

from itertools import islice

import numpy as np
import pytest

from vpoet import worlds
from vpoet.errors import DataError
from vpoet.generate.model import Model
from vpoet.play.commands import HOLD, commands, obedient, obeyed
from vpoet.play.control import Episode
from vpoet.play.futures import carried_out
from vpoet.play.reaching import AHEAD, Start, attempt, told_at

WORLD = worlds.find("playground")
CLIPS, REAL = WORLD(32, 32, 8.0, AHEAD + 1), worlds.stepped("world:playground", 32, 32, 8.0)
ASKED = [start for start in islice(commands(CLIPS), 12) if start]


def act(start: Start, actions: list[int]) -> Episode:
    REAL.restore(start.state)
    return Episode(start.frame, [], [carried_out(REAL, np.array(actions))])


def test_the_recordings_player_carries_every_command_out_and_one_who_does_something_else_does_not() -> None:
    assert len(ASKED) >= 8
    for start in ASKED:
        frames, told = CLIPS.clip(start.seed)
        found = obeyed(REAL, CLIPS.doing, start, act(start, told["actions"]))
        assert found["reached"], start.text
        doings = [CLIPS.doing(told_at(told["truth"], at)) for at in range(len(frames))]
        assert doings[found["steps"]] == doings[found["steps"] - HOLD + 1] == start.text != doings[0]
        short = told["actions"][: found["steps"] - 1]
        assert not obeyed(REAL, CLIPS.doing, start, act(start, short) if short else Episode(start.frame, [], []))[
            "reached"
        ]
    assert len({start.text.split(" ", 2)[2] for start in ASKED}) >= 3


def test_a_world_without_words_for_what_is_done_is_refused() -> None:
    with pytest.raises(DataError, match="no words for what is done"):
        worlds.find("platformer").doing({})


def test_those_who_are_told_are_those_that_the_model_serves_and_they_act_the_same_again(toy: Model) -> None:
    assert list(obedient(REAL, None)) == ["random keys"]
    players = obedient(REAL, toy)
    policies = ["model, policy, told nothing", "model, policy", "model, policy, guided"]
    assert list(players) == ["random keys", *policies, "model, actions of an imagined video"]
    for play in players.values():
        one, two = (attempt(REAL, ASKED[0], play, 0) for _ in range(2))
        assert 1 <= len(one.seen.actions) <= AHEAD
        assert one.seen.actions.tolist() == two.seen.actions.tolist()
