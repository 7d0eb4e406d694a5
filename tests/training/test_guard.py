"""Steps that are left out: which, how they are counted, and when a run ends for them."""

import json
import math

import pytest
import torch
from torch import nn

from vpoet.errors import ConfigError, TrainingError
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.guard import Guard, GuardConfig
from vpoet.training.optim import OptimizerConfig


def seasoned(**changes: float) -> Guard:
    """A guard that has seen forty steps of loss 3 and gradient norm 1."""
    guard = Guard(GuardConfig(**{"window": 40, "patience": 3, **changes}))  # type: ignore[arg-type]
    assert all(guard.accept(3.0, 1.0) for _ in range(40))
    return guard


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (math.nan, 1.0, "loss is not finite"),
        (math.inf, 1.0, "loss is not finite"),
        (3.0, math.inf, "gradient norm is not finite"),
        (5.1, 1.0, "loss 5.1 lies 2 nats above the last steps' 3"),
        (3.0, 10.1, "gradient norm 10.1 is 10 times the last steps' 1"),
    ],
)
def test_faults_are_left_out_with_their_reason(loss: float, norm: float, reason: str) -> None:
    guard = seasoned()
    assert not guard.accept(loss, norm)
    assert guard.reason == reason
    assert (guard.skipped, guard.row) == (1, 1)
    assert guard.accept(4.9, 9.9)  # a spike does not move what is usual
    assert (guard.reason, guard.skipped, guard.row) == ("", 1, 0)


def test_nothing_is_a_spike_before_it_is_known_what_is_usual() -> None:
    guard = Guard(GuardConfig(window=40))
    assert all(guard.accept(3.0, 1.0) for _ in range(19))
    assert guard.accept(30.0, 100.0)
    assert not guard.accept(30.0, 100.0)
    assert not Guard(GuardConfig()).accept(math.nan, 1.0)


def test_a_step_is_compared_with_those_that_predict_the_same() -> None:
    guard = Guard(GuardConfig(window=10))
    assert all(guard.accept(0.5, 1.0, kind="play") for _ in range(20))
    assert all(guard.accept(6.0, 1.0, kind="action") for _ in range(10))  # a player's moves, which nobody can foretell
    assert guard.accept(6.0, 1.0, kind="action")
    assert not guard.accept(6.0, 1.0, kind="play")
    assert not guard.accept(8.1, 1.0, kind="action")


def test_the_state_of_a_checkpoint_that_told_no_kinds_apart_is_read() -> None:
    guard = Guard(GuardConfig(window=10), {"losses": [3.0] * 10, "norms": [1.0] * 10, "skipped": 4, "row": 1})
    assert (guard.skipped, guard.row) == (4, 1)
    assert all(guard.accept(0.5, 1.0) for _ in range(5))
    assert not guard.accept(3.0, 1.0)


def test_zero_switches_spikes_off_but_not_what_is_not_finite() -> None:
    guard = seasoned(norm=0, loss=0)
    assert guard.accept(30.0, 1e9)
    assert not guard.accept(3.0, math.inf)


def test_too_many_in_a_row_end_the_run_with_advice() -> None:
    guard = seasoned()
    for _ in range(2):
        guard.accept(3.0, math.inf)
        guard.check(41)
    guard.accept(3.0, math.inf)
    with pytest.raises(TrainingError, match=r"step 43: the last 3 steps .* gradient norm is not finite.*optimizer\.lr"):
        guard.check(43)


def test_a_resumed_guard_judges_as_an_unbroken_one() -> None:
    guard = seasoned()
    guard.accept(2.0, 0.5)
    guard.accept(math.nan, 1.0)
    again = Guard(guard.config, json.loads(json.dumps(guard.state())))
    assert (again.skipped, again.row) == (1, 1)
    rows = [(2.5, 0.3), (5.2, 1.0), (3.0, 20.0), (4.0, 2.0)]
    assert [again.accept(*row) for row in rows] == [guard.accept(*row) for row in rows] == [True, False, False, True]
    assert again.state() == guard.state()


def test_a_loss_scale_that_is_too_high_is_counted_and_says_nothing_of_the_run() -> None:
    guard = seasoned()
    guard.accept(math.nan, math.inf, 64.0)
    for scale in (32.0, 16.0, 8.0, 4.0, 2.0):
        assert not guard.accept(3.0, math.inf, scale)
        assert guard.reason == f"gradients overflow fp16 at a loss scale of {scale:g}, which is halved"
    assert (guard.skipped, guard.row) == (6, 1)
    for _ in range(2):  # nothing is left to be halved
        assert not guard.accept(3.0, math.inf, 1.0)
    assert guard.spent


@pytest.mark.parametrize("changes", [{"norm": -1}, {"loss": -1}, {"window": 1}, {"patience": 0}])
def test_impossible_guards_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="guard"):
        GuardConfig(**changes)  # type: ignore[arg-type]


def test_a_step_left_out_leaves_weights_and_optimiser_as_they_were() -> None:
    torch.manual_seed(0)
    engine = TorchEngine(nn.Linear(3, 2), EngineConfig(), OptimizerConfig())
    engine.step([torch.ones(4, 3)], lambda output: output.square().sum(), 1e-2)
    names = [(name, part) for name in engine.shapes for part in ("weight", "exp_avg", "exp_avg_sq")]
    before = {name: engine.read(*name).clone() for name in names}  # type: ignore[arg-type]
    asked = []

    def refuse(total: torch.Tensor, norm: float) -> bool:
        asked.append((total.shape, norm))
        return False

    engine.step([torch.full((4, 3), math.nan)], lambda output: output.square().sum(), 1e-2, accept=refuse)
    assert asked == [((4, 2), math.inf)]
    assert all(torch.equal(engine.read(*name), value) for name, value in before.items())  # type: ignore[arg-type]
    assert engine.updates() == 1
    _, norm = engine.step([torch.ones(4, 3)], lambda output: output.square().sum(), 1e-2)
    assert math.isfinite(norm)
    assert engine.updates() == 2
