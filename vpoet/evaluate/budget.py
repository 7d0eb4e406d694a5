"""The compute and memory budget of a pretraining run, before it starts: memory by kind, time and cost.

Parameters, operations and activations come from the network itself: a step is taken with tensors that have shapes and
no memory, and what lives at the same time is counted. What engines keep beside it is bookkeeping, stated here.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from vpoet.errors import ConfigError
from vpoet.evaluate.dry_run import counted
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.fsq import LEVELS
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.engine.base import EngineConfig
from vpoet.training.engine.settings import ON_CUDA
from vpoet.training.meter import matmul_peak
from vpoet.training.optim import block_matrices
from vpoet.training.precision import DTYPES
from vpoet.training.recipe import PretrainConfig
from vpoet.training.sheets import DEVICES, Device

PIECES, CODES = 8192, 2**16
"""Text pieces and visual codes that are counted with while a recipe's tokenizers are not there yet; the tokenizer that
ships has so many codes."""

MFU = 0.4
"""Share of the peak that is counted with: Llama 3 reports 38% to 43% on H100s (arXiv:2407.21783, table 4), PaLM 46%
(arXiv:2204.02311, table 3)."""

DOCUMENT = 1400
"""Tokens of the documents that time is planned with, or a whole pack, if that is shorter: a clip of 17 frames of
128x128 has 1,280 codes at 4x8x8. In a pack of many such documents attention costs what theirs does, not the pack's."""

PRODUCTS = 0.75
"""Share of a GPU's data sheet that large products of matrices reach, by which a run's own ``speed/mfu`` is measured (an
assumption; `vpoet.training.meter.matmul_peak` measures it as a run starts)."""

BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed's stages 1 to 3 collect gradients on a CPU, whatever the model's size; its
own default, as is the next."""
GATHERED = 1_000_000_000
"""Elements of weights that stage 3 holds whole at a time, at most."""
OUTSIDE = 2_500_000_000
"""Bytes that a GPU gives to none of this (an assumption): CUDA's context and kernels, NCCL's channels, cuBLAS's
workspaces."""
ROOMS = 4
"""Caches that sampling keeps at most, with the CUDA graphs that were captured on them, and which share one pool."""
MUON = 1 << 29
"""Bytes of matrices that Muon orthogonalises at once, where several processes share them."""

CPU = "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by kind; they exist at the same time, in the backward pass."""

    weights: int
    masters: int
    """fp32 weights that DeepSpeed's optimiser keeps beside those of the network."""
    states: int
    gradients: int
    """In fp32, in which they are summed: at stage 1 all of them in every process, from stage 2 on its share."""
    buffers: int
    """DeepSpeed's buckets, and in stage 3 the weights that are put together for use."""
    activations: int
    """Kept by the forward pass for the backward pass; in autocast with the bf16 copies of weights."""
    logits: int
    """What the heads add while they work on a chunk of tokens."""
    passing: int
    """What the backward pass adds to all this at its worst moment: gradients on their way, a block computed again."""
    outside: int
    """On a GPU, what is no tensor."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def by_kind(self) -> dict[str, int]:
        """The same under the names that a reader is shown."""
        names = ("weights", "fp32 weights of the optimiser", "optimiser states", "gradients", "DeepSpeed's buffers")
        return dict(
            zip((*names, "activations", "logits", "passing", "CUDA and NCCL"), vars(self).values(), strict=True)
        )


def plan(
    recipe: PretrainConfig,
    device: str,
    *,
    world: int = 1,
    zero: int | None = None,
    mfu: float = MFU,
    price: float | None = None,
) -> dict[str, Any]:
    """What ``world`` processes, each with a ``device`` of `DEVICES` or on this machine's CPU, need for the whole run.

    One process trains with plain PyTorch, unless the recipe's engine or a stage ``zero`` asks for DeepSpeed; further
    settings of DeepSpeed's (``engine.deepspeed``) are not read. ``price`` is for an hour of one device. ConfigError if
    the run could not start so.
    """
    if device not in (CPU, *DEVICES):
        raise ConfigError(f"device {device!r}: there are {', '.join((CPU, *DEVICES))}")
    if world < 1 or not 0 < mfu <= 1:
        raise ConfigError(f"a plan is for 1 or more processes and an MFU above 0 and up to 1, not {world} and {mfu:g}")
    engine = _engine(recipe.engine, world, zero)
    recipe = replace(recipe, engine=engine)
    words, known = vocabulary(recipe)
    with torch.device("meta"):
        transformer = Transformer(recipe.model, words)
    needs = {
        checkpointed: memory(replace(recipe, checkpoint_blocks=checkpointed), words, world=world, on_cpu=device == CPU)
        for checkpointed in (recipe.checkpoint_blocks, not recipe.checkpoint_blocks)
    }
    chosen, other = needs.values()
    limit = DEVICES[device] if device in DEVICES else _this_machine(DTYPES[engine.dtype], world)
    peak = limit.peak(DTYPES[engine.dtype])
    length = recipe.data.length
    at_most = transformer.flops(Visibility((length,), (0,)), length) / length
    flops = flops_per_token(recipe, transformer)
    speed = mfu * peak * world / flops
    tokens = recipe.steps * recipe.batch * length
    hours = tokens / speed / 3600
    how = f"DeepSpeed, ZeRO {engine.zero}" if engine.name == "deepspeed" else "plain PyTorch"
    shared = f", {engine.sequence_parallel} processes a pack" if engine.sequence_parallel > 1 else ""
    facts: dict[str, Any] = {
        "on": f"{world} x {device}, {peak / 1e12:.4g} TFLOP/s in {engine.dtype} and {limit.memory / 1e9:.4g} GB each",
        "engine": f"{how}, {engine.dtype}{shared}, checkpoint_blocks {str(recipe.checkpoint_blocks).lower()}",
    }
    if not known:
        facts["vocabulary"] = f"{PIECES} text pieces and {CODES} visual codes, as the tokenizers are not there yet"
    facts["parameters"] = {
        "embeddings": sum(p.numel() for part in (transformer.language, transformer.codes) for p in part.parameters()),
        "blocks and last norm": sum(
            p.numel() for part in (transformer.blocks, transformer.norm) for p in part.parameters()
        ),
        "visual head": sum(p.numel() for p in transformer.visual.parameters()),
        "in all": transformer.parameter_count,
    }
    facts["FLOPs per token"] = {
        f"in documents of {min(length, DOCUMENT):,} tokens, which time is planned with": flops,
        "at most, if one document fills a pack": at_most,
    }
    if device != CPU:
        facts["GB to sample a clip from it, guided, in bf16"] = _sampling(recipe, transformer)
    facts["GB of memory in each process"] = {
        **{name: value / 1e9 for name, value in chosen.by_kind().items() if value},
        "in all": chosen.total / 1e9,
        f"in all with checkpoint_blocks {str(not recipe.checkpoint_blocks).lower()}": other.total / 1e9,
        "share of the device": chosen.total / limit.memory,
    }
    products = 1.0 if device == CPU else PRODUCTS
    facts["MFU"] = {
        "of the peak" if device == CPU else "of the data sheet": mfu,
        "of what large products of matrices reach, as the run reports it": mfu / products,
        "of the arithmetic, computed blocks again included": mfu * (4 / 3 if recipe.checkpoint_blocks else 1),
        "TFLOP/s of one device": mfu * peak / 1e12,
    }
    facts[f"the run, at {mfu:.0%} of the peak"] = {
        "tokens": tokens,
        "tokens a parameter": tokens / transformer.parameter_count,
        "FLOPs": flops * tokens,
        "tokens a day": round(speed * 86400),
        "days": hours / 24,
        "device hours": hours * world,
    } | ({} if price is None else {"cost": hours * world * price})
    return facts


def flops_per_token(recipe: PretrainConfig, transformer: Transformer) -> float:
    """Floating-point operations that time is planned with: of a token in a document of `DOCUMENT` tokens."""
    length = min(recipe.data.length, DOCUMENT)
    return transformer.flops(Visibility((length,), (0,)), length) / length


def _sampling(recipe: PretrainConfig, transformer: Transformer) -> dict[str, float]:
    """Memory of a decoder that serves documents as long as a pack."""
    model = recipe.model
    cache = 2 * 2 * recipe.data.length * model.depth * model.kv_heads * model.head * 2  # rows, keys and values, bf16
    parts = {
        "weights": 2 * transformer.parameter_count,
        f"KV caches of 2 x {recipe.data.length:,} tokens, {ROOMS} kept with their CUDA graphs": ROOMS * cache,
        "CUDA": OUTSIDE,
    }
    return {name: value / 1e9 for name, value in parts.items()} | {"in all": sum(parts.values()) / 1e9}


def _engine(engine: EngineConfig, world: int, zero: int | None) -> EngineConfig:
    if engine.name == "torch" and (world > 1 or zero is not None):
        raise ConfigError("engine.name = torch is one process without ZeRO; plan it with --world 1 and no --zero")
    alone = engine.name != "deepspeed" and world == 1 and zero is None
    return replace(engine, name="torch" if alone else "deepspeed", zero=engine.zero if zero is None else zero)


def _this_machine(dtype: torch.dtype, world: int) -> Device:
    """What each of ``world`` processes has of this machine, its speed as measured now."""
    speed = matmul_peak(torch.device(CPU), dtype) / world
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / world
    return Device(bf16=speed, fp32=speed, memory=total)


def vocabulary(recipe: PretrainConfig) -> tuple[Vocabulary, bool]:
    """The recipe's, and True; or one of `PIECES` and `CODES`, and False, where its tokenizers are not there yet."""
    groups = recipe.model.visual_groups
    if not (Path(recipe.text).is_file() and Path(recipe.video).is_dir()):
        return Vocabulary(PIECES, grouped(LEVELS[CODES], groups), "", "", levels=LEVELS[CODES]), False
    text, codes = TextTokenizer.load(recipe.text), VideoTokenizer.load(recipe.video)
    return recipe.vocabulary(text, codes), True


def memory(recipe: PretrainConfig, words: Vocabulary, *, world: int, on_cpu: bool) -> Memory:
    """Bytes of each of ``world`` processes with the recipe's engine (torch or deepspeed, not auto).

    Uncompiled: fused blocks keep less. One document fills the pack, and all its tokens are visual and predicted.
    Where a process has one pack and whole gradients of its own, these grow while the activations go: ``gradients``
    is then 0, and they are part of what passes.
    """
    engine = recipe.engine
    packs = recipe.packs_per_process(world)
    sharded = engine.name == "deepspeed" and engine.zero > 0
    kept, heads, most = counted(recipe, words, on_cpu=on_cpu, gradients=sharded or packs > 1)
    with torch.device("meta"):
        transformer = Transformer(recipe.model, words)
    count = transformer.parameter_count
    matrices = block_matrices(dict(transformer.named_parameters())) if recipe.optimizer.matrix_lr else {}
    muon = sum(weight.numel() for weight in matrices.values())
    states = 8 * count - 4 * muon  # Muon keeps one value, AdamW two
    outside = 0 if on_cpu else OUTSIDE
    if not sharded:
        gradients = 4 * count if packs > 1 else 0
        return Memory(4 * count, 0, states, gradients, 0, kept, heads, most - kept - heads, outside)
    size = DTYPES[engine.dtype].itemsize
    whole, share = size * count, -(-count // world)
    gathered = size * min(count, GATHERED) if engine.zero == 3 and world > 1 else 0
    return Memory(
        weights=size * share if engine.zero == 3 else whole,
        masters=4 * share,
        states=-(-states // world),
        gradients=4 * (count if engine.zero == 1 else share),
        buffers=_buckets(size, on_cpu=on_cpu) + gathered,
        activations=kept,
        logits=heads,
        # the optimiser's step has no activations, and a flat copy of its gradients in their place
        passing=max(most, 4 * share + (MUON if matrices and world > 1 else 0)) - kept - heads,
        outside=outside,
    )


def _buckets(size: int, *, on_cpu: bool) -> int:
    """Bytes in which DeepSpeed collects gradients of so many bytes each: one buffer, and on GPUs two, of which one is
    filled while the other is sent as fp32."""
    return size * BUCKET if on_cpu else (2 * size + 4) * int(ON_CUDA["reduce_bucket_size"])
