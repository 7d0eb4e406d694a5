"""Training on a card: the whole chain over a kill, its speed against the data sheet, its memory against the plan."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet import config
from vpoet.evaluate import budget
from vpoet.media.video import Video
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.training.blocks import runner
from vpoet.training.engine import start
from vpoet.training.loss import PackLoss
from vpoet.training.precision import DTYPES
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run import checkpoint
from vpoet.training.run.tracking import read_metrics

Program = Callable[..., tuple[int, str, str]]


def test_the_chain(card: Any, tokens: Any, root: Path, tmp_path: Path, program: Program) -> None:
    """The recipe of 1B at two layers: pretrained, killed in the middle, resumed, exported, sampled."""

    steps = card.pick(60, 12)

    def recipe(name: str) -> list[str]:
        toy = "{width: 32, depth: 2, heads: 4, kv_heads: 2, hidden: 48, visual_groups: 2}"
        of_1b = "{width: 2048, depth: 2, heads: 32, kv_heads: 8, hidden: 8192, visual_groups: 2}"
        changes = {"model": card.pick(of_1b, toy), "steps": steps, "evaluate_every": steps, "log_every": 1}
        changes |= {"save_every": steps // 4}
        if card.real:
            changes |= {"base": root / "train/configs/1b.yaml", "optimizer": "{lr: 2e-4, warmup: 2}", "batch": 8}
        return [str(tokens.recipe(tmp_path / f"{name}.yaml", **changes))]

    def ran(path: str, *arguments: object) -> None:
        status, _, err = program(path, *arguments)
        assert status == 0, err

    ran("train/pretrain.py", *recipe("whole"))
    command = [sys.executable, str(root / "train/pretrain.py"), *recipe("cut")]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stop = time.monotonic() + 300
    while not checkpoint.complete(tmp_path / "cut") and time.monotonic() < stop and victim.poll() is None:
        time.sleep(0.01)
    victim.kill()
    victim.wait()
    assert checkpoint.complete(tmp_path / "cut"), victim.communicate()[1]
    reached = checkpoint.complete(tmp_path / "cut")[-1].name
    ran("train/pretrain.py", *recipe("cut"), "--resume")
    curves = [
        np.array([row["train/loss"] for row in read_metrics(tmp_path / name / "metrics.jsonl")])
        for name in ("whole", "cut")
    ]
    assert len(curves[0]) == len(curves[1]) == steps
    apart = float(np.abs(curves[1] - curves[0]).max())
    limit = card.pick(1e-2, 0.0)
    holds = apart <= limit and (reached != f"step-{steps}" or not card.real)
    what = "losses of a run that was killed and resumed, and of one that was not"
    card.row(what, f"{apart:.1e} apart, killed behind {reached}", f"at most {limit:g}", holds)
    falls = float(curves[0][0] - curves[0][-1])
    card.row(f"loss over {steps} steps", f"falls by {falls:.2f} nats", "falls", falls > 0)
    ran("train/export.py", tmp_path / "cut", "--out", tmp_path / "bundle")
    prompt = ["--prompt", "a red ball rolls", "--frames", 9, "--height", 16, "--width", 16]
    ran("sample/generate.py", "--model", tmp_path / "bundle", *prompt, "--out", tmp_path / "x.mp4")
    shape = Video.read(tmp_path / "x.mp4").frames.shape
    card.row("its sample", "x".join(map(str, shape)), "9x16x16x3", shape == (9, 16, 16, 3))


def test_speed_and_memory(card: Any, root: Path) -> None:
    """Steps of the 1B recipe one pack a step: the share of the card's peak, and the plan."""
    recipe = config.load(root / "train/configs/1b.yaml", PretrainConfig, ["engine.name=torch", "batch=1"])
    if not card.real:
        recipe = replace(
            recipe, model=card.network(), data=replace(recipe.data, length=256), compile=False,
            engine=replace(recipe.engine, dtype="fp32"),
        )  # fmt: skip
    words, _ = budget.vocabulary(recipe)
    dtype, length = DTYPES[recipe.engine.dtype], recipe.data.length
    memory = budget.memory(recipe, words, world=1, on_cpu=not card.real)
    planned = memory.total - memory.outside
    with torch.device(card.device):
        transformer = Transformer(recipe.model, words)
    attention = backend(recipe.attention, card.device, dtype)
    run = runner(compiled=recipe.compile, checkpointed=recipe.checkpoint_blocks)
    trainer = start.start(PackLoss(transformer, attention, run=run), recipe.engine, recipe.optimizer, lambda world: 1)
    codes = np.random.default_rng(0).integers(0, 64_000, (length // 64 - 1, 8, 8)).astype(np.int32)
    sequence = build(TABLE["t2v"].document(Sample(np.arange(12), codes, 8)), words)
    batch = PackTensors.of(pack([sequence], length), card.device)

    def step() -> None:
        trainer.step([batch], lambda nats: nats.sum() / length, 1e-4)

    step()
    seconds = card.seconds(step)
    share = transformer.flops(batch.visibility, len(batch.after_M)) / seconds / card.sheet()[0]
    card.measured(f"1B in one process, packs of {length:,}: share of the peak of the data sheet", share, "", 0.35, 0.8)
    taken = torch.cuda.max_memory_allocated() if card.real else planned
    card.measured("its memory, as a share of the plan", taken / planned, "", 0.8, 1.1)
