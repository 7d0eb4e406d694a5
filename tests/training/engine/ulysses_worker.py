"""One of the processes of test_ulysses: trains a small transformer with shared packs, and alone, and tells both."""

import json
import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpoet.errors import DataError
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import KINDS, Document, Sequence, Span, build
from vpoet.sequence.packing import Pack, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.engine.deepspeed import DeepSpeedEngine
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.engine.ulysses import Share, shared_attention
from vpoet.training.loss import PackLoss, counts, heldout_losses
from vpoet.training.optim import OptimizerConfig
from vpoet.training.precision import DTYPES

VIDEO = KINDS.index("video")

CPU = torch.device("cpu")
WORDS = Vocabulary(20, (6, 4), "t", "v")
MODEL = TransformerConfig(width=32, depth=2, heads=4, kv_heads=4, hidden=48)
GROUPED = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)
BATCH, LENGTH, STEPS = 4, 96, 4
LONG = 512


def rows() -> list[Pack]:
    """Documents across every cut, causal in the first two; the last pack is padding from the middle on."""
    random = np.random.default_rng(0)

    def sample(words: int, cells: int) -> Sample:
        codes = random.integers(0, 24, (cells, 2, 3), dtype=np.int32)
        return Sample(random.integers(0, 20, words, dtype=np.int32), codes, fps=8)

    words = Span(Modality.TEXT, random.integers(0, 20, 25, dtype=np.int32), target=True)
    documents = [
        [TABLE["t2v"].document(sample(9, 3)), TABLE["i2v"].document(sample(4, 5), Given(1))],
        [
            TABLE["t2i"].document(sample(5, 1)),
            Document("t2v", (Span(Modality.VIDEO, sample(0, 5).codes, fps=8), words)),
        ],
        [TABLE["continuation"].document(sample(5, 10), Given(4))],
        [TABLE["t2v"].document(sample(6, 3))],
    ]
    return [
        pack([build(document, WORDS) for document in some], LENGTH, bidirectional=number > 1)
        for number, some in enumerate(documents)
    ]


def module(model: TransformerConfig, pieces: int, dtype: torch.dtype, *, checkpointed: bool = False) -> PackLoss:
    torch.manual_seed(0)
    transformer = Transformer(model, WORDS)
    attention = shared_attention(backend("sdpa", CPU, dtype), pieces)
    return PackLoss(transformer, attention, chunk=32, run=runner(checkpointed=checkpointed))


def run(trainer: Engine, share: Share) -> dict[str, Any]:
    packs = rows()
    total = float(sum(counts(row) for row in packs).sum())
    mine = [share.piece(PackTensors.of(packs[number], CPU)) for number in share.packs(BATCH)]
    told: dict[str, Any] = {"curve": []}
    for step in range(STEPS):
        sums, norm = trainer.step(mine, lambda nats: nats.sum() / total, 1e-2, seeds=share.seeds(0, step, BATCH))
        told["curve"].append((sums.tolist(), norm))
        if step == 0:  # 1 - beta1 times the clipped gradient
            told["gradients"] = {name: trainer.read(name, "exp_avg") for name in trainer.shapes}
    told["weights"] = {name: trainer.read(name, "weight") for name in trainer.shapes}
    told["heldout"] = heldout_losses(trainer, packs[:3], share)
    return told


def case(pieces: int, zero: int, dtype: str, checkpointed: bool) -> dict[str, Any]:
    config = EngineConfig(name="deepspeed", zero=zero, dtype=dtype, timeout=60, sequence_parallel=pieces)
    model = MODEL if pieces == 4 else GROUPED
    shared = module(model, pieces, DTYPES[dtype], checkpointed=checkpointed)
    trainer = DeepSpeedEngine(shared, config, OptimizerConfig(), lambda world: BATCH // (world // pieces))
    told = run(trainer, Share(trainer.rank, trainer.world, pieces))
    alone = TorchEngine(module(model, 1, torch.float32), EngineConfig(name="torch"), OptimizerConfig())
    expected = run(alone, Share(0, 1, 1))
    for part in ("gradients", "weights"):
        found, wanted = told.pop(part), expected.pop(part)
        assert found.keys() == wanted.keys()
        told[part] = max(float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max()) for name in found)
    return told | {"alone": expected}


def kept(share: Share) -> int:
    """Bytes that the blocks keep for their backward pass, of one document in one pack."""
    transformer = Transformer(GROUPED, WORDS)
    weights = {weight.untyped_storage().data_ptr() for weight in transformer.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack_hook(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    document = Sequence(
        np.full(LONG, WORDS.language, np.int32), np.zeros((LONG, 3), np.int32), np.full(LONG, VIDEO, np.uint8),
        np.arange(LONG) > 0,
    )  # fmt: skip
    piece = share.piece(PackTensors.of(pack([document], LONG), CPU))
    attend = shared_attention(backend("sdpa", CPU, torch.float32), share.pieces)(piece.visibility, CPU)
    with torch.autograd.graph.saved_tensors_hooks(pack_hook, lambda tensor: tensor):
        transformer(piece.ids_T, piece.positions_T3, attend)
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


def unlike(trainer: Engine, share: Share) -> str:
    """What is said when one process has read another pack."""
    packs = rows()[:2]

    def codes(packs: list[Pack]) -> float:
        return float(trainer.total(torch.tensor(share.code(packs), dtype=torch.double)))

    share.check(codes(packs))
    try:
        share.check(codes(packs[::-1] if trainer.rank == 1 else packs))
    except DataError as error:
        return str(error)
    return ""


def main(cases: list[str]) -> dict[str, Any]:
    """``cases`` are PIECES-STAGE-TYPE, and -again where blocks are computed again in the backward pass."""
    told: dict[str, Any] = {}
    for name in cases:
        pieces, zero, dtype, *again = name.split("-")
        told[name] = case(int(pieces), int(zero), dtype, bool(again))
    config = EngineConfig(name="deepspeed", timeout=60)
    trainer = DeepSpeedEngine(torch.nn.Linear(2, 2), config, OptimizerConfig(), lambda world: 1)
    share = Share(trainer.rank, trainer.world, 2)
    told |= {"unlike": unlike(trainer, share), "kept": [kept(Share(0, 1, 1)), kept(share)]}
    trainer.processes.leave()
    return told


if __name__ == "__main__":
    print("\n" + json.dumps(main(sys.argv[1:])), flush=True)
