"""Keys: those of a file, those that were pressed, and those that are down right now.

A file has a line for each key and how many steps it is held; words after ``prompt`` change the prompt from there on.

    right 12
    jump              # once
    prompt a robot on snow
    noop 30
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vpoet.data.fields import parse_json
from vpoet.errors import DataError
from vpoet.files import open_file
from vpoet.serve.worlds import MODEL, VIEWS

PROMPT = "prompt"
LONGEST = 1_000_000
"""Steps of a file at most."""
RUNS = 100_000
"""Keys, each however long, that a log remembers."""
SLOWEST, FASTEST = 0.5, 240
"""Frames a second of a film."""
_TAPS = 2
"""More of them would be done late."""
_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class Turn:
    """A key that is held, or a prompt that is told before the next step."""

    action: int = 0
    steps: int = 0
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """What a file says."""

    turns: tuple[Turn, ...]
    told: dict[str, Any]
    """What else a record says of its game, as ``seed``, ``prompt``, ``view`` and ``fps``; empty for a plain file."""

    @property
    def steps(self) -> int:
        return sum(turn.steps for turn in self.turns)


def read_keys(path: Path, actions: Sequence[str]) -> Script:
    """A file of keys, or the record beside a film of play (`vpoet.serve.record`), which is played again. DataError
    names the line that is wrong."""
    with open_file(path) as file:
        data = file.read(_BYTES + 1)
    if len(data) > _BYTES:
        raise DataError(f"{path}: larger than {_BYTES:,} bytes")
    told: dict[str, Any] = {}
    try:
        text = data.decode()
        if text.lstrip().startswith("{"):
            told = _record(path, data)
            lines = told.pop("keys")
        else:
            lines = text.splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8") from None
    except KeyError:
        raise DataError(f"{path}: not a record of play: it has no keys") from None
    turns = []
    for number, line in enumerate(lines, 1):
        try:
            turns += list(_turn(line, actions))
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
    script = Script(tuple(turns), told)
    if not 0 < script.steps <= LONGEST:
        raise DataError(f"{path}: {script.steps:,} steps; there must be 1 to {LONGEST:,}")
    return script


def _record(path: Path, data: bytes) -> dict[str, Any]:
    try:
        told = parse_json(data)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    lines = told["keys"] if isinstance(told, dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise DataError(f"{path}: keys: a list of texts, as `right 12`")
    seed, prompt = told.get("seed", 0), told.get("prompt", "")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0 or not isinstance(prompt, str):
        raise DataError(f"{path}: a seed is an integer of 0 or more, and a prompt a text")
    if told.get("view", MODEL) not in VIEWS:
        raise DataError(f"{path}: view: there are {', '.join(VIEWS)}")
    if not is_rate(told.get("fps", SLOWEST)):
        raise DataError(f"{path}: fps: {SLOWEST} to {FASTEST}")
    return dict(told)


def is_rate(fps: object) -> bool:
    """Whether a film can have so many frames a second."""
    return isinstance(fps, int | float) and SLOWEST <= fps <= FASTEST


def _turn(line: str, actions: Sequence[str]) -> Iterator[Turn]:
    name, *rest = line.split(maxsplit=1) or [""]
    if name == PROMPT and rest:
        yield Turn(prompt=rest[0].strip())
        return
    words = line.partition("#")[0].split()
    if not words:
        return
    name, count = (words[0], "1") if len(words) == 1 else (" ".join(words[:-1]), words[-1])
    if not (count.isascii() and count.isdigit() and 0 < len(count) < 8):
        raise DataError(f"{count[:40]!r} is no number of steps")
    if name not in actions:
        raise DataError(f"no action {name[:40]!r}; there are {', '.join(actions)}")
    yield Turn(action=actions.index(name), steps=int(count))


class Log:
    """What was done since the beginning, as the lines of a file."""

    def __init__(self, actions: Sequence[str]) -> None:
        self._actions = actions
        self._runs: list[tuple[str, int]] = []
        """A key and how long; a prompt has 0."""
        self.full = False
        """Whether there was no room for something: it and what followed are not in it."""

    def did(self, action: int) -> None:
        name = self._actions[action]
        if not self.full and self._runs and self._runs[-1][1] and self._runs[-1][0] == name:
            self._runs[-1] = name, self._runs[-1][1] + 1
        else:
            self._append(name, 1)

    def said(self, prompt: str) -> None:
        self._append(prompt, 0)

    def _append(self, name: str, steps: int) -> None:
        self.full = self.full or len(self._runs) >= RUNS
        if not self.full:
            self._runs.append((name, steps))

    def lines(self) -> list[str]:
        return [f"{name} {steps}" if steps else f"{PROMPT} {' '.join(name.split())}" for name, steps in self._runs]


@dataclass
class Held:
    """The keys that are down, and taps that no step has heeded yet: the last one that went down counts."""

    idle: int
    down: list[int] = field(default_factory=list)
    taps: deque[int] = field(default_factory=lambda: deque(maxlen=_TAPS))

    def press(self, action: int) -> None:
        if action not in self.down:
            self.down.append(action)
            self.taps.append(action)

    def release(self, action: int) -> None:
        if action in self.down:
            self.down.remove(action)

    @property
    def next(self) -> int:
        """What `take` would give."""
        return self.taps[0] if self.taps else self.down[-1] if self.down else self.idle

    def take(self) -> int:
        """The key of the next step: a tap between two steps is done in one of them, too."""
        action = self.next
        if self.taps:
            self.taps.popleft()
        return action

    def clear(self) -> None:
        self.down.clear()
        self.taps.clear()
