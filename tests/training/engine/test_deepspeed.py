"""DeepSpeed's stages in two processes: one start, as it takes its time. The worker says what it does."""

import math
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="DeepSpeed compiles an op on CPUs: no C++ compiler here"
)
EXACT = [f"{zero}-fp32{muon}" for zero in range(4) for muon in ("", "-muon")]
HALF = ["1-fp16", "2-fp16-muon", "3-fp16"] if torch.ops.mkldnn._is_mkldnn_fp16_supported() else []
OFFLOADED = ["1-bf16-offload", "2-bf16-offload-muon", "3-fp32-offload-muon"]
CASES = [*EXACT, "1-bf16", "2-bf16", "3-bf16", "1-bf16-muon", "3-bf16-muon", *HALF, *OFFLOADED]


@pytest.fixture(scope="module")
def told(workers: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What each of two processes saw, by stage and type."""
    return workers("deepspeed_worker.py", 2, *CASES)


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_and_written_back_continues_bit_for_bit(told: list[dict[str, Any]], case: str) -> None:
    for seen in told:
        assert seen[case]["read back"]
        assert seen[case]["resumed"] == seen[case]["curve"][4:]
        assert seen[case]["same at the end"]
        assert seen[case]["updates"] == 7


@pytest.mark.parametrize("case", CASES)
def test_a_step_that_is_not_accepted_leaves_no_trace_in_any_process(told: list[dict[str, Any]], case: str) -> None:
    for seen in told:
        assert seen[case]["refusing changes nothing"]
        assert seen[case]["asked"] == [seen[case]["refused norm"]]
        assert 0 < seen[case]["refused norm"] < math.inf
        assert seen[case]["nan changes nothing"]
        assert seen[case]["nan"] == [math.inf]


@pytest.mark.parametrize("case", CASES)
def test_processes_see_the_same_losses_and_norms_to_the_last_bit(told: list[dict[str, Any]], case: str) -> None:
    for name in ("curve", "refused norm", "resumed"):
        assert told[0][case][name] == told[1][case][name]


@pytest.mark.parametrize("case", [*EXACT, "3-fp32-offload-muon"])
def test_every_stage_gives_the_curve_and_the_weights_of_plain_torch(told: list[dict[str, Any]], case: str) -> None:
    """With dropout, which is drawn by pack; to rounding."""
    optimizer, most = ("muon", 1e-5) if "muon" in case else ("adamw", 1e-6)
    alone = told[0][f"alone-fp32-{optimizer}"]
    assert told[0][case]["curve"] == [pytest.approx(row, rel=most) for row in alone]
    assert told[0][case]["apart"] < most


def test_muon_is_not_adamw(told: list[dict[str, Any]]) -> None:
    """Or the test above would be one of AdamW alone."""
    (_, _), (adamw, _), *_ = told[0]["alone-fp32-adamw"]
    (_, _), (muon, _), *_ = told[0]["alone-fp32-muon"]
    assert abs(muon - adamw) / adamw > 0.05


@pytest.mark.parametrize("zero", ["1", "2", "3"])
def test_gradients_in_bf16_are_summed_in_fp32_over_packs_and_processes(told: list[dict[str, Any]], zero: str) -> None:
    """64 packs; summed in bf16 they would be off by 0.5%, and added up in it across processes by 0.04%."""
    for seen in told:
        apart, _ = seen["accumulated"][zero]
        assert apart < 1e-6


@pytest.mark.parametrize("zero", ["1", "2", "3"])
def test_a_process_waits_for_its_gpu_once_a_step_and_never_in_a_micro_batch(
    told: list[dict[str, Any]], zero: str
) -> None:
    """For the norm, which DeepSpeed itself looks at a few times; of 32 micro-batches each would count 32."""
    for seen in told:
        _, waits = seen["accumulated"][zero]
        assert waits < 10


@pytest.mark.parametrize("case", HALF)
def test_fp16_gives_the_curve_of_plain_torch_in_fp16_and_nearly_that_of_fp32(
    told: list[dict[str, Any]], case: str
) -> None:
    curve, optimizer = told[0][case]["curve"], "muon" if "muon" in case else "adamw"
    assert curve == [pytest.approx(row, rel=0.01) for row in told[0][f"alone-fp16-{optimizer}"]]
    assert curve == [pytest.approx(row, rel=0.01) for row in told[0][f"alone-fp32-{optimizer}"]]


@pytest.mark.parametrize("case", HALF)
def test_fp16_gradients_that_overflow_are_left_out_and_halve_the_loss_scale(
    told: list[dict[str, Any]], case: str
) -> None:
    for seen in told:
        assert seen[case]["overflow changes nothing"]
        assert seen[case]["overflow"][0][1] == math.inf
        assert seen[case]["scales"] == [2.0**30, 2.0**29]
        assert seen[case]["scale after nan"] == 128.0


def test_shared_memory_goes_with_its_processes_however_they_end(told: list[dict[str, Any]]) -> None:
    """It has no name any more while they run, so that nothing needs to be removed afterwards."""
    for seen in told:
        assert seen["names in shared memory"] == []
        assert seen["memories shared"] == 2
