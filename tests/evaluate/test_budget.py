"""Plans: memory against what PyTorch's allocator really gave, the bookkeeping of stages, time, and recipes by size."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import config
from vpoet.data.token_stream import Source, StreamConfig
from vpoet.errors import ConfigError
from vpoet.evaluate import budget, dry_run
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.document import KINDS, Sequence
from vpoet.sequence.packing import pack
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.settings import ON_CUDA
from vpoet.training.loss import PackLoss
from vpoet.training.optim import OptimizerConfig, block_matrices
from vpoet.training.recipe import PretrainConfig

VIDEO = KINDS.index("video")

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
WORDS = Vocabulary(500, (320, 200), "t", "v")
SMALL = TransformerConfig(width=64, depth=3, heads=4, kv_heads=2, hidden=176)
WIDE = TransformerConfig(width=256, depth=2, heads=4, kv_heads=4, hidden=688)


def recipe(model: TransformerConfig = SMALL, *, length: int = 512, **keys: Any) -> PretrainConfig:
    data = StreamConfig(sources=[Source(path="s")], tasks={"t2v": 1.0}, length=length)
    return PretrainConfig(run="r", text="none", video="none", data=data, model=model, **keys)


def peak(work: Any) -> tuple[Any, int, int]:
    """What ``work`` gives; the most bytes that PyTorch's allocator had given out meanwhile, and those still out."""
    gc.collect()  # what another test left in cycles is not to be freed, and counted, in this one
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        made = work()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return made, most, now


@pytest.mark.parametrize("checkpoint_blocks", [False, True])
@pytest.mark.parametrize(
    ("model", "length", "batch"), [(SMALL, 512, 2), (SMALL, 2560, 1), (WIDE, 256, 1), (WIDE, 1536, 2)]
)
def test_planned_memory_is_what_a_step_takes(
    model: TransformerConfig, length: int, batch: int, checkpoint_blocks: bool
) -> None:
    """Within 10%: the plan is of one document, packs are of several; and the allocator saw what no count of tensors
    does, inside of operations. The lengths are below and above a chunk of the heads."""
    cfg = recipe(
        model, length=length, batch=batch, checkpoint_blocks=checkpoint_blocks, engine=EngineConfig(name="torch")
    )
    planned = budget.memory(cfg, WORDS, world=1, on_cpu=True)

    def start() -> TorchEngine:
        sdpa, run = backend("sdpa", CPU, torch.float32), runner(checkpointed=checkpoint_blocks)
        return TorchEngine(PackLoss(Transformer(model, WORDS), sdpa, run=run), cfg.engine, cfg.optimizer)

    engine, _, held = peak(start)
    random = np.random.default_rng(0)
    documents = [
        Sequence(
            random.integers(WORDS.language, WORDS.size, n, dtype=np.int32), random.integers(9, size=(n, 3)),
            np.full(n, VIDEO, np.uint8), np.arange(n) >= first,
        )
        for n, first in ((length // 4, 9), (length - length // 4, 1))
    ]  # fmt: skip
    batch_of_one = PackTensors.of(pack(documents, length, bidirectional=True), CPU)

    def step() -> None:
        engine.step([batch_of_one] * batch, lambda nats: nats.sum() / length, lr=1e-3)

    step()
    _, most, left = peak(step)
    assert left == 0
    assert held == pytest.approx(planned.weights + planned.states, rel=0.01)
    assert planned.total == pytest.approx(held + most, rel=0.1)


def test_muon_is_planned_with_the_one_value_that_it_keeps() -> None:
    cfg = recipe(WIDE, engine=EngineConfig(name="torch"), optimizer=OptimizerConfig(matrix_lr=1e-3))
    planned = budget.memory(cfg, WORDS, world=1, on_cpu=True)
    module = PackLoss(Transformer(WIDE, WORDS), backend("sdpa", CPU, torch.float32))
    _, _, held = peak(lambda: TorchEngine(module, cfg.engine, cfg.optimizer))
    assert held == pytest.approx(planned.states, rel=0.01)


@pytest.mark.parametrize("checkpoint_blocks", [False, True])
@pytest.mark.parametrize("zero", [0, 1])
def test_a_deep_network_is_counted_from_shallow_ones(
    zero: int, checkpoint_blocks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EngineConfig(name="deepspeed", zero=zero)
    cfg = recipe(replace(SMALL, depth=9), batch=4, checkpoint_blocks=checkpoint_blocks, engine=engine)
    from_few = budget.memory(cfg, WORDS, world=2, on_cpu=False)
    monkeypatch.setattr(dry_run, "SHALLOW", 9)
    assert budget.memory(cfg, WORDS, world=2, on_cpu=False) == from_few


def test_checkpointed_blocks_are_planned_with_less_and_pass_one_by_one() -> None:
    cfg = recipe(replace(SMALL, depth=12), batch=2, engine=EngineConfig(name="torch"))
    whole = budget.memory(cfg, WORDS, world=1, on_cpu=True)
    again = budget.memory(replace(cfg, checkpoint_blocks=True), WORDS, world=1, on_cpu=True)
    assert again.activations + again.passing < whole.activations / 4
    assert again.passing > 0
    assert again.logits == whole.logits


def test_stages_share_more_and_more_of_what_is_kept() -> None:
    count = Transformer(SMALL, WORDS).parameter_count
    share = -(-count // 4)
    for dtype, size in (("fp32", 4), ("bf16", 2)):
        plans = [
            budget.memory(
                recipe(engine=EngineConfig(name="deepspeed", zero=zero, dtype=dtype)), WORDS, world=4, on_cpu=False
            )
            for zero in (1, 2, 3)
        ]
        assert [plan.weights for plan in plans] == [size * count, size * count, size * share]
        assert [plan.gradients for plan in plans] == [4 * count, 4 * share, 4 * share]  # summed in fp32
        assert {plan.masters for plan in plans} == {4 * share}
        assert {plan.states for plan in plans} == {8 * share}
        bucket = ON_CUDA["reduce_bucket_size"] * (2 * size + 4)
        assert [plan.buffers - bucket for plan in plans] == [0, 0, size * count]
        assert {plan.outside for plan in plans} == {budget.OUTSIDE}
        assert len({plan.activations for plan in plans}) == 1
    plain = budget.memory(recipe(engine=EngineConfig(name="deepspeed", zero=0)), WORDS, world=4, on_cpu=False)
    assert (plain.weights, plain.masters, plain.states, plain.buffers) == (4 * count, 0, 8 * count, 0)


def test_time_and_cost_follow_from_operations_and_peak() -> None:
    cfg = recipe(batch=8, steps=100, engine=EngineConfig(dtype="bf16"))
    plan = budget.plan(cfg, "h100", world=4, zero=2, mfu=0.5, price=3.0)
    words, known = budget.vocabulary(cfg)
    transformer = Transformer(SMALL, words)
    assert not known
    assert "8192 text pieces" in plan["vocabulary"]
    assert plan["on"].startswith("4 x h100, 989.4 TFLOP/s in bf16")
    assert plan["engine"] == "DeepSpeed, ZeRO 2, bf16, checkpoint_blocks false"
    parts = plan["parameters"]
    assert parts["in all"] == sum(p.numel() for p in transformer.parameters()) == sum(parts.values()) - parts["in all"]
    (flops, at_most) = plan["FLOPs per token"].values()
    assert flops == at_most == transformer.flops(Visibility((512,), (0,)), 512) / 512
    assert [*plan["MFU"].values()] == [0.5, 0.5 / budget.PRODUCTS, 0.5, pytest.approx(0.5 * 989.4)]
    run = plan["the run, at 50% of the peak"]
    seconds = run["tokens"] * flops / (4 * 0.5 * 989.4e12)
    assert run["tokens"] == 100 * 8 * 512
    assert run["days"] == pytest.approx(seconds / 86400)
    assert run["tokens a day"] == pytest.approx(run["tokens"] / run["days"])
    assert run["device hours"] == pytest.approx(4 * seconds / 3600)
    assert run["cost"] == pytest.approx(3 * run["device hours"])
    needs = plan["GB of memory in each process"]
    assert needs["share of the device"] == pytest.approx(needs["in all"] * 1e9 / 80e9)
    assert needs["in all with checkpoint_blocks true"] < needs["in all"]


def test_time_is_planned_for_documents_and_not_for_one_that_fills_a_pack() -> None:
    long = budget.plan(recipe(length=16 * budget.DOCUMENT), "h100")
    short = budget.plan(recipe(length=budget.DOCUMENT), "h100")
    (planned, at_most), (of_one, least) = (plan["FLOPs per token"].values() for plan in (long, short))
    assert planned == of_one == least < at_most


def test_blocks_computed_again_count_as_arithmetic_and_not_as_use() -> None:
    plan = budget.plan(recipe(checkpoint_blocks=True), "h100", mfu=0.3)
    assert [*plan["MFU"].values()][:3] == [0.3, pytest.approx(0.4), pytest.approx(0.4)]


def test_muon_under_deepspeed_shares_what_it_keeps_and_orthogonalises_in_rounds() -> None:
    plans = [
        budget.memory(
            recipe(engine=EngineConfig(name="deepspeed"), optimizer=OptimizerConfig(matrix_lr=rate)),
            WORDS, world=4, on_cpu=False,
        )
        for rate in (0.0, 1e-3)
    ]  # fmt: skip
    matrices = block_matrices(dict(Transformer(SMALL, WORDS).named_parameters()))
    saved = 4 * sum(weight.numel() for weight in matrices.values()) // 4
    assert plans[0].states - plans[1].states == pytest.approx(saved, abs=8)
    assert plans[1].passing + plans[1].activations + plans[1].logits >= budget.MUON


def test_sampling_is_planned_with_its_caches() -> None:
    plan = budget.plan(recipe(length=1024), "h100")
    sampling = plan["GB to sample a clip from it, guided, in bf16"]
    cache = 2 * 1024 * SMALL.depth * 2 * SMALL.kv_heads * SMALL.head * 2
    assert sum(sampling.values()) == pytest.approx(2 * sampling["in all"])
    assert list(sampling.values())[1] == pytest.approx(budget.ROOMS * cache / 1e9)


def test_one_process_is_planned_as_it_would_train() -> None:
    plain = budget.plan(recipe(), "cpu")
    assert plain["on"].startswith("1 x cpu")
    assert plain["engine"].startswith("plain PyTorch, fp32")
    assert budget.plan(recipe(), "l40s", zero=3)["engine"].startswith("DeepSpeed, ZeRO 3")
    deepspeed = recipe(engine=EngineConfig(name="deepspeed"))
    assert budget.plan(deepspeed, "l40s")["engine"].startswith("DeepSpeed, ZeRO 1")


@pytest.mark.parametrize(
    ("keys", "options", "why"),
    [
        ({}, {"device": "h1000"}, "there are cpu, h100"),
        ({}, {"world": 0}, "1 or more processes"),
        ({}, {"mfu": 1.5}, "MFU above 0"),
        ({"batch": 4}, {"world": 3}, "cannot be shared evenly by 3"),
        ({"engine": EngineConfig(name="torch")}, {"world": 2}, "is one process without ZeRO"),
        ({"engine": EngineConfig(dtype="bf16")}, {"zero": 0}, "no fp32 master weights in bf16"),
        ({}, {"zero": 4}, "stages 0 to 3"),
    ],
)
def test_what_could_not_start_is_not_planned(keys: dict[str, Any], options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        budget.plan(recipe(**keys), **{"device": "h100", **options})


SIZES = {"3m": 3e6, "30m": 30e6, "120m": 120e6, "350m": 350e6, "1b": 1e9, "3b": 3e9, "8b": 8e9}
MEANT_FOR = {"350m": (8,), "1b": (8,), "3b": (8, 32), "8b": (8, 64)}
"""Numbers of H100s; the others fit on one."""


@pytest.mark.parametrize("name", SIZES)
def test_a_recipe_has_the_size_of_its_name_and_fits_where_it_is_meant_to_run(name: str) -> None:
    """The plan takes it through a step, without memory."""
    cfg = config.load(ROOT / "train" / "configs" / f"{name}.yaml", PretrainConfig)
    assert not budget.vocabulary(cfg)[1]
    for world in MEANT_FOR.get(name, (1,)):
        plan = budget.plan(cfg, "h100", world=world)
        assert plan["parameters"]["in all"] == pytest.approx(SIZES[name], rel=0.05)
        (run,) = (facts for key, facts in plan.items() if key.startswith("the run"))
        assert run["tokens a parameter"] == pytest.approx(20, rel=0.1)
        assert plan["GB of memory in each process"]["share of the device"] < 0.9


def test_inspect_prints_the_plan_of_a_pretraining_recipe_alone(program: Any) -> None:
    path = ROOT / "train" / "configs" / "3m.yaml"
    status, out, err = program(
        "train/describe.py", path, "--device", "a100-80", "--world", "2", "--zero", "2", "--price", "1.5"
    )
    assert status == 0, err
    assert "2 x a100-80, 312 TFLOP/s in bf16 and 80 GB each" in out
    assert "ZeRO 2" in out
    status, out, err = program(
        "train/describe.py", ROOT / "tokenizers" / "configs" / "general.yaml", "--device", "h100"
    )
    assert (status, out) == (2, "")
    assert "--device plans pretraining recipes" in err
