"""A platform game that plays itself: captioned, labelled, action-annotated clips, drawn with Kenney's CC0 sprites.

One character does one thing on one ground under one sky; often a creature flies, crawls or swims by, sometimes an item
lies about. The camera stands still. Everything is a pure function of the seed. Lengths are in the units of
`vpoet.worlds.platformer.scenery`.
"""

from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.worlds.platformer.captions import PHRASINGS, captions, stated
from vpoet.worlds.platformer.consistency import faults
from vpoet.worlds.platformer.layers import Layers, colours_of, outlines
from vpoet.worlds.platformer.scenery import (
    BACKDROP_SHIFT,
    BACKDROPS,
    CHARACTERS,
    CREATURES,
    FISH,
    GRAVITY,
    GROUNDS,
    ITEMS,
    SKIES,
    SMALL,
    SPEEDS,
    STEP,
    TALL,
    TILE,
    Scenery,
)
from vpoet.worlds.platformer.sight import SEEN, Witness
from vpoet.worlds.platformer.sprites import Sprite
from vpoet.worlds.world import FAULTS, World

ACTIONS = ("walk", "jump", "climb", "fall", "idle")
"""In the order of a clip's ``label``."""
CONTROLS = ("none", "left", "right", "up", "down", "jump")
"""What the player presses, one for each step between frames: the clip's ``actions`` are indices here."""
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "who": tuple(CHARACTERS),
    "action": ACTIONS,
    "direction": ("", "left", "right", "up", "down"),
    "ground": GROUNDS,
    "sky": tuple(SKIES),
    "backdrop": BACKDROPS,
    "creatures": tuple(CREATURES),
    "items": tuple(ITEMS),
}
"""All values of each field of a clip's ``truth``; of ``creatures`` and ``items``, all names."""

_ONE_OF_MANY = {"creature": "creatures", "item": "items"}
_MARGIN = 10  # no middle of a character, creature or item is nearer to the left or right edge


class Platformer(Scenery, World):
    """The world at one size and rate."""

    name = "platformer"
    judged = (*SEEN, FAULTS)
    phrasings = PHRASINGS
    kept = ("who", "ground", "sky")

    def __init__(self, height: int = 64, width: int = 64, fps: float = 8.0, frames: int = 17) -> None:
        if min(height, width) < 16 or frames < 1 or not fps > 0:
            raise DataError(
                f"platformer: {frames} frames of {height}x{width} at {fps} fps; it draws 1 frame or more, "
                "16 pixels or more each way, at a rate above 0"
            )
        super().__init__(height, width)
        self.fps, self.frames = fps, frames

    def clip(self, seed: int) -> tuple[Frames, dict[str, Any]]:
        """Frames uint8 [T, H, W, 3] and the raw json of clip number ``seed``, 0 or more; always the same ones.

        In the json, ``label`` is an index into `ACTIONS`, ``actions`` holds T - 1 indices into `CONTROLS`, and
        ``truth`` says what is seen: the fields of `ATTRIBUTES`, ``landed`` (a fall that ends on the ground within the
        clip), ``boxes`` of the character and of each creature, one per frame, and the ``box`` of each item: what the
        drawing covers of the frame, (left, top, right, bottom) in pixels, half open.
        """
        random = np.random.default_rng(seed)
        truth = _scene(random)
        over_water = any(creature["motion"] == "swim" for creature in truth["creatures"])
        floor = self.floor(over_water)
        x_T, y_T, poses, controls = self._act(truth, floor, random)
        truth["landed"] = truth["action"] == "fall" and y_T[-1] >= floor
        stage = self._stage(truth, floor, over_water, x_T[0], random)
        taken = [x_T[0], *((item["box"][0] + item["box"][2]) / 2 / self.unit for item in truth["items"])]
        movers = [self._move(creature, floor, taken, random) for creature in truth["creatures"]]

        frames = np.empty((self.frames, self.height, self.width, 3), dtype=np.uint8)
        boxes: list[tuple[int, int, int, int]] = []
        for creature in truth["creatures"]:
            creature["boxes"] = []
        for t in range(self.frames):
            frame = stage.copy()
            for creature, (path, pictures) in zip(truth["creatures"], movers, strict=True):
                creature["boxes"].append(self.put(frame, pictures[t], *path[t]))
            name, mirrored = poses[t]
            character = self.picture(f"animated_characters/{CHARACTERS[truth['who']]}_{name}", TALL, mirrored)
            boxes.append(self.put(frame, character, x_T[t], y_T[t]))
            frames[t] = frame + 0.5
        truth["boxes"] = boxes
        highest = min(top for _, top, _, _ in boxes)
        for creature in truth["creatures"]:
            place = {"fly": "in the sky", "crawl": "on the ground", "swim": "in the water"}[creature["motion"]]
            over = place == "in the sky" and all(bottom <= highest for *_, bottom in creature["boxes"])
            creature["place"] = "above" if over else place
        return frames, {
            "caption": captions(truth),
            "fps": self.fps,
            "frames": self.frames,
            "height": self.height,
            "width": self.width,
            "source": self.source(seed),
            "license": "CC0 (sprites by Kenney, kenney.nl)",
            "label": ACTIONS.index(truth["action"]),
            "actions": [CONTROLS.index(control) for control in controls],
            "truth": truth,
        }

    def control(self, seed: int, kind: str) -> Frames:
        drawn = _InLayers(self.height, self.width, self.fps, self.frames)
        drawn.colours = colours_of(kind)
        layers, _ = drawn.clip(seed)
        return outlines(layers) if kind == "pose" else layers

    @staticmethod
    def attributes(seed: int) -> dict[str, str]:
        """Who does what where in clip number ``seed``, without drawing it; empty where there is none."""
        scene = _scene(np.random.default_rng(seed))
        plain = {name: scene[name] for name in ("who", "action", "direction", "ground", "sky", "backdrop")}
        first = {one: scene[many][0]["name"] if scene[many] else "" for one, many in _ONE_OF_MANY.items()}
        return plain | first

    @staticmethod
    def lasts(seed: int) -> bool:
        """Jumping up and down, alone: it has to be drawn anew all the time, where who stands can be copied.

        Who walks, climbs or falls soon leaves the picture or stands, and no real clip says how that goes on.
        """
        scene = _scene(np.random.default_rng(seed))
        return scene["action"] == "jump" and not scene["creatures"]

    @staticmethod
    def stated(facts: Mapping[str, Any], phrasing: int) -> dict[str, str]:
        return stated(facts["truth"], phrasing) | {FAULTS: ""}

    def see(self, frames: Frames) -> dict[str, str]:
        sight = self._witness.look(frames)
        return sight.shown | {FAULTS: ", ".join(faults(self._witness, sight, frames))}

    @cached_property
    def _witness(self) -> Witness:
        return Witness(self.height, self.width, self.fps)

    def _stage(
        self, truth: dict[str, Any], floor: float, over_water: bool, x: float, random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """What does not move: the scenery, the ladder at ``x``, the item away from it."""
        shift = random.uniform(0, BACKDROP_SHIFT)
        stage = self.scenery(truth["sky"], truth["ground"], truth["backdrop"], over_water=over_water, shift=shift)
        if truth["action"] == "climb":
            for y in np.arange(floor, 0, -TILE):
                self.put(stage, self.picture("items/ladderMid", TILE), x, y)
        wide = self.width / self.unit
        for item in truth["items"]:
            # beside the character: 16 units or more to its left or right, wherever it stands at first
            leftwards, rightwards = max(0, x - 16 - _MARGIN), max(0, wide - _MARGIN - x - 16)
            at = random.uniform(0, leftwards + rightwards)
            at += _MARGIN if at < leftwards else x + 16 - leftwards
            item["place"] = "in the air" if ITEMS[item["name"]].startswith("items/") else "on the ground"
            item["box"] = self.put(stage, self.picture(ITEMS[item["name"]], SMALL), at, floor)
        return stage

    def _act(
        self, truth: dict[str, Any], floor: float, random: np.random.Generator
    ) -> tuple[list[float], list[float], list[tuple[str, bool]], list[str]]:
        """The character, frame by frame: where its feet are, its picture (mirrored or not), and the T - 1 controls."""
        action, direction = truth["action"], truth["direction"]
        seconds = np.arange(self.frames) / self.fps
        wide = self.width / self.unit
        x_T = np.full(self.frames, random.uniform(_MARGIN + 4, wide - _MARGIN - 4))
        y_T = np.full(self.frames, floor)
        names = ["idle"] * self.frames
        controls = ["none"] * (self.frames - 1)
        if action == "walk":
            x_T = self._cross(direction, random.uniform(13, 21), random.random())
            names = [f"walk{int(abs(x - x_T[0]) / STEP) % 8}" for x in x_T]
            controls = [direction] * (self.frames - 1)
        elif action == "climb":
            room = floor - TALL
            way = np.minimum(random.uniform(9, 13) * seconds, room)
            y_T = floor - (way if direction == "up" else room - way)
            names = [f"climb{int(y / 3) % 2}" for y in y_T]
            controls = [direction if b > a else "none" for a, b in pairwise(way)]
        elif action == "jump":
            speed = np.sqrt(2 * GRAVITY * random.uniform(9, 14))
            airborne = 2 * speed / GRAVITY
            since = (seconds + random.uniform(0, airborne)) % (airborne + 0.375)
            height = np.where(since < airborne, since * (speed - GRAVITY / 2 * since), 0)
            y_T = floor - height
            names = [
                "idle" if h <= 0 else "jump" if s < airborne / 2 else "fall" for h, s in zip(height, since, strict=True)
            ]
            controls = ["jump" if b < a else "none" for a, b in pairwise(since)]
        elif action == "fall":
            y_T = np.minimum(random.uniform(20, 25) + GRAVITY / 2 * seconds**2, floor)
            names = ["fall" if y < floor else "idle" for y in y_T]
        mirrored = direction == "left"
        return x_T.tolist(), y_T.tolist(), [(name, mirrored) for name in names], controls

    def _move(
        self, creature: dict[str, Any], floor: float, taken: list[float], random: np.random.Generator
    ) -> tuple[list[tuple[float, float]], list[Sprite]]:
        """A creature, frame by frame: the middle of its lower edge, and its picture.

        It starts away from ``taken``: from the character, and on the ground also from the item.
        """
        motion, pictures = CREATURES[creature["name"]]
        seconds = np.arange(self.frames) / self.fps
        bob = np.sin(2 * np.pi * (1.2 * seconds + random.random()))
        speed = random.uniform(*SPEEDS[motion])
        places = (random.random() + np.arange(8) / 8) % 1
        ways = [self._cross(creature["direction"], speed, float(where)) for where in places]
        x_T = max(ways, key=lambda way: min(abs(float(way[0]) - x) for x in taken[: 2 if motion == "crawl" else 1]))
        y_T = {
            "fly": random.uniform(14, 17) + 1.5 * bob,
            "crawl": np.full(self.frames, floor),
            "swim": self.height / self.unit - 1 + bob,
        }[motion]
        size = FISH if motion == "swim" else SMALL
        cycle = [self.picture(f"enemies/{name}", size, creature["direction"] == "right") for name in pictures]
        # a frame of the cycle lasts a quarter of a second
        return list(zip(x_T.tolist(), y_T.tolist(), strict=True)), [cycle[int(4 * s) % len(cycle)] for s in seconds]

    def _cross(self, direction: str, speed: float, where: float) -> npt.NDArray[np.float64]:
        """[T] even motion to the left or right that stays in view; clips too long for ``speed`` move more slowly.

        ``where`` in 0..1 places the way within the width that it leaves free.
        """
        room = self.width / self.unit - 2 * _MARGIN
        way = min(speed * (self.frames - 1) / self.fps, room)
        x_T = _MARGIN + where * (room - way) + way * np.linspace(0, 1, self.frames)
        return x_T if direction == "right" else x_T[::-1]


class _InLayers(Layers, Platformer):
    """The same clips, each thing in the colour of its layer."""


def _scene(random: np.random.Generator) -> dict[str, Any]:
    """What the picture will show: the part of ``truth`` that is drawn by lot before anything is placed."""

    def one_of(names: Any) -> Any:
        return list(names)[int(random.integers(len(names)))]

    scene: dict[str, Any] = {
        "who": one_of(CHARACTERS),
        "action": str(random.choice(ACTIONS, p=(0.45, 0.2, 0.15, 0.1, 0.1))),
        "ground": one_of(GROUNDS),
        "sky": one_of(SKIES),
        "backdrop": str(random.choice(BACKDROPS, p=(0.7, 0.12, 0.18))),
    }
    scene["direction"] = one_of({"walk": ("left", "right"), "climb": ("up", "down")}.get(scene["action"], ("",)))
    scene["creatures"] = [
        {"name": name, "motion": CREATURES[name][0], "direction": one_of(("left", "right"))}
        for name in [one_of(CREATURES)][: random.random() < 0.6]
    ]
    scene["items"] = [{"name": one_of(ITEMS)}][: random.random() < 0.35]
    return scene
