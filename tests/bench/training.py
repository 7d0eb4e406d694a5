"""Packs against padded batches, and what logits cost in memory.

Seconds here are the processor's, of one thread: other work on the machine that takes turns with it does not count.
"""

import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from vpoet.nn.attention import backend
from vpoet.nn.nats import CHUNK, PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import KINDS, Document, Sequence, Span, build
from vpoet.sequence.packing import BestFit, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality, Vocabulary
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.optim import OptimizerConfig

TEXT = KINDS.index("text")

ROW, LOOKAHEAD, BATCH, GROUP = 2048, 64, 8, 50
"""Tokens of a pack and documents to choose from; documents of a padded batch, and batches sorted together."""

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(512, (1000,), "t", "v")
SIZES = TransformerConfig(width=192, depth=4, heads=4, kv_heads=4, hidden=512)
ROUNDS = 3


def mixture(count: int) -> list[Sequence]:
    """Captions of 8 to 60 pieces (30%), images of 8x8 to 14x14 codes (30%), clips of 2 to 5 x 8x8 to 12x12 (40%)."""
    random = np.random.default_rng(0)
    found = []
    for kind in random.choice(3, count, p=(0.3, 0.3, 0.4)):
        if kind == 0:
            pieces = random.integers(0, 512, random.integers(8, 61), dtype=np.int32)
            document = Document("unconditional", (Span(Modality.TEXT, pieces, target=True),))
        else:
            side = random.integers(8, (15, 13)[kind - 1], 2)
            codes = random.integers(0, 1000, (1 if kind == 1 else random.integers(2, 6), *side), dtype=np.int32)
            sample = Sample(random.integers(0, 512, random.integers(4, 24), dtype=np.int32), codes, 8 * (kind == 2))
            document = TABLE["t2i" if kind == 1 else "t2v"].document(sample)
        found.append(build(document, VOCABULARY))
    return found


def packs(sequences: list[Sequence]) -> Iterator[list[Sequence]]:
    fit: BestFit[Sequence] = BestFit(ROW, LOOKAHEAD)
    for sequence in sequences:
        if fit.full:
            yield fit.take()
        fit.add(len(sequence), sequence)
    while row := fit.take():
        yield row


def batches(sequences: list[Sequence], group: int) -> Iterator[list[Sequence]]:
    """As they come, after sorting by length within every ``group`` batches (Hugging Face's group_by_length: 50)."""
    for start in range(0, len(sequences), group * BATCH):
        part = sequences[start : start + group * BATCH]
        part = sorted(part, key=len) if group > 1 else part
        yield from (part[i : i + BATCH] for i in range(0, len(part), BATCH))


def packing_step(_: float) -> dict[str, Any]:
    """Useful tokens a second of training steps: packed here; padded by Hugging Face, in any order and by length.

    The same documents, and a Qwen3 of our sizes, which has our block. `useful` is the share of tokens that are no
    padding: `of_4000` over as many documents, the last pack left out. `against_padded` is our tokens a second over
    those of padded batches, `over_the_bound` that divided by 1/(1 - padding).
    """
    many = mixture(4000)
    *full, _ = packs(many)
    of_many = {
        "packed": sum(len(s) for row in full for s in row) / (ROW * len(full)),
        "padded": share(batches(many, 1)),
        "by_length": share(batches(many, GROUP)),
    }
    few = mixture(48)
    tokens = sum(map(len, few))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, theirs = packed_training(), padded_training()
    rows = [[PackTensors.of(pack(row, ROW), CPU)] for row in packs(few)]
    ways: dict[str, tuple[Callable[[Any], None], list[Any]]] = {
        "packed": (ours, rows),
        "padded": (theirs, list(batches(few, 1))),
        "by_length": (theirs, list(batches(few, GROUP))),
    }
    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (train, steps) in ways.items():
            seconds[name] = min(seconds[name], sum(timed(train, step) for step in steps))
    torch.set_num_threads(threads)
    rates = {name: tokens / value for name, value in seconds.items()}
    useful = {
        "packed": tokens / (ROW * len(rows)),
        "padded": share(batches(few, 1)),
        "by_length": share(batches(few, GROUP)),
    }
    return {
        "useful_tokens_per_second": {name: round(rate) for name, rate in rates.items()},
        "useful": {name: round(value, 4) for name, value in useful.items()},
        "useful_of_4000": {name: round(value, 4) for name, value in of_many.items()},
        "against_padded": round(rates["packed"] / rates["padded"], 2),
        "over_the_bound": round(rates["packed"] / rates["padded"] * useful["padded"], 2),
        "against_by_length": round(rates["packed"] / rates["by_length"], 2),
    }


def share(grouped: Iterator[list[Sequence]]) -> float:
    """Share of useful tokens in padded batches."""
    sizes = [[len(s) for s in batch] for batch in grouped]
    return sum(map(sum, sizes)) / sum(max(batch) * len(batch) for batch in sizes)


def timed(train: Callable[[Any], None], step: object) -> float:
    began = time.process_time()
    train(step)
    return time.process_time() - began


def packed_training() -> Callable[[Any], None]:
    torch.manual_seed(0)
    module = PackLoss(Transformer(SIZES, VOCABULARY), backend("sdpa", CPU, torch.float32))
    engine = TorchEngine(module, EngineConfig(name="torch"), OptimizerConfig())

    def train(step: list[PackTensors]) -> None:
        engine.step(step, lambda nats: nats.sum() / 1000, 1e-3)

    return train


def padded_training() -> Callable[[Any], None]:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY.size, hidden_size=SIZES.width, intermediate_size=SIZES.hidden,
        num_hidden_layers=SIZES.depth, num_attention_heads=SIZES.heads, num_key_value_heads=SIZES.kv_heads,
        head_dim=SIZES.head, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def train(step: list[Sequence]) -> None:
        longest = max(map(len, step))
        ids = torch.zeros(len(step), longest, dtype=torch.int64)
        labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
        for i, sequence in enumerate(step):
            row = torch.from_numpy(sequence.ids.astype(np.int64))
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
            labels[i, : len(row)] = torch.where(torch.from_numpy(sequence.targets), row, -100)
        model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return train


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that exist, and keeps the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, int] = {}
        self.most = self.now = 0

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor) and (key := (storage := tensor.untyped_storage())._cdata) not in self.known:
                self.known[key] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, key)
        return out

    def forget(self, key: int) -> None:
        self.now -= self.known.pop(key)


def logits_memory(_: float) -> dict[str, Any]:
    """MB of tensors at the most, counted and not timed, in a forward and backward pass that predicts 8,192 codes of
    32,000 or pieces of text of 32,000: in chunks, and all logits at once."""
    figures: dict[str, Any] = {}
    vocabulary = Vocabulary(32_000, (32_000,), "t", "v")
    transformer = Transformer(TransformerConfig(width=64, depth=1, heads=2, kv_heads=2, hidden=64), vocabulary)
    length = 2 * 8192 + 64
    visibility = Visibility((length,), (0,))
    before = torch.arange(8192)
    for name, kind in (("text", TEXT), ("codes", TEXT + 1)):
        ids = vocabulary.ids([5], name)
        tensors = PackTensors(
            torch.full((length,), int(ids[0])), torch.zeros(length, 3, dtype=torch.int64), before,
            torch.full((8192,), int(ids[0])), torch.full((8192,), kind), visibility,
        )  # fmt: skip
        for how, chunk in (("chunks", CHUNK), ("at_once", length)):
            transformer.zero_grad(set_to_none=True)
            with Live() as live:
                PackLoss(transformer, backend("sdpa", CPU, torch.float32), chunk=chunk)(tensors).sum().backward()
            figures[f"{name}_{how}_MB"] = round(live.most / 1e6)
    return figures
