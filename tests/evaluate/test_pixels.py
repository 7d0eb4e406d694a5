"""PSNR, SSIM and flicker against values worked out by hand and against the formula written out window by window."""

import math

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.evaluate.pixels import EQUAL, flicker, psnr, ssim


def noise(seed: int, shape: tuple[int, ...] = (2, 14, 13, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_by_hand() -> None:
    a = np.full((1, 4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[...] = 110  # every error is 10
    assert psnr(a, b) == pytest.approx(20 * math.log10(255 / 10))
    b[...] = 90  # below: uint8 must not wrap around
    assert psnr(a, b) == pytest.approx(20 * math.log10(255 / 10))


def test_psnr_is_the_mean_over_frames_and_capped_where_equal() -> None:
    a = np.zeros((2, 4, 4, 3), np.uint8)
    b = a.copy()
    b[1] = 255
    assert psnr(a, a) == EQUAL
    assert psnr(a, b) == pytest.approx((EQUAL + 0) / 2)


def test_ssim_equals_the_formula_window_by_window() -> None:
    a, b = noise(0), noise(1)
    b[..., 1] = a[..., 1] // 2 + 60
    gauss = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    window = np.outer(gauss, gauss) / gauss.sum() ** 2
    values = []
    for t in range(2):
        for top in range(14 - 10):
            for left in range(13 - 10):
                for channel in range(3):
                    x = a[t, top : top + 11, left : left + 11, channel].astype(float)
                    y = b[t, top : top + 11, left : left + 11, channel].astype(float)
                    mx, my = (window * x).sum(), (window * y).sum()
                    vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                    cov = (window * (x - mx) * (y - my)).sum()
                    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                    values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_psnr_and_ssim_are_scikit_images() -> None:
    """What peak_signal_noise_ratio and structural_similarity (gaussian_weights=True, use_sample_covariance=False) of
    scikit-image 0.26.0 gave, with data_range=255, frame by frame."""
    a = noise(0, (2, 24, 21, 3))
    b = (a // 2 + noise(1, (2, 24, 21, 3)) // 3).astype(np.uint8)
    assert psnr(a, b) == pytest.approx(14.181478199273062, rel=1e-9)
    assert ssim(a, b) == pytest.approx(0.7237873680913585, rel=1e-9)


def test_ssim_of_equals_is_one_and_falls_with_noise() -> None:
    a = noise(0)
    little = np.clip(a + np.random.default_rng(2).normal(0, 10, a.shape), 0, 255).astype(np.uint8)
    assert ssim(a, a) == pytest.approx(1)
    assert 0.9 < ssim(a, little) < 1
    assert ssim(a, noise(1)) < 0.1


def test_flicker_by_hand() -> None:
    original = np.zeros((3, 2, 2, 3), np.uint8)
    original[1:] = 200
    drawn = original.copy()
    drawn[1] -= 6  # one frame is off: both changes that it takes part in are
    assert flicker(original, drawn) == pytest.approx(6)
    drawn[0, 0] = 255  # wrong by 255 in half of the first frame: its change is then -61 in place of 200
    assert flicker(original, drawn) == pytest.approx(((261 + 6) / 2 + 6) / 2)


def test_an_error_that_stays_in_its_place_does_not_flicker() -> None:
    original = np.random.default_rng(0).integers(0, 200, (4, 8, 8, 3), dtype=np.uint8)
    still = original + np.random.default_rng(1).integers(0, 50, (1, 8, 8, 3), dtype=np.uint8)
    assert flicker(original, original) == 0
    assert flicker(original, still) == 0


def test_noise_of_each_frame_flickers_by_two_sigma_over_root_pi() -> None:
    random = np.random.default_rng(0)
    original = np.full((9, 64, 64, 3), 128, np.uint8)
    for sigma in (5, 20):
        noisy = np.rint(original + random.normal(0, sigma, original.shape)).clip(0, 255).astype(np.uint8)
        assert flicker(original, noisy) == pytest.approx(2 * sigma / math.sqrt(math.pi), rel=0.02)


def test_a_single_frame_cannot_flicker() -> None:
    with pytest.raises(ShapeError, match="two or more"):
        flicker(noise(0)[:1], noise(1)[:1])


@pytest.mark.parametrize("score", [psnr, ssim, flicker])
def test_what_has_no_score_is_refused(score: object) -> None:
    assert callable(score)
    a = noise(0)
    with pytest.raises(ShapeError, match="different sizes"):
        score(a, a[:1])
    with pytest.raises(ShapeError, match="uint8"):
        score(a.astype(float), a)
    with pytest.raises(ShapeError, match="not empty"):
        score(a[:0], a[:0])


def test_ssim_needs_a_window() -> None:
    with pytest.raises(ShapeError, match="11x11"):
        ssim(noise(0, (1, 10, 20, 3)), noise(1, (1, 10, 20, 3)))
