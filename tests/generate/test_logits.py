"""Filters by property, the draw against its distribution."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vpoet.generate.logits import draw, explain, guide, keep, temper
from vpoet.generate.logits import gumbel as noise

# Rounded to eighths, so that equal logits are common.
rows = st.lists(st.integers(-80, 80).map(lambda n: n / 8), min_size=1, max_size=40).map(torch.tensor)
fast = settings(max_examples=200, deadline=None, derandomize=True)


def gumbel(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).gumbel(size=shape)).float()


def kept(logits: Tensor) -> Tensor:
    return logits > -torch.inf


@fast
@given(rows, st.floats(0.01, 0.999))
def test_the_nucleus_is_minimal(logits: Tensor, p: float) -> None:
    filtered = keep(logits, top_p=p)
    probabilities = logits.double().softmax(-1)
    inside = probabilities[kept(filtered)]
    assert float(inside.sum()) >= p - 1e-12
    assert float(inside.sum() - inside.min()) < p + 1e-12
    outside = probabilities[~kept(filtered)]
    assert not len(outside) or float(outside.max()) <= float(inside.min())
    assert torch.equal(filtered[kept(filtered)], logits[kept(filtered)])


def test_the_nucleus_of_a_peaked_distribution_is_its_peak() -> None:
    logits = torch.tensor([0.97, 0.01, 0.01, 0.01]).log()
    assert kept(keep(logits, top_p=0.5)).tolist() == [True, False, False, False]
    assert kept(keep(logits, top_p=0.975)).sum() == 2
    assert kept(keep(logits, top_p=1.0)).all()


def test_the_nucleus_of_a_flat_large_vocabulary_is_not_lost_to_rounding() -> None:
    assert int(kept(keep(torch.zeros(64_000), top_p=0.9)).sum()) == pytest.approx(57_600, abs=1)


@fast
@given(rows, st.integers(0, 50))
def test_top_k_keeps_exactly_the_k_largest(logits: Tensor, k: int) -> None:
    filtered = keep(logits, top_k=k)
    count = len(logits) if k == 0 else min(k, len(logits))
    assert int(kept(filtered).sum()) == count
    assert torch.equal(filtered[kept(filtered)].sort().values, logits.sort(descending=True).values[:count].flip(0))
    assert torch.equal(filtered[kept(filtered)], logits[kept(filtered)])


@fast
@given(rows, st.floats(0.1, 5))
def test_temperature_scales_the_log_odds(logits: Tensor, temperature: float) -> None:
    before, after = logits.log_softmax(-1), temper(logits, temperature).log_softmax(-1)
    torch.testing.assert_close(after - after[0], (before - before[0]) / temperature, rtol=1e-4, atol=1e-3)


@fast
@given(rows)
def test_no_temperature_takes_the_largest_whatever_the_noise(logits: Tensor) -> None:
    assert draw(temper(logits, 0), gumbel(logits.shape, 0) * 100, 0) == logits.argmax()


@fast
@given(rows, st.floats(0, 1))
def test_min_p_keeps_what_is_near_the_likeliest(logits: Tensor, p: float) -> None:
    probabilities = logits.double().softmax(-1)
    inside = kept(keep(logits, min_p=p))
    assert bool(inside[probabilities.argmax()])
    assert bool((probabilities[inside] >= p * probabilities.max() * (1 - 1e-12)).all())
    assert bool((probabilities[~inside] <= p * probabilities.max() * (1 + 1e-12)).all())


@fast
@given(rows, st.integers(1, 50), st.floats(0.01, 0.999), st.floats(0, 1))
def test_filters_act_each_on_what_the_one_before_it_left(logits: Tensor, k: int, p: float, m: float) -> None:
    one_by_one = keep(keep(keep(logits, top_k=k), top_p=p), min_p=m)
    assert torch.equal(keep(logits, top_k=k, top_p=p, min_p=m), one_by_one)
    settings = {name: torch.tensor(value, dtype=torch.float64) for name, value in zip("kpm", (k, p, m), strict=True)}
    as_tensors = keep(logits, top_k=settings["k"], top_p=settings["p"], min_p=settings["m"])
    assert torch.equal(as_tensors, one_by_one)


@fast
@given(rows, st.floats(0, 9))
def test_guidance_is_its_formula(logits: Tensor, scale: float) -> None:
    other = logits.flip(0)
    torch.testing.assert_close(guide(logits, other, scale), scale * logits + (1 - scale) * other, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(guide(logits, other, 1), logits)
    assert torch.equal(guide(logits, other, 0), other)


def test_filters_work_on_every_row_of_a_batch_alone() -> None:
    logits = torch.randn(3, 4, 17, generator=torch.Generator().manual_seed(0))
    for function in (
        lambda x: keep(x, top_p=0.6),
        lambda x: keep(x, top_k=5),
        lambda x: keep(x, min_p=0.2),
        lambda x: temper(x, 0.7),
    ):
        batch = function(logits)
        assert torch.equal(batch, torch.stack([torch.stack([function(row) for row in rows]) for rows in logits]))


@fast
@given(rows, st.integers(1, 50), st.floats(0.01, 1), st.integers(0, 2**32))
def test_a_draw_is_never_what_a_filter_removed(logits: Tensor, k: int, p: float, seed: int) -> None:
    filtered = keep(logits, top_k=k, top_p=p)
    assert bool(kept(filtered)[draw(filtered, gumbel(filtered.shape, seed))])


def test_draws_have_their_distribution() -> None:
    """Chi-squared over 200,000 draws of 20 tokens, 19 degrees of freedom: above 60 with probability 4e-6. The seed is
    fixed; the probability is that of having chosen an unlucky one."""
    logits = torch.randn(20, generator=torch.Generator().manual_seed(3)) * 2
    n = 200_000
    drawn = draw(logits.expand(n, 20), gumbel((n, 20), seed=5))
    expected = logits.double().softmax(-1) * n
    assert float(expected.min()) > 5
    found = torch.bincount(drawn, minlength=20)
    assert float(((found - expected) ** 2 / expected).sum()) < 60


def test_noise_is_that_of_its_seed_in_however_many_calls_and_none_without_a_generator() -> None:
    whole = noise(np.random.default_rng(4), 5, 300)
    wanted = -np.log(np.random.default_rng(4).standard_exponential((5, 300)))
    assert np.array_equal(whole, wanted.astype(np.float32))
    generator = np.random.default_rng(4)
    assert np.array_equal(np.concatenate([noise(generator, 2, 300), noise(generator, 3, 300)]), whole)
    assert not noise(None, 5, 300).any()


@pytest.mark.parametrize("temperature", [1e-39, 1e-45, 5e-324, 1e-31, 1e-30])
@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_temperature_next_to_nothing_takes_the_likeliest(temperature: float, as_tensor: bool) -> None:
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(0)) * 30
    setting = torch.tensor(temperature) if as_tensor else temperature
    cold = temper(logits, setting)
    assert bool(cold.isfinite().all())
    assert bool(cold.log_softmax(-1).amax(-1).isfinite().all())
    drawn = draw(keep(cold, top_p=0.9), gumbel(logits.shape, 1), setting)
    assert torch.equal(drawn, logits.argmax(-1))


@fast
@given(rows, st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_explained_noise_draws_the_choice(logits: Tensor, seed: int, where: float) -> None:
    """Any choice, however improbable, among equal logits too; what a filter removed keeps the noise it had."""
    logits = keep(logits * 7, top_k=20)
    possible = kept(logits).nonzero()[:, 0]
    choice = possible[min(int(where * len(possible)), len(possible) - 1)]
    fresh = gumbel(logits.shape, seed)
    found = explain(logits, choice, fresh)
    assert found.isfinite().all()
    assert draw(logits, found) == choice
    assert int((logits + found == (logits + found).max()).sum()) == 1
    assert torch.equal(found[~kept(logits)], fresh[~kept(logits)])


def test_explained_noise_is_distributed_as_noise_given_the_choice() -> None:
    """With choices drawn from the same logits, the noise is independent standard Gumbel noise again (the tower rule),
    so that a redraw from other logits is a sample of those; and given one choice, it is as rejection finds it."""
    count, logits, others = (
        40_000,
        torch.tensor([1.0, 0.0, -2.0, -torch.inf, 0.5]),
        torch.tensor([0.0, 2.0, 0.0, 1.0, -1]),
    )
    first, second = gumbel((count, 5), 0), gumbel((count, 5), 1)
    choices = draw(logits, first)
    found = explain(logits.expand(count, 5), choices, second)
    steps = torch.arange(1, count + 1) / count
    distances = [
        float((torch.exp(-torch.exp(-column.double().sort().values)) - steps).abs().max()) for column in found.T
    ]
    assert max(distances) < 1.95 / count**0.5  # Kolmogorov and Smirnov: one in a thousand is beyond
    assert float((torch.corrcoef(found.T) - torch.eye(5)).abs().max()) < 4 / count**0.5
    shares = torch.bincount(draw(others, found), minlength=5) / count
    assert float((shares - others.softmax(-1)).abs().max()) < 4 * 0.5 / count**0.5

    rejected, given = (
        first[choices == 1],
        explain(logits.expand(count, 5), torch.ones(count, dtype=torch.int64), second),
    )
    for a, b in zip(rejected.T, given.T, strict=True):
        a, b = a.sort().values, b.sort().values
        at_a, at_b = (torch.searchsorted(x, torch.cat((a, b)), right=True) / len(x) for x in (a, b))
        assert float((at_a - at_b).abs().max()) < 1.95 * (1 / len(a) + 1 / len(b)) ** 0.5
