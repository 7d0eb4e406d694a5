"""The real and the learned world under one key, and films of them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.serve.film import Tape, played, record
from vpoet.serve.keys import Log, Script, Turn
from vpoet.serve.worlds import Worlds, side_by_side
from vpoet.worlds import stepped

KEYS = (2, 2, 3, 2, 1, 0)


def test_both_begin_with_the_real_frame_and_the_real_one_is_the_simulator(open_worlds: Callable[..., Worlds]) -> None:
    worlds, real = open_worlds(), stepped("world:playground", 32, 32, 10)
    assert (worlds.shows, worlds.source, worlds.idle) == (("real", "model"), "world:playground", 0)
    first = worlds.begin(4, "a robot on sand")
    assert np.array_equal(first.pictures[0], real.reset(4, "a robot on sand"))
    assert worlds.told.startswith("a robot on sand")
    alone = open_worlds("none")
    shown = alone.session.begin(4, worlds.told, first.pictures[0][None])
    assert np.array_equal(first.pictures[1], shown)
    for key in KEYS:
        both, frame = worlds.step(key), real.step(key)
        assert np.array_equal(both.pictures[0], frame[0])
        if not both.ended[1]:
            assert np.array_equal(both.pictures[1], alone.session.step(key)[0])
    assert both.number == len(KEYS)


def test_the_frames_are_the_same_whether_made_ahead_or_not(open_worlds: Callable[..., Worlds]) -> None:
    one, other = open_worlds("none"), open_worlds("none")
    assert one.shows == ("model",)
    for seed in range(3):
        one.begin(seed, "a robot")
        other.begin(seed, "a robot")
        for key in KEYS:
            if one.over:
                break
            one.ahead(2)
            found, wanted = one.step(key), other.step(key)
            assert np.array_equal(found.pictures[0], wanted.pictures[0])
            assert (found.nats, found.ended) == (wanted.nats, wanted.ended)


def test_a_world_that_has_ended_stays_as_it_is(open_worlds: Callable[..., Worlds]) -> None:
    worlds = open_worlds()
    worlds.begin(0, "")
    for _ in range(200):
        if worlds.over:
            break
        before = worlds.number
        shown = worlds.step(0)
    assert shown.ended[1]  # an untrained model says so soon; who stands in the playground stays alive
    assert not worlds.over
    later = worlds.step(0)
    assert np.array_equal(later.pictures[1], shown.pictures[1])
    assert later.number == before + 2
    worlds.ahead(0)  # nothing to make


def test_worlds_that_do_not_go_together_are_refused(open_worlds: Callable[..., Worlds]) -> None:
    for name, told in (
        ("world:platformer", "cannot act"),
        ("world:nowhere", "no such world"),
        ("/etc", "world:NAME"),
    ):
        with pytest.raises(DataError, match=told):
            open_worlds(name)
    assert open_worlds("auto").source == "world:playground"
    worlds = open_worlds("none")
    shown = worlds.begin(0, "")
    with pytest.raises(DataError, match="there is no real world here to show"):
        side_by_side(shown, worlds.shows, "real", 1)


def test_a_view_is_enlarged_by_whole_pixels(open_worlds: Callable[..., Worlds]) -> None:
    worlds = open_worlds()
    shown = worlds.begin(1, "")
    both = side_by_side(shown, worlds.shows, "both", 3)
    assert both.shape == (96, 3 * (32 + 2 + 32), 3)
    for view, at in (("real", both[:, :96]), ("model", both[:, -96:])):
        one = side_by_side(shown, worlds.shows, view, 3)
        assert np.array_equal(one, at)
        assert np.array_equal(one[1::3, 1::3], shown.pictures[worlds.shows.index(view)])


def test_a_script_is_played_and_its_record_plays_it_again(open_worlds: Callable[..., Worlds], tmp_path: Path) -> None:
    script, log = Script((Turn(2, 3), Turn(prompt="a hero on snow"), Turn(1, 2)), {}), Log(open_worlds().actions)
    shown = list(played(open_worlds(), script, log, 5, "a robot"))
    assert [each.number for each in shown] == list(range(6))
    told = record(log, seed=5)
    assert told == {"seed": 5, "keys": ["right 3", "prompt a hero on snow", "left 2"]}
    again = list(played(open_worlds(), script, Log(open_worlds().actions), 5, "a robot"))
    assert all(np.array_equal(a.pictures, b.pictures) for a, b in zip(shown, again, strict=True))
    assert json.dumps(told)


def test_a_tape_is_a_film_and_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpoet.serve.film.MOST", 3)
    tape = Tape(10, 4)
    with pytest.raises(DataError, match="one frame at least"):
        Tape(10, 0).finish()
    for value in range(3):
        assert not tape.full
        tape.add(np.full((16, 16, 3), 80 * value, np.uint8))
    assert tape.full
    assert tape.finish()[4:8] == b"ftyp"
