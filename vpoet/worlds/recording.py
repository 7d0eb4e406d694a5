"""Recordings: what was done in a world that is stepped, and what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from vpoet.arrays import Frames

Act = TypeVar("Act", int, list[float])
"""An index, or a vector."""
LONGEST_HOLD = 12
"""Steps for which a key is held at most."""


@dataclass(frozen=True, eq=False)
class Recording(Generic[Act]):
    """``actions[t]`` leads from frame t to frame t + 1, with ``rewards[t]``; only the last step can be the end."""

    frames: Frames
    """uint8 [T, H, W, 3]."""
    actions: list[Act]
    rewards: list[float]
    ended: bool

    def fields(self) -> dict[str, Any]:
        """``frames``, ``actions`` and ``outcomes`` of a clip's raw json."""
        ends = [False] * len(self.actions)
        if self.ended:
            ends[-1] = True
        return {
            "frames": len(self.frames),
            "actions": self.actions,
            "outcomes": {"reward": self.rewards, "end": ends},
        }


def record(
    first: Frames, step: Callable[[Act], tuple[Frames, float, bool]], act: Callable[[], Act], frames: int
) -> Recording[Act]:
    """Play on from the ``first`` frame: ``frames`` frames, or fewer if the end comes before."""
    shown, actions, rewards = [first], list[Act](), list[float]()
    ended = False
    while len(shown) < frames and not ended:
        action = act()
        frame, reward, ended = step(action)
        shown.append(frame)
        actions.append(action)
        rewards.append(float(reward))
    return Recording(np.stack(shown), actions, rewards, ended)


class Sticky(Generic[Act]):
    """Random keys, each held for a while; short whiles are likelier, so that keys change often (mean 3.9 steps)."""

    def __init__(self, draw: Callable[[], Act], random: np.random.Generator) -> None:
        """``draw`` gives a new key each time."""
        self._draw: Callable[[], Act] = draw
        self._random = random
        weights = 1 / np.arange(1, LONGEST_HOLD + 1)
        self._odds = weights / weights.sum()
        self._left = 0
        self._held: Act | None = None

    def __call__(self) -> Act:
        if self._held is None or not self._left:
            self._held = self._draw()
            self._left = int(self._random.choice(len(self._odds), p=self._odds)) + 1
        self._left -= 1
        return self._held
