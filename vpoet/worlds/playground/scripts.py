"""A player of the playground who goes for the coin."""

import numpy as np

from vpoet.worlds.playground.levels import COIN, Level
from vpoet.worlds.playground.physics import ACTIONS, CLIMBS, GRASP, STANDS, WALK, Body
from vpoet.worlds.playground.stepped import Playground

_NOOP, _LEFT, _RIGHT, _JUMP, _CLIMB, _DOWN = range(len(ACTIONS))
_WANDERS = 0.08
"""Chance, at each step, to press something else for a while: what is always right shows only one way to go."""
_LONGEST = 4


class Seeker:
    """Presses keys; what is random about it is drawn from ``random``."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._key = self._left = 0

    def __call__(self, world: Playground) -> int:
        if not self._left and self._random.random() < _WANDERS:
            self._left = int(self._random.integers(1, _LONGEST + 1))
            self._key = int(self._random.integers(len(ACTIONS)))
        if self._left:
            self._left -= 1
            return self._key
        return seek(world.body, world.level)


def seek(body: Body, level: Level) -> int:
    """The action that leads to the coin: up by the ladder to the high platform and by a jump to the low one, down
    through what one stands on, over water by a jump."""
    x, y = level.coins[body.coin]
    below = y + COIN  # what the coin lies above
    low, high = level.platforms
    if body.doing == CLIMBS:
        return _CLIMB if below == high.top else _DOWN
    if body.y > below and below == high.top:
        goal, there, then = level.ladder[0], abs(body.x - level.ladder[0]) <= GRASP, _CLIMB
    elif body.y > below:
        dry = [place for place in range(low.left, low.right + 1) if not level.over_water(place)]
        goal, there, then = min(dry, key=lambda place: abs(place - body.x)), low.carries(body.x), _JUMP
    else:
        goal, there, then = x, body.y < below and abs(body.x - x) < WALK, _DOWN
    if body.doing == STANDS and there:
        return then
    if body.doing != STANDS and below == low.top:
        goal = x
    if abs(goal - body.x) < WALK - 1:
        return _NOOP
    way = -WALK if goal < body.x else WALK
    if body.doing == STANDS and body.y == level.floor and level.over_water(body.x + way):
        return _JUMP
    return _LEFT if way < 0 else _RIGHT
