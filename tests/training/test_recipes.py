"""Every recipe that ships loads, builds and takes a step (on small tokens, as it names data that only its user has).

Where the network is large, the step is that of a small one with the same heads: test_planning takes the large one
through a step without memory.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet import config
from vpoet.data import recordings
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source
from vpoet.errors import DataError
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.controls import KINDS as CONTROLS
from vpoet.sequence.document import KINDS
from vpoet.sequence.tasks import PAINTED, TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.recipe import PretrainConfig

LARGE = 256
"""Widths above are made smaller."""
LONG = 1024
"""Packs are no longer than this: what is in them is shorter, and a step is soon done."""
RECIPES = sorted(Path(__file__).parents[2].glob("train/configs/*.yaml"))


def small(model: TransformerConfig) -> TransformerConfig:
    """Two blocks, and as many heads of the same size as there are queries to a key."""
    heads = model.heads // model.kv_heads
    width = heads * model.head
    hidden = model.hidden * width // model.width
    return replace(model, depth=2, heads=heads, kv_heads=1, width=width, hidden=hidden)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where recipes' own data are not, even if somebody made them."""
    monkeypatch.chdir(tmp_path)


def test_there_are_recipes() -> None:
    assert RECIPES


KEYS = ActionSpace(names=["noop", "left", "right", "up", "down", "jump"])


@pytest.fixture(scope="module")
def played(tokens: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 12 frames with actions and outcomes."""
    folder, random = tmp_path_factory.mktemp("played"), np.random.default_rng(0)
    with ShardWriter(folder, kind="tokens", tokenizer=tokens.video.hash) as writer:
        for number in range(4):
            outcomes = {"reward": [0.0] * 11, "end": [False] * 11}
            about = {"actions": random.integers(0, 6, 11).tolist(), "action_space": KEYS.told(), "outcomes": outcomes}
            codes = random.integers(0, 48, (12, 8, 8)).astype(np.int32)
            info = {"caption": "a red ball", "fps": 8, "frames": 12, "tokenizer": tokens.video.hash, **about}
            writer.write(f"a{number}", {"codes.npy": codes, "json": info, **recordings.parts(info, 12)})
    Manifest("tokens", writer.shards, tokens.video.hash, KEYS).save(folder)
    return folder


@pytest.fixture(scope="module")
def controlled(tokens: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips with all kinds of controls."""
    folder, random = tmp_path_factory.mktemp("controlled"), np.random.default_rng(0)
    names = ["codes.npy", *(f"control.{kind}.npy" for kind in CONTROLS)]
    with ShardWriter(folder, kind="tokens", tokenizer=tokens.video.hash) as writer:
        for number in range(4):
            info = {"caption": "a red ball", "fps": 8, "frames": 9, "tokenizer": tokens.video.hash}
            codes = {name: random.integers(0, 48, (3, 2, 2)).astype(np.int32) for name in names}
            writer.write(f"a{number}", {**codes, "json": info})
    Manifest("tokens", writer.shards, tokens.video.hash).save(folder)
    return folder


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_takes_a_step(path: Path, tokens: Any, played: Path, controlled: Path, elsewhere: None) -> None:
    recipe = config.load(path, PretrainConfig)
    if recipe.model.width > LARGE:
        recipe.model = small(recipe.model)
    recipe.data.length = min(recipe.data.length, LONG)
    recipe.engine.dtype = "fp32"  # which every CPU multiplies quickly
    plays = any(TABLE[task].needs == "actions" for task in recipe.data.tasks)
    folder = tokens.folder / "train"  # without keyframes and paintings
    folder = played if plays else controlled if recipe.data.controls else folder
    recipe.data.sources = [Source(path=str(folder))]
    lacking = {*PAINTED, *(name for name, task in TABLE.items() if task.keyframes)}
    recipe.data.tasks = {name: weight for name, weight in recipe.data.tasks.items() if name not in lacking}
    recipe.model.visual_groups = min(recipe.model.visual_groups, len(tokens.video.levels))
    vocabulary = recipe.vocabulary(tokens.text, tokens.video)
    assert recipe.actions == (KEYS if plays else None)
    cpu = torch.device("cpu")
    transformer = Transformer(recipe.model, vocabulary)
    run = runner(checkpointed=recipe.checkpoint_blocks)
    module = PackLoss(transformer, backend(recipe.attention, cpu, torch.float32), run=run)
    engine = TorchEngine(module, recipe.engine, recipe.optimizer)
    documents = Documents(recipe.data, vocabulary=vocabulary, text=tokens.text.encode, seed=0)
    with PackStream(documents, lanes=1, prefetch=0) as stream:
        batch = PackTensors.of(next(stream)[0], cpu)
    before = [p.clone() for p in module.parameters()]
    sums, norm = engine.step([batch], lambda nats: nats.sum() / len(batch.after_M), lr=1e-3)
    assert torch.isfinite(sums).all()
    assert norm > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    if plays:
        assert (sums[[KINDS.index("play"), KINDS.index("outcome")]] > 0).all()


def test_the_recipe_of_play_stays_below_three_million_parameters() -> None:
    """With what it is made for: 512 pieces of text, 4,096 codes, six actions."""
    recipe = config.load(next(path for path in RECIPES if path.stem == "play"), PretrainConfig)
    with torch.device("meta"):
        transformer = Transformer(recipe.model, KEYS.vocabulary(Vocabulary(512, (64, 64), "text", "video")))
    assert transformer.parameter_count <= 3_000_000


def test_the_actions_of_a_recipe_are_those_of_its_shards(tokens: Any, played: Path, elsewhere: None) -> None:
    recipe = config.load(next(path for path in RECIPES if path.stem == "play"), PretrainConfig)
    with pytest.raises(
        DataError, match=r"play, policy, inverse: no actions in .*runs/play/tokens/train.*`vpoet ingest`"
    ):
        recipe.vocabulary(tokens.text, tokens.video)
    recipe.data.sources = [Source(path=str(played))]
    recipe.actions = ActionSpace(names=["noop", "left"])
    with pytest.raises(DataError, match=r"actions: the recipe says .*noop.*left.*, the token shards .*jump"):
        recipe.vocabulary(tokens.text, tokens.video)
    recipe.data.tasks = {"t2v": 1.0}
    assert recipe.vocabulary(tokens.text, tokens.video).appended == ()
    assert config.from_dict(config.to_dict(recipe), PretrainConfig) == recipe
