"""Damage does what it says, and the ladder tells which measures notice."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.evaluate.compare import ladder
from vpoet.evaluate.compare.clips import gather
from vpoet.evaluate.compare.corruptions import CORRUPTIONS
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.media.video import Video

BY_NAME = {each.name: each for each in CORRUPTIONS}


@pytest.fixture
def frames() -> np.ndarray:
    """A ball on a ground of noise; every frame is another."""
    found = np.random.default_rng(0).integers(60, 200, (1, 32, 48, 3), np.uint8).repeat(8, 0)
    for t in range(8):
        found[t, 10:16, 4 * t : 4 * t + 6] = (250, 10, 10)
    return found


def test_each_rung_damages_more_and_keeps_size_and_length(frames: np.ndarray) -> None:
    for each in CORRUPTIONS:
        made = [each.damaged(frames, level, seed=1) for level in each.levels]
        errors = [float(np.square(clip.astype(float) - frames).mean()) for clip in made]
        assert all(clip.shape == frames.shape and clip.dtype == np.uint8 for clip in made)
        assert errors[0] > 0
        assert errors == sorted(set(errors)), each.name
        assert (each.damaged(frames, each.levels[0], seed=1) == made[0]).all()


def test_shuffled_frames_are_all_there_and_none_that_is_chosen_stays(frames: np.ndarray) -> None:
    shuffled = BY_NAME["shuffled frames"]
    moved = []
    for share in (0.25, 0.5, 1):
        clip = shuffled.damaged(frames, share, seed=3)
        assert sorted(map(bytes, clip)) == sorted(map(bytes, frames))
        moved.append({t for t in range(8) if (clip[t] != frames[t]).any()})
        assert len(moved[-1]) == round(8 * share)
    assert moved[0] < moved[1] < moved[2]


def test_frozen_frames_are_the_last_ones(frames: np.ndarray) -> None:
    clip = BY_NAME["frozen frames"].damaged(frames, 0.5, seed=0)
    assert (clip[:4] == frames[:4]).all()
    assert (clip[4:] == frames[3]).all()
    assert (BY_NAME["frozen frames"].damaged(frames, 1, seed=0) == frames[0]).all()


class Red:
    """Sees how red frames are, and nothing of their order."""

    name, sha256, input = "red", "0" * 64, "mean of the red channel, and its deviation"

    def __call__(self, clips: Tensor) -> Tensor:
        red = clips[..., 0].flatten(1).double()
        return torch.stack([red.mean(1), red.std(1)], 1)


def test_a_measure_notices_what_its_network_sees_and_is_blind_to_the_rest(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(16):
        level = random.integers(97, 104)
        clip = random.integers(level - 10, level + 10, (6, 16, 16, 3), np.uint8)
        Video(clip, 8.0).write(tmp_path / "clips" / f"{i:02}.mp4", lossless=True)
    clips = gather(tmp_path / "clips")
    rules = Protocol(frames=4, fit="none", size=0, count=8)
    features = Features(Red(), rules, tmp_path / "features", 8)
    found = ladder.climb(rules, features, clips[:8], clips[8:], lambda group: group, 20)
    distance = rules.title
    assert found.clips == 8
    assert found.steps(distance, "colour shift") == (4, 4)
    assert found.noticed(distance, "colour shift") in (1, 2)
    values = found.values[distance]
    assert values["shuffled frames"] == pytest.approx([values["blur"][0]] * 5)
    assert found.noticed(distance, "shuffled frames") is None
    assert found.steps("PSNR, dB", "colour shift") == (4, 4)
    assert found.values["PSNR, dB"]["frozen frames"][0] == 100
    assert found.noticed("PSNR, dB", "blur") is None, "there is no interval to tell chance by"
    lines = ladder.table(found).splitlines()
    assert lines[0] == "| measure | blur | shuffled frames | frozen frames | compression | colour shift |"
    assert lines[2].startswith(f"| {distance} | ")
    assert lines[2].endswith("| 4 of 4, from 1 |") or lines[2].endswith("| 4 of 4, from 2 |")
    again = Features(Red(), rules, tmp_path / "features", 8)
    assert ladder.climb(rules, again, clips[:8], clips[8:], lambda group: group, 20).told() == found.told()
    assert again.computed == 0
    assert len(ladder.rows(clips[0], rules)) == 21
