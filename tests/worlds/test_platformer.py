"""The platformer world: the same clip for the same seed, and captions that are true of the pixels."""

import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.worlds.platformer import sprites
from vpoet.worlds.platformer.scenery import CHARACTERS, CREATURES, GROUNDS, ITEMS
from vpoet.worlds.platformer.world import ACTIONS, ATTRIBUTES, CONTROLS, Platformer

Clip = tuple[np.ndarray, dict[str, Any]]
Box = tuple[int, int, int, int]
SEEDS = range(300)


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    world = Platformer()
    return [world.clip(seed) for seed in SEEDS]


def test_a_clip_is_a_function_of_its_seed(clips: list[Clip]) -> None:
    frames, info = Platformer().clip(7)
    assert np.array_equal(frames, clips[7][0])
    assert info == clips[7][1]
    assert not np.array_equal(frames, clips[8][0])
    script = (
        "import hashlib; from vpoet.worlds.platformer.world import Platformer; "
        "print(hashlib.sha256(Platformer().clip(7)[0].tobytes()).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(frames.tobytes()).hexdigest()


def test_shapes_and_json(clips: list[Clip]) -> None:
    for frames, info in clips:
        assert frames.shape == (17, 64, 64, 3)
        assert frames.dtype == np.uint8
        assert json.loads(json.dumps(info))["frames"] == 17
        assert len(info["actions"]) == 16
        assert ACTIONS[info["label"]] == info["truth"]["action"]
        assert "CC0" in info["license"]
        assert "Kenney" in info["license"]


def test_everything_in_the_tables_occurs(clips: list[Clip]) -> None:
    truths = [info["truth"] for _, info in clips]
    for field, values in ATTRIBUTES.items():
        found = [truth[field] for truth in truths]
        if field in ("creatures", "items"):
            found = [thing["name"] for things in found for thing in things]
        assert set(found) == set(values), field


def middle(box: Box) -> float:
    return (box[0] + box[2]) / 2


def test_motion_is_what_the_truth_says(clips: list[Clip]) -> None:
    for _, info in clips:
        truth, boxes = info["truth"], info["truth"]["boxes"]
        controls = [CONTROLS[i] for i in info["actions"]]
        if truth["action"] == "walk":
            sign = 1 if truth["direction"] == "right" else -1
            assert sign * (middle(boxes[-1]) - middle(boxes[0])) > 15
            assert all(sign * (middle(b) - middle(a)) >= 0 for a, b in pairwise(boxes))
            assert set(controls) == {truth["direction"]}
        elif truth["action"] == "climb":
            sign = 1 if truth["direction"] == "down" else -1
            assert sign * (boxes[-1][3] - boxes[0][3]) > 8
        elif truth["action"] == "jump":
            assert max(b[3] for b in boxes) - min(b[3] for b in boxes) >= 8
            assert "jump" in controls
        elif truth["action"] == "fall":
            drops = [b[3] - a[3] for a, b in pairwise(boxes)]
            assert drops[0] <= 1
            assert max(drops) >= 5  # it gathers speed
            assert drops[-1] == 0  # and stands on the ground at last
        else:
            assert set(boxes) == {boxes[0]}
        for creature in truth["creatures"]:
            sign = 1 if creature["direction"] == "right" else -1
            assert sign * (middle(creature["boxes"][-1]) - middle(creature["boxes"][0])) > 5
            assert all(x1 - x0 > 4 and y1 - y0 > 4 for x0, y0, x1, y1 in creature["boxes"])
            over = all(low <= top for (*_, low), (_, top, *_) in zip(creature["boxes"], boxes, strict=True))
            if creature["motion"] == "fly":
                assert over or creature["place"] == "in the sky"
                assert all(low < 26 for *_, low in creature["boxes"])
            if creature["motion"] == "swim":
                assert creature["place"] == "in the water"
                assert all(top >= 64 - 13 for _, top, *_ in creature["boxes"])


def test_jumps_and_falls_are_parabolas() -> None:
    world = Platformer(height=512, width=512, frames=9)
    flights = 0
    for seed in range(60):
        truth = world.clip(seed)[1]["truth"]
        if truth["action"] in ("jump", "fall"):
            floor = 512 - 8 * (22 if any(c["motion"] == "swim" for c in truth["creatures"]) else 12)
            heights = [floor - box[3] for box in truth["boxes"]]
            for a, b, c in zip(heights, heights[1:], heights[2:], strict=False):
                if min(a, b, c) > 4:  # gravity: 72 units of 8 pixels a second squared, at 8 frames a second
                    assert a - 2 * b + c == pytest.approx(-9, abs=4), seed
                    flights += 1
    assert flights > 30


def covered(box: Box, by: Box) -> float:
    width = min(box[2], by[2]) - max(box[0], by[0])
    height = min(box[3], by[3]) - max(box[1], by[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))


@pytest.mark.parametrize("frames", [1, 17])
def test_what_a_caption_may_name_is_in_view(frames: int) -> None:
    world = Platformer(frames=frames)
    for seed in SEEDS:
        truth = world.clip(seed)[1]["truth"]
        assert all(right - left >= 8 and bottom - top >= 18 for left, top, right, bottom in truth["boxes"])
        for creature in truth["creatures"]:
            assert min(map(covered, creature["boxes"], truth["boxes"])) < 0.5
        for item in truth["items"]:
            assert covered(item["box"], truth["boxes"][0]) < 0.3


def test_a_fall_lands_only_if_the_clip_shows_it() -> None:
    said = {}
    for frames in (3, 17):
        world = Platformer(frames=frames)
        infos = [info for info in (world.clip(seed)[1] for seed in range(60)) if info["truth"]["action"] == "fall"]
        assert {info["truth"]["landed"] for info in infos} == {frames == 17}
        said[frames] = " ".join(caption for info in infos for caption in info["caption"])
    assert "towards" in said[3]
    assert "onto" not in said[3]
    assert "onto" in said[17]
    assert "towards" not in said[17]


def test_boxes_hold_the_pixels_that_change(clips: list[Clip]) -> None:
    """Outside the boxes of what moves, a frame equals every other frame; inside the character's, it does not."""
    for frames, info in clips:
        truth = info["truth"]
        moving = np.zeros(frames.shape[1:3], dtype=bool)
        for boxes in (truth["boxes"], *(creature["boxes"] for creature in truth["creatures"])):
            for x0, y0, x1, y1 in boxes:
                moving[y0:y1, x0:x1] = True
        changed = (frames != frames[0]).any(axis=(0, 3))
        assert not (changed & ~moving).any()
        if truth["action"] != "idle":
            x0, y0, x1, y1 = truth["boxes"][-1]
            assert changed[y0:y1, x0:x1].mean() > 0.1


def test_captions_say_only_what_is_true(clips: list[Clip]) -> None:
    names = {*CHARACTERS, *CREATURES, *ITEMS}
    for _, info in clips:
        truth = info["truth"]
        true = {truth["who"], *(c["name"] for c in truth["creatures"]), *(i["name"] for i in truth["items"])}
        assert len(set(info["caption"])) == len(info["caption"]) == 4
        assert all(name in info["caption"][-1] for name in (*true, truth["backdrop"]))
        for caption in info["caption"]:
            words = f" {caption.replace(',', '').replace(';', '')} "
            said = {name for name in names if f" {name} " in words.replace(" fly above", " ")}
            assert said <= true, caption
            assert truth["who"] in said, caption
            assert any(c["place"] == "above" for c in truth["creatures"]) or "above" not in caption, caption
            if "there are" in caption:
                assert caption.endswith(f"; there are {truth['backdrop'] or 'none'}"), caption
            assert {place for place in GROUNDS if f"{place} " in words} == {truth["ground"]}, caption
            for direction in ("left", "right"):
                allowed = [truth["direction"], *(c["direction"] for c in truth["creatures"] if c["motion"] == "crawl")]
                assert direction not in caption or direction in allowed, caption


@pytest.mark.parametrize(("height", "width", "frames"), [(64, 64, 1), (96, 128, 41), (48, 64, 5), (16, 16, 2)])
def test_other_sizes(height: int, width: int, frames: int) -> None:
    world = Platformer(height=height, width=width, frames=frames, fps=12.0)
    for seed in range(8):
        clip, info = world.clip(seed)
        assert clip.shape == (frames, height, width, 3)
        assert (info["height"], info["width"], info["frames"], info["fps"]) == (height, width, frames, 12.0)
        assert len(info["actions"]) == frames - 1


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="16 pixels or more"):
        Platformer(height=8)
    with pytest.raises(DataError, match="1 frame or more"):
        Platformer(frames=0)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprites, "find_spec", lambda name: None)
    sprites.folder.cache_clear()
    with pytest.raises(DataError, match=r"vpoet\[worlds\]"):
        sprites.folder()
    sprites.folder.cache_clear()


def test_the_world_does_not_import_arcade() -> None:
    script = (
        "import sys; from vpoet.worlds.platformer.world import Platformer; "
        "Platformer().clip(0); print('arcade' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_attributes_are_those_that_the_clip_shows() -> None:
    for seed in range(40):
        truth = Platformer(16, 16, frames=1).clip(seed)[1]["truth"]
        attributes = Platformer.attributes(seed)
        assert {name: truth[name] for name in attributes if name in truth}.items() <= attributes.items()
        assert [attributes["creature"]] == ([one["name"] for one in truth["creatures"]] or [""])
        assert [attributes["item"]] == ([one["name"] for one in truth["items"]] or [""])
