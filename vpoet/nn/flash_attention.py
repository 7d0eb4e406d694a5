"""Attention over packed documents by kernels that take all of them in one call: on CUDA, in fp16 or bf16.

    varlen   torch's own (torch.nn.attention.varlen), which needs no build
    flash    flash-attn 2 (Dao, arXiv:2307.08691)
    flash3   flash-attn 3 (Shah et al., arXiv:2407.08608), for Hopper

A prefix, which is read both ways, takes a second call over the tokens of all prefixes, whose rows replace the first's.

Shapes: T packed tokens, N query heads, K key/value heads (N a multiple of K), H head size.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import BackendError
from vpoet.nn.visibility import Attend, Backend, Visibility, refuse_windows

HEADS = range(8, 257, 8)
"""Sizes of heads that the kernels take."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, bool], Tensor]
"""(q_TNH, k_TKH, v_TKH, cu_seqlens, longest, causal) -> o_TNH"""


def kernel_backend(
    name: str, device: torch.device, dtype: torch.dtype, *, head: int | None, deterministic: bool
) -> Backend:
    """The backend called varlen, flash or flash3, as `vpoet.nn.attention.backend` gives it; BackendError says what it
    lacks."""
    what = f"attention backend {name}"
    if device.type not in ("cuda", "meta"):
        raise BackendError(f"{what} runs on CUDA, not on {device.type}; use sdpa")
    if dtype not in (torch.float16, torch.bfloat16):
        raise BackendError(f"{what} computes in fp16 or bf16, not in {dtype}; use sdpa")
    if head is not None and head not in HEADS:
        raise BackendError(f"{what} takes heads of a multiple of 8 features up to 256, not of {head}; use flex or sdpa")
    if device.type == "cuda" and torch.cuda.is_available():
        capability = torch.cuda.get_device_capability(device)
        has = ".".join(map(str, capability))
        if capability < (8, 0):
            raise BackendError(f"{what} needs a GPU of compute capability 8.0 (Ampere), not {has}; use sdpa")
        if name == "flash3" and capability[0] != 9:
            raise BackendError(f"{what} is for Hopper, compute capability 9.0, not {has}; use varlen or flash")
    if name == "varlen":
        return varlen_backend(_imported(name), deterministic=deterministic)
    return flash_backend(_imported(name), deterministic=deterministic)


_HOMES = {
    "varlen": ("torch.nn.attention.varlen", "varlen_attn", "enable_gqa", "it comes with torch 2.13"),
    "flash": (
        "flash_attn", "flash_attn_varlen_func", "deterministic",
        'pip install --no-build-isolation "vpoet[gpu]" builds it; varlen needs no build',
    ),
    "flash3": (
        "flash_attn_interface", "flash_attn_varlen_func", "return_attn_probs",
        "it is built from the folder hopper of flash-attn's sources; varlen needs no build",
    ),
}  # fmt: skip
"""Where each kernel is: module, function, an argument that older versions lack, and how it gets there."""


def _imported(name: str) -> Callable[..., Any]:
    module, function, argument, remedy = _HOMES[name]
    try:
        # a build for another torch, or for no GPU, fails inside the import: the package's presence proves nothing
        found: Callable[..., Any] = getattr(__import__(module, fromlist=[function]), function)
    except (ImportError, AttributeError) as error:
        raise BackendError(f"attention backend {name}: {module} cannot be imported ({error}); {remedy}") from None
    if argument not in inspect.signature(found).parameters:
        raise BackendError(f"attention backend {name}: {module} is too old, without {argument}=; {remedy}")
    return found


def varlen_backend(varlen_attn: Callable[..., Any], *, deterministic: bool = False) -> Backend:
    """The varlen backend over any function with the signature of torch's ``varlen_attn`` (tests hand in a twin)."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, causal: bool) -> Tensor:
        o: Tensor = varlen_attn(
            q,
            k,
            v,
            cu_seqlens,
            cu_seqlens,
            longest,
            longest,
            window_size=(-1, 0) if causal else (-1, -1),
            enable_gqa=q.shape[1] != k.shape[1],
        )
        return in_order(o) if deterministic else o

    return _packed("varlen", kernel)


def in_order(o: Tensor) -> Tensor:
    """What a kernel of torch's gave, whose backward pass is to add up in a fixed order: it has no argument for it, but
    asks torch's global switch, which is on for as long as this one node of the graph is at work.

    A pass that torch writes out as products needs no switch, and would be refused with it.
    """
    node, before = o.grad_fn, []

    def on(_: Any) -> None:
        before.append(torch.get_deterministic_debug_mode())
        torch.set_deterministic_debug_mode("error")

    def off(*_: Any) -> None:
        torch.set_deterministic_debug_mode(before.pop())

    if node is not None and any(kernel in node.name() for kernel in ("varlen", "ScaledDotProduct")):
        node.register_prehook(on)
        node.register_hook(off)
    return o


def flash_backend(flash_attn_varlen_func: Callable[..., Any], *, deterministic: bool = False) -> Backend:
    """The flash and flash3 backends over any function with the signature that both share (tests hand in a twin)."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, causal: bool) -> Tensor:
        o: Tensor = flash_attn_varlen_func(
            q,
            k,
            v,
            cu_seqlens_q=cu_seqlens,
            cu_seqlens_k=cu_seqlens,
            max_seqlen_q=longest,
            max_seqlen_k=longest,
            causal=causal,
            deterministic=deterministic,
        )
        return o

    return _packed("flash", kernel)


def _packed(name: str, kernel: Kernel) -> Backend:
    def prepare(visibility: Visibility, device: torch.device) -> Attend:
        refuse_windows(visibility, name)
        at = visibility.offsets(device)

        def attend(_: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            o_TNH = kernel(q_TNH, k_TKH, v_TKH, at.cu_seqlens, at.longest, True)
            if at.longest_prefix:
                q, k, v = (x.index_select(0, at.in_prefix) for x in (q_TNH, k_TKH, v_TKH))
                both_ways = kernel(q, k, v, at.prefix_cu_seqlens, at.longest_prefix, False)
                o_TNH = o_TNH.index_copy(0, at.in_prefix, both_ways)
            return o_TNH

        return attend

    return prepare
