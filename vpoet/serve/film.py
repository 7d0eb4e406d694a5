"""Films of play, each with a record of its keys from which it can be made again."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from vpoet.arrays import Frames
from vpoet.media.mp4 import open_mp4
from vpoet.serve.keys import Log, Script
from vpoet.serve.worlds import Shown, Worlds

SCALE = 4
"""Pixels of a film for each of a frame: players blur what they enlarge."""
MOST = 36_000
"""Frames of a film that is held in memory: ten minutes at 60 a second."""


def played(worlds: Worlds, script: Script, log: Log, seed: int, prompt: str) -> Iterator[Shown]:
    """The first frame and that of each step of a script, up to the end of all worlds; ``log`` notes what was done."""
    yield worlds.begin(seed, prompt)
    for turn in script.turns:
        if turn.prompt is not None:
            worlds.prompt(turn.prompt)
            log.said(turn.prompt)
        for _ in range(turn.steps):
            if worlds.over:
                return
            log.did(turn.action)
            yield worlds.step(turn.action)


def record(log: Log, **told: Any) -> dict[str, Any]:
    """What lies beside a film: ``told`` of its game, and its keys from the beginning on."""
    return {**told, "keys": log.lines()}


class Tape:
    """A film in memory."""

    def __init__(self, fps: float, first: int) -> None:
        self.first = first
        """Number of its first frame in the game."""
        self.frames = 0
        self._file, self._open = io.BytesIO(), ExitStack()
        self._add = self._open.enter_context(open_mp4(self._file, fps))

    @property
    def full(self) -> bool:
        return self.frames >= MOST

    def add(self, picture: Frames) -> None:
        """A frame uint8 [H, W, 3], of the size of those before."""
        self._add(picture)
        self.frames += 1

    def finish(self) -> bytes:
        """The .mp4. DataError: it has no frame."""
        self._open.close()
        return self._file.getvalue()
