"""The Frechet distance against its definition, and its features against what they are made of; the nearest training
clip: a planted copy is found among others."""

from pathlib import Path

import numpy as np
import pytest

from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError, ShapeError
from vpoet.evaluate.distances import AT_ONCE, clip_features, frechet, gaussian_distance, nearest
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.worlds.platformer.world import Platformer

TRAINED = AT_ONCE + 12


def covariance(size: int, seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(size, size))
    return root @ root.T


def test_equal_gaussians_are_at_distance_0_and_moved_ones_at_the_square_of_the_way() -> None:
    cov, way = covariance(6, 0), np.arange(6.0)
    assert gaussian_distance(way, cov, way, cov) == pytest.approx(0, abs=1e-6)
    assert gaussian_distance(way, cov, 0 * way, cov) == pytest.approx(55)


def test_known_gaussians_have_the_closed_form() -> None:
    a, b = np.array([1.0, 4.0, 9.0]), np.array([4.0, 4.0, 1.0])
    zero = np.zeros(3)
    assert gaussian_distance(zero, np.diag(a), zero, np.diag(b)) == pytest.approx(1 + 0 + 4)  # sum (sqrt a - sqrt b)^2
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    turned = gaussian_distance(zero, turn @ np.diag(a) @ turn.T, zero, turn @ np.diag(b) @ turn.T)
    assert turned == pytest.approx(5)
    assert gaussian_distance(zero, np.diag(a), zero, 0 * np.diag(a)) == pytest.approx(14)  # a point: the trace


def test_covariances_that_do_not_commute_agree_with_the_root_of_their_product() -> None:
    a, b = covariance(5, 2), covariance(5, 3)
    overlap = np.sqrt(np.linalg.eigvals(a @ b).real).sum()  # the same eigenvalues as of the symmetric form
    zero = np.zeros(5)
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(np.trace(a + b) - 2 * overlap)
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(gaussian_distance(zero, b, zero, a))


def test_sets_are_compared_by_mean_and_covariance() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(size=(40000, 2)), random.normal(size=(40000, 2)) * (1, 3) + (2, 0)
    assert frechet(a, b) == pytest.approx(4 + 4, rel=0.03)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ShapeError, match="2 or more features"):
        frechet(a[:1], b)


def test_frames_tell_looks_and_motion_tells_movement() -> None:
    network = EfficientNetLite0()
    clips = [Platformer(32, 32, frames=5).clip(seed)[0] for seed in range(10)]
    features = clip_features(network, clips)
    assert (features["frames"].shape, features["motion"].shape) == ((50, 112), (10, 112))
    frozen = [np.repeat(clip[:1], 5, axis=0) for clip in clips]
    still = clip_features(network, frozen)
    assert not still["motion"].any()
    assert (features["motion"].sum(1) > 0).sum() >= 8
    np.testing.assert_allclose(still["frames"][::5], features["frames"][::5], rtol=1e-4, atol=1e-5)
    shuffled = clip_features(network, [clip[[0, 3, 1, 4, 2]] for clip in clips])
    assert frechet(features["frames"], shuffled["frames"]) < 1e-6
    assert frechet(features["motion"], shuffled["motion"]) > 1e-3
    assert not clip_features(network, [clips[0][:1]])["motion"].any()


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
