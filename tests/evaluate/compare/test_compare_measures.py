"""Distances against plain references, intervals against what they claim, diversity against known answers."""

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.evaluate.compare.measures import LEAST, bootstrap, curve, diversity, mmd, mmd_bootstrap
from vpoet.evaluate.distances import frechet


def test_frechet_equals_that_of_scipys_sqrtm() -> None:
    """scipy is no dependency: what sqrtm of scipy 1.17.1 gave for the covariances' product."""
    random = np.random.default_rng(7)
    a = random.normal(size=(60, 12)) @ random.normal(size=(12, 12))
    b = random.normal(size=(50, 12)) @ random.normal(size=(12, 12)) + 0.5
    assert frechet(a, b) == pytest.approx(94.79367893917109, rel=1e-10)


def test_mmd_equals_its_definition() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(9, 6)), random.normal(size=(7, 6)) + 0.3

    def mean_kernel(xs: np.ndarray, ys: np.ndarray) -> float:
        return sum((sum(float(p * q) for p, q in zip(x, y, strict=True)) / 6) ** 2 for x in xs for y in ys) / (
            len(xs) * len(ys)
        )

    assert mmd(a, b) == pytest.approx(100 * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)), abs=1e-6)
    assert mmd(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ShapeError, match="of one length"):
        mmd(a, b[:, :5])


def test_intervals_are_as_wide_as_the_measure_spreads_over_sets() -> None:
    random = np.random.default_rng(1)

    def gap(a: np.ndarray, b: np.ndarray) -> float:
        return float(a.mean() - b.mean())

    half = bootstrap(gap, random.normal(size=(100, 1)), random.normal(size=(400, 1)), 0, 400)
    assert half == pytest.approx(1.96 * np.sqrt(1 / 100 + 1 / 400), rel=0.2)
    again = bootstrap(gap, np.arange(20.0)[:, None], np.arange(20.0)[:, None], 3, 20)
    assert again == bootstrap(gap, np.arange(20.0)[:, None], np.arange(20.0)[:, None], 3, 20)


def test_mmds_interval_from_one_kernel_equals_that_from_sets_drawn_anew() -> None:
    random = np.random.default_rng(5)
    a, b = random.normal(size=(12, 6)), random.normal(size=(9, 6)) + 0.3
    assert mmd_bootstrap(a, b, 4, 30) == pytest.approx(bootstrap(mmd, a, b, 4, 30), rel=1e-9)


def test_a_curve_falls_to_its_floor_for_sets_alike_and_stays_above_for_others() -> None:
    random = np.random.default_rng(2)
    real, alike = random.normal(size=(256, 4)), random.normal(size=(128, 4))
    points = curve(real, alike, 0)
    assert [point.clips for point in points] == [8, 16, 32, 64, 128]
    assert points[0].floor > 3 * points[-1].floor
    assert points[-1].distance == pytest.approx(points[-1].floor, abs=0.15)
    others = curve(real, alike + 1, 0)
    assert others[-1].distance > 3.2
    assert [point.floor for point in others] == [point.floor for point in points]
    with pytest.raises(ShapeError, match=f"takes {LEAST} clips"):
        curve(real[:7], alike, 0)


def test_the_floors_sets_share_no_clip() -> None:
    """Each real clip in its own place: if the halves shared one, it would be the same point in both."""
    real = np.eye(16)
    floor = curve(real, real, 0)[-1].floor
    assert floor == pytest.approx(frechet(real[:8], real[8:]))


def test_diversity_tells_what_is_missing_from_what_is_wrong() -> None:
    random = np.random.default_rng(3)
    left, right, far = (random.normal(size=(60, 3)) + centre for centre in (-20.0, 20.0, 90.0))
    real = np.concatenate([left, right])
    again = np.concatenate([random.normal(size=(60, 3)) - 20, random.normal(size=(60, 3)) + 20])
    good, lost, wrong = (diversity(real, fake) for fake in (again, again[:60], far))
    assert min(good.values()) > 0.75
    assert lost["precision"] > 0.75
    assert lost["recall"] < 0.55
    assert lost["coverage"] < 0.55
    assert set(wrong.values()) == {0.0}
    copies = diversity(real, real)
    assert (copies["precision"], copies["recall"], copies["coverage"]) == (1, 1, 1)
    assert copies["density"] == pytest.approx(6 / 5, abs=0.25)  # itself, and some five others
    with pytest.raises(ShapeError, match="more than 5 clips"):
        diversity(real, far[:5])
