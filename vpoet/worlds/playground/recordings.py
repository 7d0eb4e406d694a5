"""Clips of the playground: recordings of what players do in it."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.worlds.playground.captions import PHRASINGS, captions, doing, stated, timeline
from vpoet.worlds.playground.physics import ACTIONS, FASTEST
from vpoet.worlds.playground.scripts import Seeker
from vpoet.worlds.playground.stepped import Playground, scene
from vpoet.worlds.recording import Recording, Sticky, record
from vpoet.worlds.world import FAULTS, SteppedWorld, World

POLICIES = ("random", "seeker")
"""Half of the clips are played by each: keys at random, held for a while, and a player who goes for the coin."""
_BEFORE = 48
"""Steps at most that a recording begins after the level does."""
_STILL = ("who", "ground", "sky", "level")
_LEAP = FASTEST + 2
"""Units that nobody moves in a step."""


class Recordings(World):
    """Made at one size and rate. A clip ends early if its player falls into the water."""

    name = "playground"
    judged = ("who", "ground", "sky", FAULTS)
    phrasings = PHRASINGS

    def __init__(self, height: int = 64, width: int = 64, fps: float = 8.0, frames: int = 17) -> None:
        if frames < 1:
            raise DataError(f"playground: clips of {frames} frames; they have 1 or more")
        self.height, self.width, self.fps, self.frames = height, width, fps, frames
        self._world = Playground(height, width, fps)

    @classmethod
    def stepped(cls, height: int = 64, width: int = 64, fps: float = 8.0) -> Playground:
        return Playground(height, width, fps)

    @staticmethod
    def expert(world: SteppedWorld, random: np.random.Generator) -> Callable[[], int]:
        assert isinstance(world, Playground)
        return partial(Seeker(random), world)

    @staticmethod
    def attributes(seed: int) -> dict[str, str]:
        return scene(seed) | {"policy": POLICIES[seed % len(POLICIES)]}

    def clip(self, seed: int) -> tuple[Frames, dict[str, Any]]:
        """Frames uint8 [T, H, W, 3] and the raw json of clip number ``seed``.

        In the json, ``actions`` holds T - 1 indices into ``action_space``'s ``names``; ``outcomes`` their rewards and
        whether they led to the end; ``captions`` what is done from when to when; ``truth`` what `Playground.truth` was
        in each frame, lists of what changes, and ``boxes``, what the drawing covers of the figure: (left, top, right,
        bottom) in pixels, half open; ``state``, in hex, what `Playground.save` gave at the first frame.
        """
        world, truths = self._world, list[dict[str, Any]]()
        random = np.random.default_rng((seed, 2))
        policy = self.attributes(seed)["policy"]
        act = self._player(policy, random)
        first = world.reset(seed)
        before = record(first, world.step, act, int(random.integers(_BEFORE + 1)) + 1)
        first = world.reset(seed) if before.ended else before.frames[-1]
        state = world.save().hex()

        def note() -> None:
            truths.append(world.truth | {"boxes": list(world.box)})

        def act_and_note() -> int:
            note()
            return act()

        recording: Recording[int] = record(first, world.step, act_and_note, self.frames)
        note()
        moving = [key for key in truths[0] if key not in _STILL]
        return recording.frames, {
            "caption": captions(truths[0]),
            "captions": timeline(truths),
            "fps": self.fps,
            "height": self.height,
            "width": self.width,
            "source": self.source(seed),
            "license": "CC0 (sprites by Kenney, kenney.nl)",
            "policy": policy,
            "state": state,
            **recording.fields(),
            "action_space": {"names": list(ACTIONS)},
            "truth": {key: truths[0][key] for key in _STILL}
            | {key: [truth[key] for truth in truths] for key in moving},
        }

    def _player(self, policy: str, random: np.random.Generator) -> Callable[[], int]:
        if policy == "random":
            return Sticky(lambda: int(random.integers(len(ACTIONS))), random)
        return self.expert(self._world, random)

    @staticmethod
    def stated(facts: Mapping[str, Any], phrasing: int) -> dict[str, str]:
        return stated(facts["truth"], phrasing) | {FAULTS: ""}

    @staticmethod
    def doing(truth: Mapping[str, Any]) -> str:
        return doing(truth)

    def see(self, frames: Frames) -> dict[str, str]:
        """What most of the frames show; the faults are scenery or a character that changes, nobody, no coin, and a leap
        that nobody can do."""
        seen = self._world.see(frames)
        shown = {name: _most([one[name] for one in seen]) for name in ("who", "ground", "sky")}
        faults = [f"another {name}" for name in _STILL if len({one[name] for one in seen if one["who"]}) > 1]
        faults += ["nobody"] * any(not one["who"] for one in seen) + ["no coin"] * any(not one["coin"] for one in seen)
        there = [one for one in seen if one["who"]]
        moves = [max(abs(a["x"] - b["x"]), abs(a["y"] - b["y"])) for a, b in pairwise(there)]
        faults += ["leap"] * any(move > _LEAP for move in moves)
        return shown | {FAULTS: ", ".join(faults)}


def _most(names: list[str]) -> str:
    return max(names, key=names.count)
