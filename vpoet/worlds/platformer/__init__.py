"""A platform game that plays itself."""

from vpoet.worlds.platformer.world import Platformer

WORLD = Platformer
