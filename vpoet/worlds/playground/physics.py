"""What an action does in the playground: integers alone, so that the same actions give the same states everywhere.

Lengths are in units, speeds in units a step, y downwards. A step is a frame, whatever the rate it is shown at.

All ways are multiples of 4 across and of 2 down, as in games for consoles whose pictures were made of tiles: of a cell
of 8x8 pixels a figure can stand at 8 places, not at 64. A model of the world has so many pictures fewer to tell apart.
"""

from dataclasses import dataclass

from vpoet.worlds.playground.levels import Level

ACTIONS = ("noop", "left", "right", "jump", "climb", "down")
_LEFT, _RIGHT, _JUMP, _CLIMB, _DOWN = range(1, 6)

STANDS, FLIES, CLIMBS = range(3)
"""What a figure does: it stands or walks on something, is in the air, or on the ladder."""
WALK, RUNG = 4, 4
"""Ways of a step on foot and on the ladder."""
LEAP, GRAVITY, FASTEST = 8, 2, 8
"""A jump rises 8 + 6 + 4 + 2 units, six more than a platform is high, and lands after nine steps."""
MARGIN = 8
"""No figure comes nearer to the left or right edge."""
HEAD = 18
"""Nor do its feet come nearer to the upper one."""
DROWNED = 8
"""So far below the floor the end is reached."""
_REACH, _ABOVE, _BELOW = 7, 16, 4
"""A coin is taken within these of a figure's feet: sideways, upwards, downwards."""
GRASP = 4
"""Of the ladder's middle, sideways."""


@dataclass(slots=True)
class Body:
    """All that changes from step to step."""

    x: int
    """Middle of the feet."""
    y: int
    """Lower edge of the feet."""
    across: int = 0
    """Speed to the right."""
    down: int = 0
    """Speed downwards, in the air."""
    doing: int = STANDS
    faces_left: bool = False
    coin: int = 0
    """Which of the level's places the coin is at."""
    ended: bool = False


def advance(body: Body, level: Level, action: int) -> float:
    """One step; the reward, 1 for a coin that is taken.

    On foot, `left` and `right` walk; `jump` keeps the speed of the walk; `climb` and `down` take the ladder where there
    is one, and `down` drops through a platform. In the air `left` and `right` steer and `climb` grasps the ladder. On
    the ladder `left`, `right` and `jump` let go. Whatever makes no sense does nothing. Who falls into the water has
    reached the end.
    """
    {STANDS: _on_foot, FLIES: _in_the_air, CLIMBS: _on_the_ladder}[body.doing](body, level, action)
    body.x = min(max(body.x, MARGIN), level.wide - MARGIN)
    if body.doing == STANDS and not _carried(body, level):
        body.doing, body.down = FLIES, GRAVITY
    if body.y > level.floor and level.water is not None:
        body.x = min(max(body.x, level.water[0] + GRASP), level.water[1] - GRASP)
        body.ended = body.y >= level.floor + DROWNED
    if touches(body, level.coins[body.coin]):
        body.coin = (body.coin + 1) % len(level.coins)
        return 1.0
    return 0.0


def touches(body: Body, coin: tuple[int, int]) -> bool:
    return abs(body.x - coin[0]) <= _REACH and body.y - _ABOVE <= coin[1] <= body.y + _BELOW


def _steer(body: Body, action: int) -> bool:
    """Left or right, if the action says so."""
    if action in (_LEFT, _RIGHT):
        body.faces_left = action == _LEFT
        body.across = -WALK if body.faces_left else WALK
    return action in (_LEFT, _RIGHT)


def _on_foot(body: Body, level: Level, action: int) -> None:
    if action == _JUMP:
        body.doing, body.down = FLIES, -LEAP
        _fly(body, level)
    elif action == _CLIMB and _grasps(body, level) and body.y > level.ladder[1]:
        _climb(body, level, -RUNG)
    elif action == _DOWN and _grasps(body, level) and level.ladder[1] <= body.y < level.floor:
        _climb(body, level, RUNG)
    elif action == _DOWN and body.y < level.floor:
        body.doing, body.across, body.down = FLIES, 0, GRAVITY
        body.y += GRAVITY  # below the edge, which no longer catches it
    else:
        body.across = body.across if _steer(body, action) else 0
        body.x += body.across


def _in_the_air(body: Body, level: Level, action: int) -> None:
    if action == _CLIMB and _grasps(body, level) and level.ladder[1] < body.y <= level.floor:
        _climb(body, level, -RUNG)
    else:
        _steer(body, action)
        _fly(body, level)


def _on_the_ladder(body: Body, level: Level, action: int) -> None:
    if action in (_CLIMB, _DOWN):
        _climb(body, level, -RUNG if action == _CLIMB else RUNG)
    elif _steer(body, action) or action == _JUMP:
        body.doing, body.across, body.down = FLIES, body.across if action != _JUMP else 0, GRAVITY
        _fly(body, level)


def _fly(body: Body, level: Level) -> None:
    """A step in the air: it ends on the first thing that carries, and beneath the upper edge."""
    before = body.y
    body.x = min(max(body.x + body.across, MARGIN), level.wide - MARGIN)
    body.y += body.down
    body.down = min(body.down + GRAVITY, FASTEST)
    if body.y < HEAD:
        body.y, body.down = HEAD, 0
    tops = [platform.top for platform in level.platforms if platform.carries(body.x)]
    tops += [] if level.over_water(body.x) else [level.floor]
    met = [top for top in tops if before <= top <= body.y and body.y > before]
    if met:
        body.y, body.doing, body.down = min(met), STANDS, 0
    elif before > level.floor:
        body.y = min(body.y, level.floor + DROWNED)


def _climb(body: Body, level: Level, way: int) -> None:
    """Along the ladder; at its ends one stands."""
    body.x, body.across, body.down, body.faces_left = level.ladder[0], 0, 0, False
    body.y = min(max(body.y + way, level.ladder[1]), level.floor)
    body.doing = STANDS if body.y in (level.ladder[1], level.floor) else CLIMBS


def _grasps(body: Body, level: Level) -> bool:
    return abs(body.x - level.ladder[0]) <= GRASP


def _carried(body: Body, level: Level) -> bool:
    if body.y == level.floor:
        return not level.over_water(body.x)
    return any(platform.top == body.y and platform.carries(body.x) for platform in level.platforms)
