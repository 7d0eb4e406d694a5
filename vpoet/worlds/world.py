"""The contract of a world: what ingest, `vpoet evaluate` and `vpoet drift` ask one for."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from vpoet.arrays import Frames

FAULTS = "faults"
"""The last of `World.judged`: what the world could not have drawn, in words; "" for a clip without a fault."""
SOURCE = re.compile(r"vpoet (\w+) world, clip \d+")
"""The ``source`` of a clip's raw json, by which the world of a shard is known."""


class World(ABC):
    """Draws captioned clips at one size and rate, and says of any clip what it shows.

    Clips have numbers from 0 on, and all that is said of one is a function of its number. What a clip shows is told
    apart from what was drawn: `see` is given pixels alone.
    """

    name: ClassVar[str]
    """That of its module: `vpoet ingest world:NAME`."""
    judged: ClassVar[tuple[str, ...]]
    """What `see` tells, and a caption can state; `FAULTS` is the last."""
    phrasings: ClassVar[int]
    """Of a clip's captions, the first so many are such that every statement can be judged."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Those of `judged` that stay as they are in a clip that `lasts`; empty if no clip does."""

    height: int
    width: int
    fps: float
    frames: int
    """Of each clip."""

    @abstractmethod
    def __init__(self, height: int = 64, width: int = 64, fps: float = 8.0, frames: int = 17) -> None:
        """DataError for sizes and rates that it does not draw."""

    @staticmethod
    @abstractmethod
    def attributes(seed: int) -> dict[str, str]:
        """What happens in clip number ``seed``, without drawing it; by these columns clips are held out."""

    @staticmethod
    def lasts(seed: int) -> bool:
        """Whether what clip number ``seed`` shows can go on for ever: who walks soon leaves the picture."""
        return False

    @abstractmethod
    def clip(self, seed: int) -> tuple[Frames, dict[str, Any]]:
        """Frames uint8 [T, H, W, 3] and the raw json of clip number ``seed``, with its `source` and all captions."""

    @staticmethod
    @abstractmethod
    def stated(facts: Mapping[str, Any], phrasing: int) -> dict[str, str]:
        """What caption number ``phrasing`` (below `phrasings`) of a raw json says, by names of `judged`.

        `FAULTS` are always stated, to be none. KeyError or TypeError for a json that lacks what `clip` writes.
        """

    @abstractmethod
    def see(self, frames: Frames) -> dict[str, str]:
        """What a clip uint8 [T, H, W, 3] shows: all of `judged`, "" for none. ShapeError for frames of another size."""

    @classmethod
    def source(cls, seed: int) -> str:
        """What the raw json of clip number ``seed`` has as its ``source``."""
        return f"vpoet {cls.name} world, clip {seed}"
