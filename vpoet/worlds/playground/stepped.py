"""The playground: a platform game that answers. One walks, jumps and climbs to coins, and should not fall into water.

A step is a frame. A coin that is touched gives a reward of 1 and appears at the next of its places
(`vpoet.worlds.playground.levels`): nothing is left to chance once a level has begun. The end is reached by falling into
the water, and in no other way.
"""

import struct
from dataclasses import astuple
from functools import cached_property
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.worlds.platformer.scenery import CHARACTERS, GROUNDS, SKIES
from vpoet.worlds.playground.captions import captions, understood
from vpoet.worlds.playground.drawing import Painter, pose
from vpoet.worlds.playground.levels import Level, levels
from vpoet.worlds.playground.physics import ACTIONS, Body, advance, touches
from vpoet.worlds.playground.sight import Judge, action

_STATE = struct.Struct("<8s5i8i")
_MARK = b"vpoet-p2"
_SMALLEST = 32


class Playground:
    """A `vpoet.worlds.world.SteppedWorld` at one size."""

    actions: tuple[str, ...] = ACTIONS

    def __init__(self, height: int = 64, width: int = 64, fps: float = 8.0) -> None:
        """``fps`` is the rate at which it is shown. DataError for a picture that is too small, and no rate."""
        if min(height, width) < _SMALLEST or not fps > 0:
            raise DataError(
                f"playground: {height}x{width} at {fps} fps; it draws {_SMALLEST} pixels or more each way, at a rate "
                "above 0"
            )
        self.fps = fps
        self._size = height, width
        self._painter = Painter(height, width)
        self._levels = levels(self._painter.wide, self._painter.floor)
        self.reset(0)

    def reset(self, seed: int, prompt: str = "") -> Frames:
        """DataError: a seed below 0, or a prompt that says neither who nor where."""
        if seed < 0:
            raise DataError(f"playground: a seed is 0 or more, not {seed}")
        self._scene = scene(seed) | understood(prompt)
        random = np.random.default_rng((seed, 1))
        self._number = int(random.integers(len(self._levels)))
        starts = self.level.starts
        x, y = starts[int(random.integers(len(starts)))]
        self.body = Body(x, y, faces_left=bool(random.integers(2)))
        away = [number for number, coin in enumerate(self.level.coins) if not touches(self.body, coin)]
        self.body.coin = away[int(random.integers(len(away)))]
        return self._frame()

    @property
    def caption(self) -> str:
        """Who plays where, in words that `reset` understands."""
        return captions(self.truth)[1]

    @property
    def level(self) -> Level:
        return self._levels[self._number]

    def step(self, action: int) -> tuple[Frames, float, bool]:
        if self.body.ended:
            raise DataError("playground: the end is reached; reset or restore")
        if not 0 <= action < len(ACTIONS):
            raise DataError(f"playground: no action {action}; there are {', '.join(ACTIONS)}, from 0 on")
        reward = advance(self.body, self.level, action)
        return self._frame(), reward, self.body.ended

    def save(self) -> bytes:
        who, ground, sky = (list(names).index(name) for names, name in zip(_NAMES, self._scene.values(), strict=True))
        painter = self._painter
        state = (who, ground, sky, self._number, *map(int, astuple(self.body)))
        return _STATE.pack(_MARK, painter.wide, *state)

    def restore(self, state: bytes) -> None:
        if len(state) != _STATE.size or not state.startswith(_MARK):
            raise DataError("this is no saved state of the playground")
        _, wide, who, ground, sky, number, *body = _STATE.unpack(state)
        if wide != self._painter.wide:
            raise DataError(f"a state of a playground {wide} units wide; this one is {self._painter.wide}")
        self._scene = dict(
            zip(_KEYS, (list(n)[i] for n, i in zip(_NAMES, (who, ground, sky), strict=True)), strict=True)
        )
        self._number = number
        x, y, across, down, doing, left, coin, ended = body
        self.body = Body(x, y, across, down, doing, bool(left), coin, bool(ended))

    @property
    def truth(self) -> dict[str, Any]:
        """``who``, ``ground`` and ``sky``; ``level``, by number; ``x`` and ``y`` of the feet and ``coin``, the middle
        of the coin, in units (pixels at 64x64); ``action``: stand, walk, jump, fall or climb; ``facing``: left or
        right, on the ladder right."""
        name, left = pose(self.body)
        return {
            **self._scene,
            "level": self._number,
            "x": self.body.x,
            "y": self.body.y,
            "action": action(name),
            "facing": "left" if left else "right",
            "coin": list(self.level.coins[self.body.coin]),
        }

    @property
    def box(self) -> tuple[int, int, int, int]:
        """What the drawing covers of the figure: (left, top, right, bottom) in pixels, half open."""
        return self._painter.box(self._scene["who"], self.body)

    def see(self, frames: Frames) -> list[dict[str, Any]]:
        """As `truth`; where nobody is to be seen ``who`` is "" and so are the place, action and facing of nobody; where
        there is no coin it is an empty list. ShapeError for frames of another size."""
        return self._judge.look(frames)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self._painter, self._levels, self._size)

    def _frame(self) -> Frames:
        return self._painter.frame(self._scene, self.level, self.body)


_KEYS = ("who", "ground", "sky")
_NAMES = tuple(CHARACTERS), GROUNDS, tuple(SKIES)


def scene(seed: int) -> dict[str, str]:
    """Who plays where under which sky, where no prompt says it."""
    random = np.random.default_rng((seed, 0))
    return {key: str(names[int(random.integers(len(names)))]) for key, names in zip(_KEYS, _NAMES, strict=True)}
