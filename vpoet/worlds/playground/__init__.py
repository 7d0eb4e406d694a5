"""A platform game that one plays, and recordings of it."""

from vpoet.worlds.playground.recordings import Recordings

WORLD = Recordings
