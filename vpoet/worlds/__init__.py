"""Worlds that are drawn, not filmed: endless clips whose captions and ground truth are exactly true.

A world is a module of this package that defines ``WORLD``, a class of the contract `vpoet.worlds.world.World`. One file
adds one: `vpoet ingest world:NAME` makes clips of it, and `vpoet evaluate` knows them by their ``source``.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.worlds.gym import ENV as ENV
from vpoet.worlds.gym import GymWorld
from vpoet.worlds.world import SOURCE, SteppedWorld, World

WORLD = "world:"
Maker = Callable[[int], tuple[Frames, dict[str, Any]]]
"""From a clip's number to its frames uint8 [T, H, W, 3] and its raw json."""

_PARTS = ("world", "recording", "gym", "environments")
"""Modules of what worlds have in common."""


def names() -> list[str]:
    """Of all worlds, none of them imported."""
    return sorted(module.name for module in iter_modules(__path__) if module.name not in _PARTS)


def find(name: str) -> type[World]:
    """The world of that name; DataError if there is none."""
    if name not in names():
        raise DataError(f"world:{name}: no such world; there is {', '.join(f'world:{each}' for each in names())}")
    world: type[World] = import_module(f"{__name__}.{name}").WORLD
    return world


@lru_cache(2)
def maker(source: str, height: int, width: int, fps: float, frames: int) -> Maker:
    """What makes the clips of ``world:NAME`` or ``env:NAME``.

    DataError: there is none such; or its rate is another: an environment has its own, which ``fps`` 0 asks for.
    """
    if source.startswith(ENV):
        env = GymWorld(source.removeprefix(ENV), height, width)
        if fps not in (0, env.fps):
            raise DataError(f"{source}: it goes at {env.fps:g} steps a second, not {fps:g}; --fps 0 takes its own rate")
        return partial(env.clip, frames=frames)
    return find(source.removeprefix(WORLD))(height, width, fps, frames).clip


def stepped(source: str, height: int = 64, width: int = 64, fps: float = 8.0) -> SteppedWorld:
    """The world to act in of ``world:NAME`` or, at its own rate, ``env:NAME``. DataError: one cannot act in it."""
    if source.startswith(ENV):
        return GymWorld(source.removeprefix(ENV), height, width)
    return find(source.removeprefix(WORLD)).stepped(height, width, fps)


def drawn_by(facts: Mapping[str, Any]) -> type[World] | None:
    """The world that drew a clip, told by the clip's raw json; None if none here did."""
    match = SOURCE.fullmatch(str(facts.get("source")))
    return find(match[1]) if match and match[1] in names() else None
