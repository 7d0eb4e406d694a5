"""Packs that processes share, by DeepSpeed-Ulysses: the numbers of one process. The worker says what it does."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.data.token_stream import Source, StreamConfig
from vpoet.errors import ConfigError
from vpoet.evaluate import budget
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import TransformerConfig
from vpoet.sequence.document import Sequence
from vpoet.sequence.layout import PAYLOADS
from vpoet.sequence.packing import pack
from vpoet.training.engine.base import EngineConfig, pack_seeds
from vpoet.training.engine.ulysses import Share
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.tracking import read_metrics

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="DeepSpeed compiles an op on CPUs: no C++ compiler here"
)
CASES = {
    2: ["2-0-fp32", "2-1-fp32", "2-2-fp32", "2-3-fp32", "2-3-fp32-again", "2-1-bf16", "1-1-bf16"],
    4: ["2-3-fp32", "4-1-fp32"],
}
"""By number of processes: how many share a pack, the ZeRO stage, the type, and whether blocks are computed again."""
FP32 = [(world, case) for world, cases in CASES.items() for case in cases if "fp32" in case]
Told = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def told(workers: Callable[..., list[dict[str, Any]]]) -> Told:
    return {world: workers("ulysses_worker.py", world, *cases) for world, cases in CASES.items()}


def recipe(sequence_parallel: int, **keys: Any) -> PretrainConfig:
    engine = EngineConfig(name="deepspeed", sequence_parallel=sequence_parallel)
    data = StreamConfig(sources=[Source(path="s")], tasks={"t2v": 1.0}, length=512)
    model = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
    return PretrainConfig(
        **{"run": "r", "text": "t", "video": "v", "data": data, "model": model, "engine": engine} | keys
    )


@needs_compiler
@pytest.mark.parametrize(("world", "case"), FP32)
def test_pieces_of_packs_give_the_losses_gradients_and_weights_of_one_process(
    told: Told, world: int, case: str
) -> None:
    """Over four steps, to rounding; documents lie across the cuts, causal and with prefixes, and a piece is padding.

    Gradients and weights: the largest difference, of the largest value of the same tensor. Adam divides the rounding
    of gradients near 0 by their size.
    """
    for seen in (rank[case] for rank in told[world]):
        for (nats, norm), (nats_alone, norm_alone) in zip(seen["curve"], seen["alone"]["curve"], strict=True):
            assert nats == pytest.approx(nats_alone, rel=2e-6)
            assert norm == pytest.approx(norm_alone, rel=2e-6)
        assert sum(value > 0 for value in nats) == 3  # text, image and video
        assert seen["gradients"] < 2e-6
        assert seen["weights"] < 1e-3
        assert seen["heldout"] == pytest.approx(seen["alone"]["heldout"], rel=2e-6)


@needs_compiler
def test_pieces_lose_in_bf16_what_whole_packs_lose(told: Told) -> None:
    for rank in told[2]:
        pieces, whole = rank["2-1-bf16"], rank["1-1-bf16"]
        for (nats, norm), (nats_whole, norm_whole) in zip(pieces["curve"], whole["curve"], strict=True):
            assert sum(nats) == pytest.approx(sum(nats_whole), rel=0.01)
            assert norm == pytest.approx(norm_whole, rel=0.02)


@needs_compiler
def test_two_pieces_keep_half_and_as_much_as_is_planned(told: Told) -> None:
    whole, piece = told[2][0]["kept"]
    assert piece < 0.53 * whole
    plans = [
        budget.memory(recipe(pieces), budget.vocabulary(recipe(pieces))[0], world=2, on_cpu=True) for pieces in (1, 2)
    ]
    assert [plan.activations for plan in plans] == pytest.approx([whole, piece], rel=0.1)


def test_a_plan_says_how_many_processes_share_a_pack() -> None:
    whole, shared = (budget.plan(recipe(pieces), "h100", world=2) for pieces in (1, 2))
    assert shared["engine"] == "DeepSpeed, ZeRO 1, fp32, 2 processes a pack, checkpoint_blocks false"
    assert whole["engine"] == "DeepSpeed, ZeRO 1, fp32, checkpoint_blocks false"
    memory = "GB of memory in each process"
    assert shared[memory]["activations"] < 0.6 * whole[memory]["activations"]
    assert shared["FLOPs per token"] == whole["FLOPs per token"]


@needs_compiler
def test_processes_that_share_packs_and_read_different_ones_all_say_so(told: Told) -> None:
    for rank in (*told[2], *told[4]):
        assert "processes that share packs have read different ones" in rank["unlike"]


def test_pieces_hold_every_token_and_every_prediction_once() -> None:
    """A target is predicted where the token before it is, so the first of a piece may be the one before's."""
    ids = np.arange(12, dtype=np.int32)
    targets = np.isin(ids, (3, 4, 6, 11))
    document = Sequence(ids, np.stack([ids, ids, ids], 1), np.full(12, 3, np.uint8), targets)
    whole = PackTensors.of(pack([document], 12), torch.device("cpu"))
    pieces = [Share(rank, 6, 3).piece(whole) for rank in (3, 4, 5)]
    assert [piece.ids_T.tolist() for piece in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [piece.positions_T3[0].tolist() for piece in pieces] == [[0] * 3, [4] * 3, [8] * 3]
    assert [piece.after_M.tolist() for piece in pieces] == [[3, 4], [6], [11]]
    assert [piece.before_M.tolist() for piece in pieces] == [[2, 3], [1], [2]]
    assert all(len(piece.kinds_M) == len(piece.after_M) for piece in pieces)
    heads = [dict(zip(PAYLOADS, (head.tolist() for head in piece.heads), strict=True)) for piece in pieces]
    assert [head.pop("codes") for head in heads] == [[0, 1], [0], [0]]
    assert not any(index for head in heads for index in head.values())
    assert all(piece.visibility is whole.visibility for piece in pieces)


def test_groups_take_turns_at_packs_and_each_piece_has_seeds_of_its_own() -> None:
    shares = [Share(rank, 4, 2) for rank in range(4)]
    assert [list(share.packs(6)) for share in shares] == [[0, 2, 4], [0, 2, 4], [1, 3, 5], [1, 3, 5]]
    seeds = [share.seeds(7, 3, 6) for share in shares]
    assert seeds[0] == pack_seeds(7, 3, [0, 2, 4]), "and alone as without groups"
    assert len({seed for mine in seeds for seed in mine}) == 12


def test_what_cannot_be_shared_evenly_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"engine.sequence_parallel = 4 must divide model.kv_heads = 2"):
        recipe(4)
    with pytest.raises(ConfigError, match=r"engine.sequence_parallel = 3 must divide data.length = 512"):
        recipe(3)
    with pytest.raises(ConfigError, match="must divide the number of all, 3; start a multiple of 2"):
        recipe(2).packs_per_process(3)
    with pytest.raises(ConfigError, match="8 packs cannot be shared evenly by 3 groups of 2 processes"):
        recipe(2).packs_per_process(6)
    with pytest.raises(ConfigError, match="0: 1 process or more"):
        recipe(0)
    assert recipe(2).packs_per_process(8) == 2


@needs_compiler
def test_a_run_goes_on_with_shared_packs_and_then_without(
    tokens: Any, tmp_path: Path, python: Callable[..., subprocess.CompletedProcess[str]], program: Any, root: Path
) -> None:
    """One process; from its checkpoint two that share every pack; from theirs one: the curve of one, to rounding."""
    data = f"{{sources: [{{path: {tokens.folder / 'train'}}}], length: 128, bidirectional: true, tasks: {{i2v: 1}}}}"
    run = tmp_path / "run"
    recipe = tokens.recipe(tmp_path / "run.yaml", data=data, keep=9)
    assert program("train/pretrain.py", recipe)[0] == 0
    alone = read_metrics(run / "metrics.jsonl")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = ("-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port", str(port))
    shared = ("engine.zero=2", "engine.sequence_parallel=2")
    for step in (3, 6):
        for later in checkpoint.complete(run):
            if int(later.name.removeprefix("step-")) > step:
                shutil.rmtree(later)
        if step == 3:
            done = python(*launcher, root / "train/pretrain.py", recipe, *shared, "--resume")
            status, told = done.returncode, done.stdout + done.stderr
        else:
            status, _, told = program("train/pretrain.py", recipe, "--resume")
        assert status == 0, told
        assert f"resuming from {run}/checkpoints/step-{step}" in told
        rows = read_metrics(run / "metrics.jsonl")
        for row, expected in zip(rows, alone, strict=True):
            for name in ("step", "train/loss", "train/video_nats", "train/grad_norm", "heldout/loss"):
                assert row.get(name, 0.0) == pytest.approx(expected.get(name, 0.0), rel=2e-4), (name, row["step"])
        assert rows[-1]["speed/padding"] == alone[-1]["speed/padding"] > 0
