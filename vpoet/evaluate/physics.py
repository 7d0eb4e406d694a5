"""The laws of a platformer, apart: how high and how long a learned world lets one jump, and whether its walls hold.

Each trial begins at the same frame in the simulator and in the model, and gives both the same keys: one jump from where
the figure stands and then nothing, until it would have landed; or a walk to the side that the figure faces, and on
against it. What the simulator does is known, and of what the model draws the world's judge tells where the figure is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.worlds.world import SteppedWorld

JUMP = 12
"""Keys of a jump: a landing on the place where it began takes eight."""
LONGEST, AGAINST = 200, 6
"""Keys of a walk to the wall, and those on against it."""
NEAR = 1.0
"""Units within which the figure is where it was."""


class Begun(Protocol):
    """A world in which the trial has begun."""

    def step(self, action: int, /) -> tuple[Frames, float, bool]:
        """As `SteppedWorld.step`."""


def trials(begin: Callable[[], Begun], simulator: SteppedWorld, state: bytes) -> dict[str, Any]:
    """What a model and the simulator make of both trials from a state, as JSON takes it:

    ``jump``: units risen in the simulator and in the model, frames in the air in both; ``wall``: the figure's last x in
    both. None of the model's where its frames show nobody. A trial that has no meaning there is left out: the figure
    is not on foot, there are no such keys, or the end is reached on the way.
    """
    simulator.restore(state)
    keys = {name: number for number, name in enumerate(simulator.actions)}
    begun = simulator.truth
    found: dict[str, Any] = {}
    if not {"noop", "left", "right", "jump"} <= set(keys) or begun["action"] not in ("stand", "walk"):
        return found
    jump = [keys["jump"]] + JUMP * [keys["noop"]]
    if (real := _led(simulator, state, jump)) is not None:
        dreamt = _seen(begin(), simulator, jump)
        found["jump"] = [*_rise(real, begun["y"]), *_rise(dreamt, begun["y"])]
    side = [keys[begun["facing"]]]
    real, x = _led(simulator, state, side), begun["x"]
    while real is not None and len(real) < LONGEST and real[-1][0] != x:
        x, real = real[-1][0], _led(simulator, state, (len(real) + 1) * side)
    if real is not None and real[-1][0] == x:
        dreamt = _seen(begin(), simulator, (len(real) + AGAINST) * side)
        found["wall"] = [float(x), None if math.isnan(dreamt[-1][0]) else float(dreamt[-1][0])]
    return found


def physics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What trials come to: medians of how far off the apex (units), the time in the air (frames) and the wall (units)
    are, None where half of them show nobody; and how many trials of each there were."""
    found: dict[str, float | None] = {}
    jumps = [row["jump"] for row in rows if "jump" in row]
    walls = [row["wall"] for row in rows if "wall" in row]
    for name, pairs in (
        ("apex", [(real, seen) for real, _, seen, _ in jumps]),
        ("air_time", [(real, seen) for _, real, _, seen in jumps]),
        ("wall", walls),
    ):
        if pairs:
            off = float(np.median([math.inf if seen is None else abs(seen - real) for real, seen in pairs]))
            found[f"{name}_error"] = off if math.isfinite(off) else None
    return found | ({"jumps": len(jumps), "walls": len(walls)} if jumps or walls else {})


def _led(simulator: SteppedWorld, state: bytes, keys: Sequence[int]) -> Doubles | None:
    """[n, 2], x and y of the feet behind each key; None where the end is reached."""
    simulator.restore(state)
    places = []
    for key in keys:
        if simulator.step(key)[2]:
            return None
        places.append((simulator.truth["x"], simulator.truth["y"]))
    return np.array(places, float)


def _seen(world: Begun, judge: SteppedWorld, keys: Sequence[int]) -> Doubles:
    """The same of what a model draws; nan where nobody is seen, and behind what it takes for the end."""
    frames = []
    for key in keys:
        frame, _, ended = world.step(key)
        frames.append(frame)
        if ended:
            break
    told = [(one["x"], one["y"]) for one in judge.see(np.stack(frames))]
    places = [(math.nan, math.nan) if None in at else at for at in told]
    return np.array(places + [(math.nan, math.nan)] * (len(keys) - len(places)), float)


def _rise(places: Doubles, y: float) -> tuple[float | None, float | None]:
    """Units from the height ``y`` up to the highest place, and frames until it does not change any more."""
    heights = places[:, 1]
    if np.isnan(heights).all():
        return None, None
    moves = np.flatnonzero(~(np.abs(heights - heights[-1]) <= NEAR))
    return float(y - np.nanmin(heights)), float(moves[-1] + 1 if len(moves) else 0)
