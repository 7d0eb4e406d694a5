"""Code statistics: against hand counts, against sampling, and the bigram model as a proper distribution."""

import math

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.evaluate.codes import CodeStatistics


def statistics(codes: np.ndarray, size: int) -> CodeStatistics:
    result = CodeStatistics(size)
    result.update(codes)
    return result


def test_counts_by_hand() -> None:
    codes = np.array([[[0, 1], [1, 2]], [[0, 0], [0, 0]]], np.int32)  # two frames of 2x2
    seen = statistics(codes, 4)
    assert seen.counts.tolist() == [5, 2, 1, 0]
    assert seen.firsts.tolist() == [2, 0, 0, 0]
    assert seen.pairs == {0 * 4 + 1: 1, 1 * 4 + 1: 1, 1 * 4 + 2: 1, 0: 3}, "no pair crosses from one frame to the next"
    assert (seen.total, seen.used, seen.usage) == (8, 3, 0.75)
    shares = np.array([5, 2, 1]) / 8
    assert seen.entropy == pytest.approx(-(shares * np.log2(shares)).sum())
    assert seen.perplexity == pytest.approx(2**seen.entropy)


def test_updates_add_up() -> None:
    codes = np.random.default_rng(0).integers(0, 50, (6, 2, 4, 4))
    whole, parts = statistics(codes, 50), CodeStatistics(50)
    for clip in codes:
        parts.update(clip)
    assert parts.pairs == whole.pairs
    assert np.array_equal(parts.counts, whole.counts)


def test_one_code_has_no_entropy_and_uniform_codes_have_all() -> None:
    assert statistics(np.zeros((1, 4, 4), int), 16).entropy == 0
    assert statistics(np.arange(16).reshape(1, 4, 4), 16).entropy == pytest.approx(4)


def test_uniform_usage_is_what_uniform_sources_cover() -> None:
    """200 draws of 300 codes among 500, whose mean coverage has a standard error of 0.0009: five of them, p < 1e-6."""
    rng = np.random.default_rng(0)
    covered = [len(np.unique(rng.integers(0, 500, 300))) / 500 for _ in range(200)]
    expected = statistics(np.zeros((3, 10, 10), int), 500).uniform_usage
    assert expected == pytest.approx(np.mean(covered), abs=0.0045)


def test_bigram_probabilities_sum_to_one_after_every_code() -> None:
    rng = np.random.default_rng(0)
    train = statistics(rng.integers(0, 7, (3, 3, 3)) % 6, 8)  # code 7 is never seen, and no pair begins with it
    for before in range(8):
        total = 0.0
        for code in range(8):
            held_out = statistics(np.array([[[before, code]]]), 8)
            first = statistics(np.array([[[before]]]), 8)
            total += 2 ** -(2 * train.bigram_bits(held_out) - train.bigram_bits(first))
        assert total == pytest.approx(1)


def test_bigram_bits_by_hand() -> None:
    """Of 0 follow 1, 1 and 2: n = 3, d = 2. Frequencies of 0, 1, 2: 3/6, 2/6, 1/6, smoothed with 3 times 1/4 over 9."""
    train = CodeStatistics(4)
    for code in (1, 1, 2):
        train.update(np.array([[[0, code]]]))
    first, second = (3 + 3 / 4) / 9, (2 + 2 * (2 + 3 / 4) / 9) / (3 + 2)
    expected = -(math.log2(first) + math.log2(second)) / 2
    assert train.bigram_bits(statistics(np.array([[[0, 1]]]), 4)) == pytest.approx(expected)


def test_bigrams_find_what_frequencies_cannot() -> None:
    """Codes that count upwards: uniform frequencies, yet each is certain from the one before."""
    rng = np.random.default_rng(0)
    clips = (rng.integers(0, 16, (200, 1, 1)) + np.arange(16)).reshape(200, 1, 4, 4) % 16
    train, held_out = statistics(clips[:150], 16), statistics(clips[150:], 16)
    assert held_out.entropy > 3.9
    assert train.bigram_bits(held_out) < 0.5
    shuffled = statistics(rng.permuted(clips[150:].reshape(50, 16), axis=1).reshape(50, 1, 4, 4), 16)
    assert train.bigram_bits(shuffled) > 4


def test_without_training_codes_all_are_equally_likely() -> None:
    assert CodeStatistics(16).bigram_bits(statistics(np.zeros((1, 2, 2), int), 16)) == pytest.approx(math.log2(16))


def test_foreign_codes_are_refused() -> None:
    seen = CodeStatistics(8)
    with pytest.raises(ShapeError, match="0 to 7"):
        seen.update(np.full((1, 2, 2), 8))
    with pytest.raises(ShapeError, match="integers"):
        seen.update(np.zeros((1, 2, 2)))
    with pytest.raises(ShapeError, match="not comparable"):
        seen.bigram_bits(CodeStatistics(9))
    with pytest.raises(ShapeError, match="no held-out"):
        seen.bigram_bits(CodeStatistics(8))
