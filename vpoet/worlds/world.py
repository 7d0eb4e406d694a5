"""The contracts of worlds: `World`, of which clips are made and judged, and `SteppedWorld`, in which one acts."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError

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
    """Those of `judged` that stay as they are in a clip that `lasts`, and that one of its captions states, all of them;
    empty if no clip lasts."""

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

    def control(self, seed: int, kind: str) -> Frames:
        """The control signal of this kind of clip number ``seed``, uint8 [T, H, W, 3], exactly, where no maker of
        `vpoet.media.control` finds it in the pixels. DataError: this world does not tell it."""
        raise DataError(f"world:{self.name}: it tells no {kind} of its clips")

    @staticmethod
    @abstractmethod
    def stated(facts: Mapping[str, Any], phrasing: int) -> dict[str, str]:
        """What caption number ``phrasing`` (below `phrasings`) of a raw json says, by names of `judged`.

        `FAULTS` are always stated, to be none. KeyError or TypeError for a json that lacks what `clip` writes.
        """

    @staticmethod
    def doing(truth: Mapping[str, Any]) -> str:
        """What a figure does where this is the `SteppedWorld.truth`, as the clips' captions in time say it. DataError:
        they say no such thing."""
        raise DataError("this world's clips have no words for what is done from frame to frame")

    @abstractmethod
    def see(self, frames: Frames) -> dict[str, str]:
        """What a clip uint8 [T, H, W, 3] shows: all of `judged`, "" for none. ShapeError for frames of another size."""

    @classmethod
    def stepped(cls, height: int = 64, width: int = 64, fps: float = 8.0) -> "SteppedWorld":
        """The world to act in that the clips are recordings of. DataError if one cannot act in this world."""
        raise DataError(f"world:{cls.name}: its clips are drawn whole; one cannot act in it")

    @staticmethod
    def expert(world: "SteppedWorld", random: np.random.Generator) -> Callable[[], int]:
        """A player of the world that `stepped` gave, who seeks its rewards: each call is the next action. DataError:
        none is known."""
        raise DataError("this world knows no player who seeks its rewards; world:playground does")

    @classmethod
    def source(cls, seed: int) -> str:
        """What the raw json of clip number ``seed`` has as its ``source``."""
        return f"vpoet {cls.name} world, clip {seed}"


class SteppedWorld(Protocol):
    """Shows a frame, is told an action, shows the next.

    A pure function of seed, prompt and actions: the same ones give the same frames bit for bit, from the beginning or
    from any state that was saved. A learned world has the same `reset` and `step`, so that who acts needs not know
    which of the two it is.
    """

    actions: tuple[str, ...]
    """By name; an action is an index here."""
    fps: float

    def reset(self, seed: int, prompt: str = "") -> Frames:
        """Begin again: the first frame, uint8 [H, W, 3]. A prompt says who and where; what it leaves open, the seed."""

    def step(self, action: int) -> tuple[Frames, float, bool]:
        """The next frame, its reward, and whether that is the end: then only `reset` and `restore` go on.

        DataError for an action that there is not, and after the end.
        """

    def save(self) -> bytes:
        """The whole state."""

    def restore(self, state: bytes) -> None:
        """Go on from a state of this world, saved by whatever process. DataError for anything else."""

    @property
    def truth(self) -> dict[str, Any]:
        """What is where in the frame that was shown last."""

    def see(self, frames: Frames) -> list[dict[str, Any]]:
        """What each of the frames uint8 [T, H, W, 3] shows, by names of `truth`, told by the pixels alone."""
