"""Blocks compiled, computed again or frozen where stage 3 of ZeRO gathers their weights: in two processes."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="DeepSpeed compiles an op on CPUs: no C++ compiler here"
)
CASES = ["compiled", "compiled and checkpointed", "frozen, compiled"]


@pytest.fixture(scope="module")
def told(workers: Callable[..., list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return workers("blocks_worker.py", 2)


@pytest.mark.parametrize("case", CASES)
def test_however_blocks_are_run_they_train_as_in_one_process(told: list[dict[str, Any]], case: str) -> None:
    for seen in told:
        assert seen[case]["curve"] == [pytest.approx(row, rel=1e-5) for row in seen[case]["alone"]]


@pytest.mark.parametrize("case", CASES)
def test_stage_3_breaks_no_graph_and_compiles_none_again(told: list[dict[str, Any]], case: str) -> None:
    """Two graphs: what stands before attention, and what stands after."""
    for seen in told:
        assert (seen[case]["breaks"], seen[case]["graphs"]) == (0, 2)
