"""The judge: fresh clips of the world are accepted, clips with one fault refused, each for what is wrong about it."""

import numpy as np
import pytest

from vpoet.arrays import Frames
from vpoet.evaluate.adherence import wrong
from vpoet.worlds.platformer.consistency import FAULTS, heights, pictures
from vpoet.worlds.platformer.corruptions import CORRUPTIONS
from vpoet.worlds.platformer.world import Platformer

FRESH = range(5_000_000_000, 5_000_000_020)
ACTIONS = {
    action: next(s for s in FRESH if Platformer.attributes(s)["action"] == action) for action in ("walk", "jump")
}


@pytest.fixture(scope="module")
def world() -> Platformer:
    return Platformer()


def verdict(world: Platformer, frames: Frames, seed: int) -> dict[str, str]:
    return wrong(world.stated(world.clip(seed)[1], 1), world.see(frames))


def test_fresh_clips_are_accepted(world: Platformer) -> None:
    refused = {seed: found for seed in FRESH if (found := verdict(world, Platformer().clip(seed)[0], seed))}
    assert not refused


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_clips_with_a_fault_are_refused(world: Platformer, name: str) -> None:
    tried = 0
    # the pictures of a fall are not judged: the clip of FRESH[2] is one
    for seed in (*ACTIONS.values(), *([] if name == "figure that glides" else [FRESH[2]])):
        frames = CORRUPTIONS[name](seed)
        if not np.array_equal(frames, Platformer().clip(seed)[0]):
            assert verdict(world, frames, seed), seed
            tried += 1
    assert tried >= 2


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("shuffled", "order"),
        ("figure in every other frame", "presence"),
        ("ghost, 70% opaque", "opacity"),
        ("unasked second figure", "alone"),
        ("figure that glides", "order"),
    ],
)
def test_the_fault_is_named(world: Platformer, name: str, fault: str) -> None:
    faults = world.see(CORRUPTIONS[name](ACTIONS["walk"]))["faults"]
    assert fault in faults.split(", ")
    assert set(faults.split(", ")) <= set(FAULTS)


def test_a_creature_that_no_prompt_asks_for_is_wrong(world: Platformer) -> None:
    seed = next(s for s in FRESH if Platformer.attributes(s)["creature"])
    frames, facts = Platformer().clip(seed)
    asked = world.stated({"truth": facts["truth"] | {"creatures": []}}, 1)
    assert wrong(asked, world.see(frames)) == {"creature": Platformer.attributes(seed)["creature"]}


def test_laws_of_motion_hold_the_worlds_own() -> None:
    seconds = np.arange(17) / 8
    for action, direction in (("jump", ""), ("fall", ""), ("climb", "up"), ("climb", "down"), ("idle", "")):
        y_KT = heights(action, direction, seconds, 52)
        assert y_KT.shape[1] == 17
        assert y_KT.max() <= 52
        steps = np.diff(y_KT, axis=1)
        if action in ("climb", "fall"):
            assert (steps * (-1 if direction == "up" else 1) >= 0).all()
    right, swapped = pictures("jump", np.zeros(3), np.array([52.0, 40.0, 30.0]), 52.0)
    assert right == [["idle", "jump", "jump"]]
    assert swapped[0] == ["idle", "fall", "fall"]
