"""Features are computed once, by content, and batches change nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from vpoet.errors import DataError
from vpoet.evaluate.compare.clips import gather
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.media.video import Video

PLAIN = Protocol(frames=3, fit="none", size=0)


class Means:
    name, sha256, input = "means", "0" * 64, "mean and deviation"

    def __init__(self, most: int = 10**9) -> None:
        self.batches: list[int] = []
        self._most = most

    def __call__(self, clips: Tensor) -> Tensor:
        if sum(self.batches) + len(clips) > self._most:
            raise KeyboardInterrupt
        self.batches.append(len(clips))
        flat = clips.flatten(1).double()
        return torch.stack([flat.mean(1), flat.std(1)], 1)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for i in range(7):
        Video(random.integers(0, 256, (4, 16, 16, 3), np.uint8), 8.0).write(folder / f"{i}.mp4", lossless=True)
    return folder


def test_batches_and_a_kill_change_nothing_and_nothing_is_computed_twice(videos: Path, tmp_path: Path) -> None:
    clips = gather(videos)
    whole = Features(Means(), PLAIN, tmp_path / "whole", 7).of(clips, True)
    assert whole.shape == (7, 2)
    with pytest.raises(KeyboardInterrupt):
        Features(Means(most=4), PLAIN, tmp_path / "cache", 2).of(clips, True)
    network = Means()
    resumed = Features(network, PLAIN, tmp_path / "cache", 2)
    np.testing.assert_allclose(resumed.of(clips, True), whole, rtol=1e-12)
    assert (network.batches, resumed.computed) == ([2, 1], 3)
    again = Features(Means(most=0), PLAIN, tmp_path / "cache", 2)
    assert (again.of(clips[::-1], False) == resumed.of(clips, True)[::-1]).all()
    assert again.computed == 0


def test_a_changed_clip_protocol_network_or_damage_is_computed_anew(videos: Path, tmp_path: Path) -> None:
    def computed(protocol: Protocol = PLAIN) -> int:
        found = Features(Means(), protocol, tmp_path / "cache", 4)
        found.of(gather(videos), True)
        return found.computed

    assert computed() == 7
    (videos / "1.mp4").write_bytes((videos / "0.mp4").read_bytes())  # its content is known by another name
    assert computed() == 0
    Video(np.zeros((4, 16, 16, 3), np.uint8), 8.0).write(videos / "1.mp4")
    assert computed() == 1
    assert computed(Protocol(frames=2, fit="none", size=0)) == 7
    assert computed(Protocol(frames=3, fit="none", size=0, network="other")) == 7
    files = sorted((tmp_path / "cache").iterdir())
    for file in files:
        file.write_bytes(file.read_bytes()[:60])
    assert computed() == 7


@pytest.mark.parametrize("size", [1, 4])
def test_mixed_sizes_and_rates_are_refused_unless_the_protocol_settles_them(
    videos: Path, tmp_path: Path, size: int
) -> None:
    other = np.zeros((4, 16, 18, 3), np.uint8)
    Video(other, 8.0).write(videos / "3.mp4", lossless=True)
    for _ in range(2):  # also from the cache
        with pytest.raises(DataError, match="mixed sizes: 0 has 16x16 pixels and 3 16x18"):
            Features(Means(), PLAIN, tmp_path / "cache", size).of(gather(videos), True)
    resized = Protocol(frames=3, size=8)
    Features(Means(), resized, tmp_path / "cache", size).of(gather(videos), True)
    Video(other, 24.0).write(videos / "3.mp4", lossless=True)
    for _ in range(2):
        with pytest.raises(DataError, match="mixed frame rates: 0 has 8 fps and 3 24"):
            Features(Means(), resized, tmp_path / "cache", size).of(gather(videos), True)
    Features(Means(), Protocol(frames=1, size=8, fps=8), tmp_path / "cache", size).of(gather(videos), True)


def test_features_that_are_no_numbers_are_refused(videos: Path, tmp_path: Path) -> None:
    class Broken(Means):
        def __call__(self, clips: Tensor) -> Tensor:
            return super().__call__(clips) / 0

    with pytest.raises(DataError, match="means gives features that are not finite"):
        Features(Broken(), PLAIN, tmp_path / "cache", 4).of(gather(videos), True)
