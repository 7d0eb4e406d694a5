"""Worlds that are drawn, not filmed: endless clips whose captions and ground truth are exactly true.

A world is a module of this package that defines ``WORLD``, a class of the contract `vpoet.worlds.world.World`. One file
adds one: `vpoet ingest world:NAME` makes clips of it, and `vpoet evaluate` knows them by their ``source``.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from vpoet.errors import DataError
from vpoet.worlds.world import SOURCE, World

_PARTS = ("world", "recording")
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


def drawn_by(facts: Mapping[str, Any]) -> type[World] | None:
    """The world that drew a clip, told by the clip's raw json; None if none here did."""
    match = SOURCE.fullmatch(str(facts.get("source")))
    return find(match[1]) if match and match[1] in names() else None
