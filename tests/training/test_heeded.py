"""The curve of controls: what held-out codes cost more without them, and nothing where there are none."""

from typing import Any

import numpy as np
import pytest
import torch

from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.controls import Control
from vpoet.sequence.document import Document, build
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.ulysses import Share
from vpoet.training.heeded import heeded_bits, untold
from vpoet.training.loss import PackLoss, heldout_losses
from vpoet.training.optim import OptimizerConfig

VOCABULARY = Vocabulary(20, (6, 4), "t", "v")
ALONE = Share(0, 1, 1)


def row(random: np.random.Generator, controlled: bool = True) -> Pack:
    """Clips of random codes, each of which its control tells."""
    sequences = []
    for _ in range(4):
        codes = random.integers(0, 24, (3, 2, 3), dtype=np.int32)
        plain = TABLE["t2v"].document(Sample(np.arange(3, dtype=np.int32), codes, 8))
        told = (Control("edges", codes),) if controlled else ()
        sequences.append(build(Document(plain.task, plain.spans, controls=told), VOCABULARY))
    return pack(sequences, 200, pad=VOCABULARY.special("<pad>"))


@pytest.fixture(scope="module")
def trained() -> Any:
    """A tiny model that learns to copy what its control tells."""
    torch.manual_seed(0)
    sizes = TransformerConfig(width=32, depth=2, heads=2, kv_heads=2, hidden=48, controls=["edges"])
    module = PackLoss(Transformer(sizes, VOCABULARY), backend("sdpa", torch.device("cpu"), torch.float32))
    engine = TorchEngine(module, EngineConfig(), OptimizerConfig(lr=2e-2, warmup=1))
    random = np.random.default_rng(0)
    first = heeded_bits(engine, [row(random)], ALONE, VOCABULARY, heldout_losses(engine, [row(random)], ALONE))
    for _ in range(120):
        batch = [PackTensors.of(row(random), engine.device)]
        engine.step(batch, lambda nats: nats.sum() / 72, 2e-2)
    return engine, first


def test_a_model_that_learns_its_controls_loses_bits_without_them(trained: Any) -> None:
    """Random codes take log2(24) = 4.6 bits, and those that a control tells fewer."""
    engine, first = trained
    packs = [row(np.random.default_rng(9))]
    right = heldout_losses(engine, packs, ALONE)
    found = heeded_bits(engine, packs, ALONE, VOCABULARY, right)
    assert right["heldout/bits"] < 3.5
    assert found["heldout/control_bits"] > 1
    bare = heldout_losses(engine, [untold(packs[0], VOCABULARY)], ALONE)
    assert found["heldout/control_bits"] == pytest.approx(bare["heldout/bits"] - right["heldout/bits"], rel=1e-6)
    assert abs(first["heldout/control_bits"]) < 0.2  # it begins as the model without


def test_there_is_no_curve_where_nothing_is_told(trained: Any) -> None:
    engine, _ = trained
    random = np.random.default_rng(3)
    packs = [row(random, controlled=False)]
    assert heeded_bits(engine, packs, ALONE, VOCABULARY, heldout_losses(engine, packs, ALONE)) == {}
    one = row(random)
    bare = untold(one, VOCABULARY)
    assert bare.controls is None
    assert all(np.array_equal(getattr(one, name), getattr(bare, name)) for name in ("ids", "targets", "positions"))
    assert one.lengths == bare.lengths
