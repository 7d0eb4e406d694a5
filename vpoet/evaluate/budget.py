"""The compute and memory budget of a pretraining run, before it starts: memory by kind, time and cost.

Parameters, operations and activations come from the network itself: a step is taken with tensors that have shapes and
no memory, and what lives at the same time is counted. What engines keep beside it is bookkeeping, stated here.
"""

import os
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vpoet.errors import ConfigError
from vpoet.nn.attention import backend
from vpoet.nn.nats import CHUNK, head_nats
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Attend, Visibility
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.fsq import LEVELS
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.blocks import runner
from vpoet.training.engine.base import EngineConfig
from vpoet.training.meter import matmul_peak
from vpoet.training.optim import block_matrices
from vpoet.training.precision import DTYPES
from vpoet.training.recipe import PretrainConfig

PIECES, CODES = 8192, 2**16
"""Text pieces and visual codes that are counted with while a recipe's tokenizers are not there yet; the tokenizer that
ships has so many codes."""

MFU = 0.4
"""Share of the peak that is counted with: Llama 3 reports 38% to 43% on H100s (arXiv:2407.21783, table 4), PaLM 46%
(arXiv:2204.02311, table 3)."""

BUCKET = 500_000_000
"""Elements of the buffer in which DeepSpeed's stages 1 to 3 collect gradients, whatever the model's size; its own
default, as is the next."""
GATHERED = 1_000_000_000
"""Elements of weights that stage 3 holds whole at a time, at most."""


SHALLOW = 4
"""Blocks of the deepest network that is counted as a whole."""


@dataclass(frozen=True)
class Device:
    """Peak floating-point operations per second of dense matrix products, and bytes of memory."""

    bf16: float
    fp32: float
    memory: float


DEVICES = {
    "h100": Device(989.4e12, 67e12, 80e9),
    "h200": Device(989.4e12, 67e12, 141e9),
    "a100-80": Device(312e12, 19.5e12, 80e9),
    "l40s": Device(362.05e12, 91.6e12, 48e9),
    "rtx4090": Device(165.2e12, 82.6e12, 24e9),
}
"""By NVIDIA's data sheets of H100 (SXM), H200 (SXM), A100 80GB (SXM) and L40S, and by appendix A of its Ada GPU
architecture paper (RTX 4090, with fp32 accumulation). bf16, and fp16 with it, is without sparsity, fp32 without TF32,
which PyTorch does not use unless told to."""
CPU = "cpu"


@dataclass(frozen=True)
class Memory:
    """Bytes of one process, by kind; they exist at the same time, in the backward pass."""

    weights: int
    masters: int
    """fp32 weights that DeepSpeed's optimiser keeps beside those of the network."""
    states: int
    gradients: int
    buffers: int
    """DeepSpeed's buckets, and in stage 3 the weights that are put together for use."""
    activations: int
    """Kept by the forward pass for the backward pass; in autocast with the bf16 copies of weights."""
    logits: int
    """What the heads add while they work on a chunk of tokens."""
    passing: int
    """What the backward pass adds to all this at its worst moment: gradients on their way, a block computed again."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def by_kind(self) -> dict[str, int]:
        """The same under the names that a reader is shown."""
        names = ("weights", "fp32 weights of the optimiser", "optimiser states", "gradients", "DeepSpeed's buffers")
        return dict(zip((*names, "activations", "logits", "passing"), vars(self).values(), strict=True))


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
    peak = limit.fp32 if engine.dtype == "fp32" else limit.bf16
    length = recipe.data.length
    flops = transformer.flops(Visibility((length,), (0,)), length) / length
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
    facts["FLOPs per token at most"] = flops
    facts["GB of memory in each process"] = {
        **{name: value / 1e9 for name, value in chosen.by_kind().items() if value},
        "in all": chosen.total / 1e9,
        f"in all with checkpoint_blocks {str(not recipe.checkpoint_blocks).lower()}": other.total / 1e9,
        "share of the device": chosen.total / limit.memory,
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
        return Vocabulary(PIECES, grouped(LEVELS[CODES], groups), "", ""), False
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
    kept, heads, most = _counted(recipe, words, on_cpu=on_cpu, gradients=sharded or packs > 1)
    with torch.device("meta"):
        transformer = Transformer(recipe.model, words)
    count = transformer.parameter_count
    if not sharded:
        held = (4 * count if packs > 1 else 0, 0)
        matrices = block_matrices(dict(transformer.named_parameters())) if recipe.optimizer.matrix_lr else {}
        states = 8 * count - 4 * sum(weight.numel() for weight in matrices.values())  # Muon keeps one value, AdamW two
        return Memory(4 * count, 0, states, *held, kept, heads, most - kept - heads)
    size = DTYPES[engine.dtype].itemsize
    whole, share = size * count, -(-count // world)
    gathered = size * min(count, GATHERED) if engine.zero == 3 and world > 1 else 0
    return Memory(
        weights=size * share if engine.zero == 3 else whole,
        masters=4 * share,
        states=8 * share,
        gradients=size * share if engine.zero > 1 else whole,
        buffers=size * BUCKET + gathered,
        activations=kept,
        logits=heads,
        # the optimiser's step has no activations, and an fp32 copy of its gradients in their place
        passing=max(most, 4 * share) - kept - heads,
    )


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that live, as they are made and die."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = call(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self.count(tensor)
        return made

    def count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = id(storage), storage.nbytes()
        if place in self._known:
            return

        def dies(_: Any) -> None:
            self.now -= size
            del self._known[place]

        self._known[place] = weakref.ref(storage, dies)
        self.now += size
        self.most = max(self.most, self.now)


def _counted(recipe: PretrainConfig, words: Vocabulary, *, on_cpu: bool, gradients: bool) -> tuple[int, int, int]:
    """`_dry_run`; of a deep network from two shallow ones, as each block keeps the same. (Gradients that grow meanwhile
    break the line: then in full.)"""
    depth = recipe.model.depth
    if depth <= SHALLOW or not gradients:
        return _dry_run(recipe, words, on_cpu=on_cpu, gradients=gradients)
    fewer, few = (
        _dry_run(replace(recipe, model=replace(recipe.model, depth=d)), words, on_cpu=on_cpu, gradients=True)
        for d in (SHALLOW - 1, SHALLOW)
    )
    kept, heads, most = (b + (depth - SHALLOW) * (b - a) for a, b in zip(fewer, few, strict=True))
    return kept, heads, max(most, kept + heads)


def _dry_run(recipe: PretrainConfig, words: Vocabulary, *, on_cpu: bool, gradients: bool) -> tuple[int, int, int]:
    """Bytes beside weights and states of one pack's forward and backward pass, without memory and without arithmetic:
    kept at the end of the blocks, added by the heads, and the most at any moment. ``gradients``: they exist before."""
    length, dtype, pieces = recipe.data.length, DTYPES[recipe.engine.dtype], recipe.engine.sequence_parallel
    mixed: AbstractContextManager[Any] = nullcontext()
    with FakeTensorMode():
        transformer = Transformer(recipe.model, words).train()
        living = _Living()
        for weight in transformer.parameters():
            if recipe.engine.name == "deepspeed":
                weight.data = weight.data.to(dtype)
            elif dtype is not torch.float32:
                mixed = torch.autocast("cpu", dtype)
            living.count(weight)
            if gradients:
                weight.grad = torch.zeros_like(weight)
                living.count(weight.grad)
        before = living.now
        visibility, cpu = Visibility((length,), (0,)), torch.device("cpu")
        attend = backend("sdpa", cpu, dtype)(visibility, cpu) if on_cpu else _fused_attention
        if pieces > 1:
            attend = _exchanged(attend, pieces)
        with living, mixed:
            ids_T = torch.full((length // pieces,), words.language)
            positions_T3 = torch.zeros(len(ids_T), 3, dtype=torch.long)
            h_TD = transformer(ids_T, positions_T3, attend, runner(checkpointed=recipe.checkpoint_blocks))
            state_TD = h_TD.detach().requires_grad_()
            kept = living.now - before
            living.most = living.now
            every_T, visual = torch.arange(len(ids_T)), transformer.visual_nats
            nats_T = head_nats(visual, state_TD, every_T, ids_T, z_loss=recipe.z_loss, chunk=CHUNK)
        with living:
            nats_T.sum().backward()  # type: ignore[no-untyped-call]
            heads = living.most - before - kept
            del nats_T
            h_TD.backward(state_TD.grad)
        return kept, heads, living.most - before


def _exchanged(attend: Attend, pieces: int) -> Attend:
    """What `ulysses.shared_attention` puts in place of tensors: as large, of more tokens and fewer heads, and back."""

    def of_piece(layer: int, *qkv_tNH: Tensor) -> Tensor:
        q, k, v = (x.reshape(len(x) * pieces, -1, x.shape[-1]).clone() for x in qkv_tNH)
        o_TNH = attend(layer, q, k, v)
        return o_TNH.reshape(len(o_TNH) // pieces, -1, o_TNH.shape[-1]).clone()

    return of_piece


class _Fused(torch.autograd.Function):
    """What flash-attn's kernels keep: queries, keys, values, the output, and an fp32 number for each query and head."""

    @staticmethod
    def forward(ctx: Any, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        o_TNH = torch.empty_like(q_TNH)
        ctx.save_for_backward(q_TNH, k_TKH, v_TKH, o_TNH, q_TNH.new_empty(q_TNH.shape[:2], dtype=torch.float32))
        return o_TNH

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def _fused_attention(layer: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
    fused: Callable[..., Tensor] = _Fused.apply
    return fused(q_TNH, k_TKH, v_TKH)
