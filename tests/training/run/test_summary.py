"""A run in a few numbers: totals and means over rows that measure different stretches, some of them with gaps."""

import math

import pytest

from vpoet.training.run.summary import Summary, table


def test_rates_are_totals_over_totals() -> None:
    """10 steps of 1 s at 100 tokens a second, then 30 of 2 s at 50: 4,000 tokens in 70 s; half the waiting is in 60."""
    summary = Summary(tokens_per_step=100)
    summary.add({"step": 5, "train/loss": 9.0})
    first = {"tokens_per_second": 100.0, "seconds_per_step": 1.0, "mfu": 0.4, "data_wait": 0.0, "padding": 0.2}
    later = {"tokens_per_second": 50.0, "seconds_per_step": 2.0, "mfu": 0.05, "data_wait": 0.5, "padding": 0.0}
    summary.add({"step": 10, **{f"speed/{name}": value for name, value in first.items()}})
    summary.add({"step": 40, "train/loss": 8.0, **{f"speed/{name}": value for name, value in later.items()}})
    facts = summary.facts()
    assert facts["total/tokens"] == 4000
    assert facts["total/hours"] == pytest.approx(70 / 3600)
    assert facts["mean/tokens_per_second"] == pytest.approx(4000 / 70)
    assert facts["mean/data_wait"] == pytest.approx(30 / 70)
    assert facts["mean/mfu"] == pytest.approx((0.4 * 10 + 0.05 * 60) / 70)
    assert facts["mean/padding"] == pytest.approx(0.2 * 1000 / 4000)
    assert facts["final/train_loss"] == 8.0


def test_best_is_the_lowest_held_out_loss_and_nulls_are_passed_over() -> None:
    summary = Summary()
    for step, loss in ((1, 3.0), (2, 1.5), (3, None), (4, math.inf), (5, 1.5), (6, 2.0)):
        summary.add({"step": step, "heldout/loss": loss})
    facts = summary.facts()
    assert (facts["best/heldout_loss"], facts["best/step"], facts["final/heldout_loss"]) == (1.5, 2, 2.0)
    assert facts["best/heldout_bits"] == 1.5 / math.log(2)


def test_a_run_that_has_measured_nothing_says_so_by_leaving_it_out() -> None:
    assert Summary(100).facts() == {"total/steps": 0, "total/tokens": 0}
    assert table(Summary().facts(), {"commit": "abc", "parameters": 4000000}) == [
        ("steps", "0"),
        ("commit", "abc"),
        ("parameters", "4,000,000"),
    ]
