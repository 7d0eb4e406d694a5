"""Where things are in the playground: ground, water, two platforms, a ladder, and the places of the coin.

Lengths are whole units of `vpoet.worlds.platformer.scenery`, y downwards; a level is 64 wide and stands in the middle
of a wider picture. Four slots of 16 units lie side by side::

    y 24          ======H======          the high platform: two slots, 28 above the floor; the ladder reaches it
    y 38   ===L====    #                 the low platform: two other slots, 14 above the floor, within a jump
    y 52   gggggggg~~~~#gggg             the floor, in most levels with a slot of water
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from typing import NamedTuple

SLOT = 16
RISE = 14
"""From the floor to the low platform, and on to the high one."""
EDGE = 2
"""So far beyond the end of what it stands on a figure still stands."""
COIN = 7
"""Height of a coin's middle above what lies below it."""


class Platform(NamedTuple):
    """From below one jumps through it."""

    left: int
    right: int
    top: int

    def carries(self, x: int) -> bool:
        return self.left - EDGE <= x <= self.right + EDGE


class Level(NamedTuple):
    wide: int
    floor: int
    platforms: tuple[Platform, Platform]
    """Low, high."""
    ladder: tuple[int, int]
    """Its middle, and its upper end; it stands on the floor."""
    water: tuple[int, int] | None
    """Left and right edge."""
    coins: tuple[tuple[int, int], ...]
    """The middles of its places. It appears at the next one each time it is taken, and after the last at the first."""

    def over_water(self, x: int) -> bool:
        """Whether there is no floor below a figure."""
        return self.water is not None and self.water[0] + EDGE < x < self.water[1] - EDGE

    @property
    def starts(self) -> list[tuple[int, int]]:
        """Where a figure can stand at first: the middle of each dry slot, and of the platforms' slots."""
        left = (self.wide - 4 * SLOT) // 2 + SLOT // 2
        middles = range(left, left + 4 * SLOT, SLOT)
        dry = [(x, self.floor) for x in middles if not self.over_water(x)]
        return dry + [(x, platform.top) for platform in self.platforms for x in middles if platform.carries(x)]


@cache
def levels(wide: int, floor: int) -> tuple[Level, ...]:
    """All that there are, in a picture so wide with the floor there."""
    found = []
    offset = (wide - 4 * SLOT) // 2
    for high, low, ladder, water in product(range(3), range(3), range(4), (None, 0, 1, 2, 3)):
        if low == high or ladder not in (high, high + 1) or water == ladder:
            continue

        def platform(slot: int, top: int) -> Platform:
            return Platform(offset + SLOT * slot, offset + SLOT * (slot + 2), top)

        def middle(slot: int) -> int:
            return offset + SLOT * slot + SLOT // 2

        beside = 2 * high + 1 - ladder  # the high platform's other slot
        away = low if low not in (high, high + 1) else low + 1  # a slot of the low platform that the high one leaves
        first, last = (next(slot for slot in order if slot != water) for order in ((0, 1), (3, 2)))
        places = ((beside, 2 * RISE), (first, 0), (away, RISE), (last, 0))
        coins = [(middle(slot), floor - rise - COIN) for slot, rise in places]
        found.append(
            Level(
                wide,
                floor,
                (platform(low, floor - RISE), platform(high, floor - 2 * RISE)),
                (middle(ladder), floor - 2 * RISE),
                None if water is None else (offset + SLOT * water, offset + SLOT * (water + 1)),
                max(permutations(coins), key=_least_way),
            )
        )
    return tuple(found)


def _least_way(coins: Sequence[tuple[int, int]]) -> int:
    """From one place to the next: nobody is to hide the coin that appears when another one is taken."""
    ways = zip(coins, [*coins[1:], coins[0]], strict=True)
    return min(max(abs(x1 - x0), abs(y1 - y0)) for (x0, y0), (x1, y1) in ways)
