"""Every recipe that ships loads, builds and takes a step (on small tokens, as it names data that only its user has).

Where the network is large, the step is that of a small one with the same heads: test_planning takes the large one
through a step without memory.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vpoet import config
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.training.blocks import runner
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.recipe import PretrainConfig

LARGE = 256
"""Widths above are made smaller, and packs no longer than this."""
LONG = 4096
RECIPES = sorted(Path(__file__).parents[2].glob("train/configs/*.yaml"))


def small(model: TransformerConfig) -> TransformerConfig:
    """Two blocks, and as many heads of the same size as there are queries to a key."""
    heads = model.heads // model.kv_heads
    width = heads * model.head
    hidden = model.hidden * width // model.width
    return replace(model, depth=2, heads=heads, kv_heads=1, width=width, hidden=hidden)


def test_there_are_recipes() -> None:
    assert RECIPES


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_takes_a_step(path: Path, tokens: Any) -> None:
    recipe = config.load(path, PretrainConfig)
    if recipe.model.width > LARGE:
        recipe.model, recipe.batch = small(recipe.model), 8
        recipe.data.length = min(recipe.data.length, LONG)
    recipe.data.sources = [Source(path=str(tokens.folder / "train"))]  # without keyframes and paintings
    lacking = {*PAINTED, *(name for name, task in TABLE.items() if task.keyframes)}
    recipe.data.tasks = {name: weight for name, weight in recipe.data.tasks.items() if name not in lacking}
    groups = min(recipe.model.visual_groups, len(tokens.video.levels))
    vocabulary = Vocabulary(tokens.text.size, grouped(tokens.video.levels, groups), tokens.text.hash, tokens.video.hash)
    cpu = torch.device("cpu")
    transformer = Transformer(recipe.model, vocabulary)
    run = runner(checkpointed=recipe.checkpoint_blocks)
    module = PackLoss(transformer, backend(recipe.attention, cpu, torch.float32), run=run)
    engine = TorchEngine(module, recipe.engine, recipe.optimizer)
    documents = Documents(recipe.data, vocabulary=vocabulary, text=tokens.text.encode, seed=0)
    with PackStream(documents, lanes=recipe.batch, prefetch=0) as stream:
        batch = PackTensors.of(next(stream)[0], cpu)
    before = [p.clone() for p in module.parameters()]
    sums, norm = engine.step([batch], lambda nats: nats.sum() / len(batch.after_M), lr=1e-3)
    assert torch.isfinite(sums).all()
    assert norm > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
