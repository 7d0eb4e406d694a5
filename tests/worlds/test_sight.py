"""The witness against clips whose truth is known, and against clips that were changed."""

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.worlds.platformer.scenery import CHARACTERS, GROUNDS, SKIES, TALL
from vpoet.worlds.platformer.sight import SEEN, Witness
from vpoet.worlds.platformer.sprites import draw
from vpoet.worlds.platformer.world import ATTRIBUTES, Platformer

SHOWING = (9000, 9001, 9002, 9003, 9004, 9005, 9006, 9007, 9008, 9014, 9021, 9027, 9028, 9038)
"""Clips in which every value of every attribute is shown."""


@pytest.fixture(scope="module")
def witness() -> Witness:
    return Witness()


def test_what_real_clips_show_is_seen(witness: Witness) -> None:
    shown = {(name, value) for seed in SHOWING for name, value in Platformer.attributes(seed).items()}
    for name in SEEN:
        values = {**ATTRIBUTES, "creature": ("", *ATTRIBUTES["creatures"])}[name]
        assert {(name, value) for value in values} <= shown
    right = dict.fromkeys(SEEN, 0)
    for seed in SHOWING:
        seen, truth = witness.look(Platformer().clip(seed)[0]).shown, Platformer.attributes(seed)
        for name in SEEN:
            right[name] += seen[name] == truth[name]
    assert min(right.values()) >= 0.95 * len(SHOWING), right


def test_clips_of_another_size_rate_and_length_are_seen_too() -> None:
    world, witness = Platformer(48, 80, 12.0, 25), Witness(48, 80, 12.0)
    agreed = 0
    for seed in range(300, 308):
        seen, truth = witness.look(world.clip(seed)[0]).shown, Platformer.attributes(seed)
        agreed += sum(seen[name] == truth[name] for name in SEEN)
    assert agreed >= 0.95 * 8 * len(SEEN)


@pytest.mark.parametrize("who", CHARACTERS)
def test_another_character_walking_the_same_way_is_told_by_its_looks_alone(witness: Witness, who: str) -> None:
    world = witness.world
    clip = np.empty((17, 64, 64, 3), np.uint8)
    for t in range(17):
        stage = world.scenery("dusk", "sand")
        picture = world.picture(f"animated_characters/{CHARACTERS[who]}_walk{t % 8}", TALL, mirrored=True)
        draw(stage, picture, 50 - 2 * t, 52)
        clip[t] = stage + 0.5
    expected = {"who": who, "action": "walk", "direction": "left", "ground": "sand", "sky": "dusk", "creature": ""}
    assert witness.look(clip).shown == expected
    assert witness.look(clip[::-1].copy()).shown["direction"] == "right"  # backwards, it is the way that counts


def test_an_empty_stage_shows_nobody(witness: Witness) -> None:
    for sky, ground, over_water in zip((*SKIES, *SKIES), (*GROUNDS, "grass", "sand"), (0, 1, 1, 0) * 2, strict=True):
        stage = witness.world.scenery(sky, ground, "hills", over_water=bool(over_water), shift=7.3)
        seen = witness.look(np.repeat((stage + 0.5).astype(np.uint8)[None], 2, axis=0)).shown
        assert seen == dict.fromkeys(SEEN, "") | {"sky": sky, "ground": ground}


def test_blur_and_noise_change_little(witness: Witness) -> None:
    """As a tokenizer's reconstruction: each pixel the mean of 9, and noise of 10 of 255 over it."""
    random = np.random.default_rng(0)
    agreed = 0
    for seed in range(400, 424):
        clip = np.pad(Platformer().clip(seed)[0].astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
        blurred = np.mean([clip[:, y : y + 64, x : x + 64] for y in range(3) for x in range(3)], axis=0)
        seen = witness.look((blurred + random.normal(0, 10, blurred.shape)).clip(0, 255).astype(np.uint8)).shown
        agreed += sum(seen[name] == value for name, value in Platformer.attributes(seed).items() if name in SEEN)
    assert agreed >= 0.95 * 24 * len(SEEN)


def test_noise_and_single_frames_are_seen_without_complaint(witness: Witness) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    assert set(witness.look(noise).shown) == set(SEEN)
    assert witness.look(Platformer(frames=1).clip(5)[0]).shown["who"] == Platformer.attributes(5)["who"]
    with pytest.raises(ShapeError, match="sees 64x64"):
        witness.look(noise[:, :32])
