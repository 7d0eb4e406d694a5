"""Files of keys, logs that are such files again, and keys that are down."""

import json
from pathlib import Path

import pytest

from vpoet.errors import DataError
from vpoet.serve.keys import Held, Log, Turn, read_keys

KEYS = ("noop", "left", "right", "up right", "7")
TEXT = """
right 12
# nothing

left       # once
prompt  a robot  on snow # 1
up right 3
7
7 2
"""


def test_a_file_of_keys_is_read_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text(TEXT)
    script = read_keys(tmp_path / "keys.txt", KEYS)
    turns = [Turn(2, 12), Turn(1, 1), Turn(prompt="a robot  on snow # 1"), Turn(3, 3), Turn(4, 1), Turn(4, 2)]
    assert (list(script.turns), script.told, script.steps) == (turns, {}, 19)


def test_a_log_is_a_file_that_says_what_was_done(tmp_path: Path) -> None:
    log = Log(KEYS)
    for action in (2, 2, 2, 1):
        log.did(action)
    log.said("a robot\non snow")
    for action in (1, 3):
        log.did(action)
    assert log.lines() == ["right 3", "left 1", "prompt a robot on snow", "left 1", "up right 1"]
    (tmp_path / "film.mp4.json").write_text(json.dumps({"seed": 4, "prompt": "a hero", "keys": log.lines()}))
    script = read_keys(tmp_path / "film.mp4.json", KEYS)
    assert (script.steps, script.told) == (6, {"seed": 4, "prompt": "a hero"})
    assert script.turns[2] == Turn(prompt="a robot on snow")


def test_a_log_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpoet.serve.keys.RUNS", 3)
    log = Log(KEYS)
    for action in (1, 2, 1, 2, 1):
        assert len(log.lines()) <= 3
        log.did(action)
    assert log.full
    assert log.lines() == ["left 1", "right 1", "left 1"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("right 12\nfly 3", r"keys.txt, line 2: no action 'fly'; there are noop, left, right"),
        ("right many", r"line 1: 'many' is no number of steps"),
        ("right -3", r"line 1: '-3' is no number"),
        ("right 99999999999", "is no number of steps"),
        ("right ١٢", "is no number of steps"),
        ("", "0 steps; there must be 1 to"),
        ("right 0", "0 steps"),
        ("right 9999999", "9,999,999 steps; there must be 1 to 1,000,000"),
        ('{"keys": "right 3"}', "keys: a list of texts"),
        ('{"keys": [3]}', "keys: a list of texts"),
        ('{"seed": 3}', "it has no keys"),
        ('{"keys": ["right 1"], "seed": -1}', "a seed is an integer of 0 or more"),
        ('{"keys": ["right 1"], "prompt": 5}', "a prompt a text"),
        ('{"keys": ', "not valid JSON"),
        ("{" * 100_000, "JSON|nested"),
    ],
)
def test_what_is_no_file_of_keys_is_refused_with_its_line(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "keys.txt").write_text(content)
    with pytest.raises(DataError, match=told):
        read_keys(tmp_path / "keys.txt", KEYS)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_bytes(b"right 3\n\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_keys(tmp_path / "keys.txt", KEYS)


def test_the_last_key_that_went_down_counts_and_a_tap_is_not_lost() -> None:
    held = Held(idle=0)
    assert [held.take(), held.next] == [0, 0]
    held.press(2)
    assert [held.take(), held.take(), held.next] == [2, 2, 2]
    held.press(3)
    held.release(3)  # between two steps
    assert [held.take(), held.take()] == [3, 2]
    held.press(1)
    held.press(1)  # a keyboard repeats
    assert [held.take(), held.take()] == [1, 1]
    held.release(1)
    held.release(9)
    assert held.take() == 2
    held.release(2)
    assert held.take() == 0
    for key in (1, 2, 3):  # more taps than a player can mean: the oldest is not done late
        held.press(key)
        held.release(key)
    assert [held.take(), held.take(), held.take()] == [2, 3, 0]
    held.press(1)
    held.clear()
    assert held.take() == 0
