"""What a prompt states, and shares with their intervals."""

import math
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.evaluate.adherence import prompts, shares, table, wrong
from vpoet.evaluate.intervals import wilson
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import ATTRIBUTES, Platformer


def test_a_caption_names_all_that_it_is_said_to_state() -> None:
    words = {"planet": "a planet", "day": "by day", "dusk": "at dusk", "night": "at night", "fog": "in fog"}
    words |= {"walk": "walk", "jump": "jump", "climb": "climb", "fall": "fall", "idle": "still"}
    for seed in range(60):
        info = Platformer(16, 16, frames=17).clip(seed)[1]
        for phrasing in range(3):
            said = Platformer.stated(info, phrasing)
            assert said.pop("faults") == ""
            assert said["creature"] == (info["truth"]["creatures"] or [{"name": ""}])[0]["name"]
            assert ("sky" in said) == (phrasing > 0)
            assert ("direction" in said) == (info["truth"]["action"] in ("walk", "climb"))
            for value in said.values():
                assert words.get(value, value) in info["caption"][phrasing]
            open_skies = [sky for sky in ATTRIBUTES["sky"] if words[sky] in info["caption"][phrasing]]
            assert len(open_skies) == (phrasing > 0)


def test_only_what_is_stated_counts() -> None:
    asked = [{"who": "hero", "creature": "bee"}, {"who": "hero", "sky": "day"}, {"who": "man"}]
    seen = [
        dict.fromkeys(Platformer.judged, "") | one
        for one in ({"who": "hero"}, {"who": "hero", "sky": "day"}, {"who": "hero"})
    ]
    assert wrong(asked[0], seen[0]) == {"creature": ""}
    result = shares(asked, seen)
    counted = {name: (one["right"], one["count"]) for name, one in result.items() if one["count"]}
    assert counted == {"who": (2, 3), "sky": (1, 1), "creature": (0, 1), "jointly": (1, 3)}
    assert math.isnan(result["ground"]["share"])
    head, _, row = table({"samples": result}).splitlines()
    assert head.endswith("| creature | no faults | jointly |")
    assert row.startswith("| samples | 66.7 (20.8 to 93.9) | - |")


def test_wilsons_interval_is_that_of_the_paper_and_holds_the_share_19_times_in_20() -> None:
    # its ends are the shares from which the observed one is 1.96 standard deviations away
    for right, count in ((0, 10), (3, 10), (98, 100), (10, 10)):
        low, high = wilson(right, count)
        assert 0 <= low <= right / count <= high + 1e-9 <= 1 + 1e-9
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9:
                assert (right / count - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / count)
    draws = np.random.default_rng(0).binomial(200, 0.9, 4000).tolist()
    held = np.mean([low <= 0.9 <= high for low, high in (wilson(right, 200) for right in draws)])
    assert held == pytest.approx(0.95, abs=0.02)  # binomial: 0.95 to 0.96; 4000 draws: 0.0035
    assert all(map(math.isnan, wilson(0, 0)))


def test_prompts_are_captions_in_turn_without_those_of_training(tmp_path: Path) -> None:
    world = Platformer(16, 16, frames=5)
    with ShardWriter(tmp_path, kind="raw") as writer:
        for seed in range(8):
            frames, info = world.clip(seed)
            writer.write(f"clip-{seed}", {"json": info, "mp4": Video(frames, 8).encode(".mp4", lossless=True)})
    writer.manifest().save(tmp_path)
    found = prompts(tmp_path, 4)
    assert [prompt.key for prompt in found] == ["clip-0", "clip-1", "clip-2", "clip-3"]
    assert [prompt.text for prompt in found] == [world.clip(i)[1]["caption"][i % 3] for i in range(4)]
    assert (found[2].real == world.clip(2)[0]).all()
    rest = prompts(tmp_path, 100, frozenset([found[0].text]))
    assert [prompt.key for prompt in rest] == [f"clip-{i}" for i in range(1, 8)]
    everything = frozenset(caption for i in range(8) for caption in world.clip(i)[1]["caption"])
    with pytest.raises(DataError, match="no clip whose caption"):
        prompts(tmp_path, 4, everything)
