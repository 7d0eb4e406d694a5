"""Each process writes, reads and sends its share of a checkpoint alone, and any engine goes on from the slices."""

import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.optim import OptimizerConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.saver import Saver

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which(os.environ.get("CXX", "c++")) is None,
        reason="DeepSpeed compiles an op on CPUs: no C++ compiler here",
    ),
]
WORKER = runpy.run_path(str(Path(__file__).with_name("shares_worker.py")), run_name="worker")
HASHES, Module, digest = WORKER["HASHES"], WORKER["Module"], WORKER["digest"]
CASES = ["0-fp32", "1-fp32", "2-bf16", "3-bf16", "3-fp32"]
AMONG_FOUR = ["1-bf16", "3-fp32"]
FILLED = ["0-fp32", "1-bf16", "3-bf16", "3-fp32"]
OVERHEAD = 12_000
"""Bytes of headers, manifests and agreement, which do not grow with the model."""


def plain(seed: int) -> TorchEngine:
    torch.manual_seed(seed)
    return TorchEngine(Module(), EngineConfig(), OptimizerConfig())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a checkpoint of plain torch."""
    folder = tmp_path_factory.mktemp("shares")
    trainer = plain(0)
    for step in range(3):
        trainer.step([torch.ones(2, 101) * (step + 1)], lambda output: output.sum() / 24, 1e-2)
    Saver(folder / "plain", trainer, keep=1).save({"step": 3, "hashes": HASHES}, last=True)
    return folder


@pytest.fixture(scope="module")
def two(workers: Callable[..., list[dict[str, Any]]], folder: Path) -> list[dict[str, Any]]:
    loads = ["plain:1-fp32", "plain:3-fp32", "1-fp32:3-fp32", "3-fp32:0-fp32"]
    return workers("shares_worker.py", 2, str(folder), ",".join(CASES), ",".join(loads), ",".join(FILLED))


@pytest.fixture(scope="module")
def four(workers: Callable[..., list[dict[str, Any]]], folder: Path, two: Any) -> list[dict[str, Any]]:
    """From what two processes have written, and into a folder beside."""
    for case in ("1-fp32", "3-fp32"):
        shutil.copytree(folder / case, folder / "four" / f"of-two-{case}")
    loads = ["of-two-1-fp32:2-fp32", "of-two-3-fp32:3-fp32"]
    return workers("shares_worker.py", 4, str(folder / "four"), ",".join(AMONG_FOUR), ",".join(loads), "3-fp32")


def sizes(case: str) -> tuple[int, int, int]:
    """Bytes of a checkpoint, of the weights in the type of the forward pass, and of the frozen ones in it."""
    counts = {name: weight.numel() for name, weight in Module().named_parameters()}
    trained = sum(count for name, count in counts.items() if not name.startswith("frozen"))
    of_type = 2 if case.endswith("bf16") else 4
    return 4 * (sum(counts.values()) + 2 * trained), of_type * trained, of_type * (sum(counts.values()) - trained)


def check_traffic(seen: dict[str, Any], case: str, world: int) -> None:
    whole, weights, frozen = sizes(case)
    exchanged = {"0": whole, "1": weights + frozen, "2": weights + frozen, "3": 0}[case[0]]
    assert seen["save"]["written"] <= whole / world + OVERHEAD
    assert seen["save"]["sent"] <= OVERHEAD
    assert seen["load"]["read"] <= whole / world + world * OVERHEAD  # every process reads all headers
    assert seen["load"]["sent"] <= exchanged / world + OVERHEAD


@pytest.mark.parametrize("case", CASES)
def test_a_process_writes_reads_and_sends_its_share_alone(two: list[dict[str, Any]], case: str) -> None:
    for seen in two:
        check_traffic(seen[case], case, 2)
    assert sum(seen[case]["save"]["written"] for seen in two) >= sizes(case)[0]


@pytest.mark.parametrize("case", AMONG_FOUR)
def test_of_four_a_quarter(four: list[dict[str, Any]], case: str) -> None:
    for seen in four:
        check_traffic(seen[case], case, 4)
        assert seen[case]["read back"]
        assert seen[case]["goes on"]


@pytest.mark.parametrize("case", CASES)
def test_pieces_are_what_the_engine_holds_and_go_on_bit_for_bit(two: list[dict[str, Any]], case: str) -> None:
    for seen in two:
        assert seen[case]["read back"]
        assert seen[case]["goes on"]


@pytest.mark.parametrize("case", CASES)
def test_one_process_reads_what_two_wrote(two: list[dict[str, Any]], folder: Path, case: str) -> None:
    trainer = plain(1)
    checkpoint.resume(folder / case, trainer, HASHES)
    assert digest(trainer) == two[0][case]["digest"]
    weights = checkpoint.read_weights(folder / case / "checkpoints/step-3")
    assert weights.keys() == trainer.shapes.keys()
    assert all(torch.equal(weights[name], trainer.read(name, "weight")) for name in weights)


def test_any_stage_and_number_of_processes_reads_what_any_other_wrote(
    two: list[dict[str, Any]], four: list[dict[str, Any]], folder: Path
) -> None:
    trainer = plain(1)
    checkpoint.resume(folder / "plain", trainer, HASHES)
    written = {"plain": digest(trainer)} | {case: two[0][case]["digest"] for case in CASES}
    written |= {f"of-two-{case}": written[case] for case in CASES}
    for told in (*two, *four):
        loads = {load: seen for load, seen in told.items() if ":" in load}
        assert loads
        assert {load: seen["digest"] for load, seen in loads.items()} == {
            load: written[load.split(":")[0]] for load in loads
        }
    assert two[0]["1-fp32:3-fp32"]["norms"] == pytest.approx(four[0]["of-two-1-fp32:2-fp32"]["norms"], rel=1e-5)


def test_a_checkpoint_that_lacks_a_process_s_file_is_none(two: list[dict[str, Any]], folder: Path) -> None:
    run = folder / "lacking"
    shutil.copytree(folder / "1-fp32", run)
    (run / "checkpoints/step-3/optimizer-1.safetensors").unlink()
    assert checkpoint.complete(run) == []


@pytest.mark.parametrize("case", FILLED)
def test_weights_one_at_a_time_are_those_of_a_module_made_at_once(
    two: list[dict[str, Any]], four: list[dict[str, Any]], case: str
) -> None:
    """At every stage and in any number of processes."""
    for told in (*two, *four):
        if f"filled {case}" in told:
            one_at_a_time, at_once = told[f"filled {case}"]
            assert one_at_a_time == at_once
            assert at_once[0] == two[0][f"filled {case}"][0][0]
