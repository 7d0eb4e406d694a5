"""The nearest training clip: a planted copy is found among others."""

from pathlib import Path

import numpy as np
import pytest

from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.evaluate.nearest import AT_ONCE, nearest
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

TRAINED = AT_ONCE + 12


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    with ShardWriter(folder, kind="raw", samples_per_shard=20) as writer:
        for seed in range(TRAINED):
            frames, info = Platformer(32, 32, frames=5).clip(seed)
            writer.write(f"clip-{seed}", {"json": info, "mp4": Video(frames, 8).encode(".mp4", lossless=True)})
    writer.manifest().save(folder)
    return folder


def test_planted_copies_are_found(training: Path) -> None:
    world = Platformer(32, 32, frames=5)
    first, last = world.clip(3)[0], world.clip(TRAINED - 1)[0]
    noise = np.random.default_rng(0).integers(-8, 9, last.shape)
    nearly = (last.astype(int) + noise).clip(0, 255).astype(np.uint8)
    distances, keys = nearest([first, nearly, world.clip(5000)[0]], training)
    assert keys[:2] == ["clip-3", f"clip-{TRAINED - 1}"]
    assert distances[0] == 0
    assert 0 < distances[1] < 3
    assert distances[2] > 3


def test_the_nearest_is_that_of_all_pairs(training: Path) -> None:
    world = Platformer(32, 32, frames=5)

    def shrunk(seed: int) -> np.ndarray:
        return world.clip(seed)[0].reshape(5, 8, 4, 8, 4, 3).mean((2, 4))

    distances, keys = nearest([world.clip(seed)[0] for seed in (6000, 6001)], training)
    for seed, distance, key in zip((6000, 6001), distances, keys, strict=True):
        pairs = [np.sqrt(np.square(shrunk(seed) - shrunk(other)).mean()) for other in range(TRAINED)]
        assert key == f"clip-{np.argmin(pairs)}"
        assert distance == pytest.approx(min(pairs), rel=1e-4)


def test_clips_of_another_shape_have_no_neighbour(training: Path) -> None:
    with pytest.raises(DataError, match="no clip of 6 x 32 x 32"):
        nearest([np.zeros((6, 32, 32, 3), np.uint8)], training)
