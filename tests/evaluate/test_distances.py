"""The Frechet distance against its definition, and its features against what they are made of."""

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.evaluate.distances import clip_features, frechet, gaussian_distance
from vpoet.nn.features import EfficientNetLite0
from vpoet.worlds.platformer.world import Platformer


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
