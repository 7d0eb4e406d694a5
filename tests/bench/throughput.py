"""Training beside a plain, compiled PyTorch loop: shares of the machine's matrix-product speed, in one thread.

Models of about 3M, 12M and 50M parameters with 8,192 codes, steps of 4 x 1,024 tokens, in fp32 and bf16. The plain loop
is Hugging Face's Qwen3, which has our block, compiled as a whole by torch.compile, on rows of 1,024 tokens without
documents. Ours are packs of three clips with captions, by the plain engine and through DeepSpeed (ZeRO stage 1), with
``compile: true`` and the attention that ``auto`` chooses. Operations are counted alike: six for each weight of a matrix
product and token, and the attention that the masks allow. The engines take turns; the fastest step of each counts, in
processor time. ``python tests/bench/throughput.py SIZE DTYPE`` is the process of one line.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM

from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.engine.base import Engine, EngineConfig
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.optim import OptimizerConfig
from vpoet.training.precision import DTYPES

CPU = torch.device("cpu")
ROWS, LENGTH, CODES, STEPS = 4, 1024, 8192, 6
VOCABULARY = Vocabulary(64, (CODES,), "t", "v")
SIZES = {
    "3m": TransformerConfig(width=192, depth=4, heads=3, kv_heads=3, hidden=512, visual_groups=1),
    "12m": TransformerConfig(width=384, depth=5, heads=6, kv_heads=6, hidden=1024, visual_groups=1),
    "50m": TransformerConfig(width=768, depth=6, heads=12, kv_heads=12, hidden=2048, visual_groups=1),
}


def training_throughput(_: float) -> dict[str, Any]:
    """Share of the matrix-product peak by the plain loop, by vpoet, and by vpoet through DeepSpeed."""
    return {f"{size}_{dtype}": _alone(size, dtype) for size in SIZES for dtype in ("fp32", "bf16")}


def _alone(size: str, dtype: str) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, __file__, size, dtype]
    done = subprocess.run(
        command, env=os.environ | launched | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=True
    )
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def measure(size: str, dtype: str) -> dict[str, Any]:
    from vpoet.training.engine.deepspeed import DeepSpeedEngine

    packs = [PackTensors.of(row, CPU) for row in _packs()]
    flops = sum(Transformer(SIZES[size], VOCABULARY).flops(each.visibility, len(each.after_M)) for each in packs)
    optimizer = OptimizerConfig()

    def module() -> PackLoss:
        torch.manual_seed(0)
        attention = backend("auto", CPU, DTYPES[dtype])
        return PackLoss(Transformer(SIZES[size], VOCABULARY), attention, run=runner(compiled=True))

    ours = TorchEngine(module(), EngineConfig(name="torch", dtype=dtype), optimizer)
    shared = DeepSpeedEngine(module(), EngineConfig(name="deepspeed", dtype=dtype), optimizer, lambda world: ROWS)
    plain, plain_flops = _plain(size, DTYPES[dtype])
    ways = {"plain": plain, "vpoet": lambda: _step(ours, packs), "deepspeed": lambda: _step(shared, packs)}
    seconds = dict.fromkeys(ways, float("inf"))
    for number in range(STEPS + 2):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number > 1:  # these compile
                seconds[name] = min(seconds[name], time.process_time() - began)
    peak = _peak(DTYPES[dtype])
    work = {"plain": plain_flops, "vpoet": flops, "deepspeed": flops}
    shares = {name: round(work[name] / seconds[name] / peak, 3) for name in ways}
    rates = {name: round(ROWS * LENGTH / seconds[name]) for name in ways}
    return {"peak_gflops": round(peak / 1e9), "share": shares, "tokens_per_second": rates}


def _peak(dtype: torch.dtype, size: int = 1024) -> float:
    """Operations a second of the best of many square products, by the processor's time like all else here."""
    a, b = (torch.ones(size, size, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(100):
        began = time.process_time()
        a @ b
        best = min(best, time.process_time() - began)
    return 2 * size**3 / best


def _packs() -> list[Any]:
    random = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        codes = random.integers(0, CODES, (3, 5, 8, 8), dtype=np.int32)
        samples = [Sample(random.integers(0, 64, 9, dtype=np.int32), each, 8) for each in codes]
        rows.append(pack([build(TABLE["t2v"].document(each), VOCABULARY) for each in samples], LENGTH))
    return rows


def _step(engine: Engine, packs: list[PackTensors]) -> None:
    total = sum(len(each.after_M) for each in packs)
    engine.step(packs, lambda nats: nats.sum() / total, 1e-3)


def _plain(size: str, dtype: torch.dtype) -> tuple[Callable[[], None], float]:
    """A training step of the loop, and its operations."""
    c = SIZES[size]
    config = Qwen3Config(
        vocab_size=CODES, hidden_size=c.width, intermediate_size=c.hidden, num_hidden_layers=c.depth,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head, tie_word_embeddings=False,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    compiled = torch.compile(model)
    ids = torch.randint(CODES, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            loss = compiled(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    with torch.device("meta"):
        same = Transformer(c, VOCABULARY)
    return step, ROWS * same.flops(Visibility((LENGTH,), (0,)), LENGTH)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:3])))
