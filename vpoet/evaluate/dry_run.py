"""Bytes that live in a training step, counted by taking it with tensors that have shapes and no memory."""

import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vpoet.nn.attention import backend
from vpoet.nn.nats import CHUNK, head_nats
from vpoet.nn.transformer import Transformer
from vpoet.nn.visibility import Attend, Visibility
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.training.blocks import runner
from vpoet.training.precision import DTYPES
from vpoet.training.recipe import PretrainConfig

SHALLOW = 4
"""Blocks of the deepest network that is counted as a whole."""


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


def counted(recipe: PretrainConfig, words: Vocabulary, *, on_cpu: bool, gradients: bool) -> tuple[int, int, int]:
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
