"""The backends of attention over packed documents: each computes the same `vpoet.nn.visibility`, chosen by value.

Shapes: T packed tokens, N query heads, K key/value heads (N a multiple of K), H head size.

    sdpa        pure torch, one call for each document; supports everything; the oracle of the others
    products    plain products of matrices (`vpoet.nn.matmul_attention`): training in bf16 on CPUs with units for it
    flex        FlexAttention with a block mask; on CPU forward only
    flash       flash-attn's varlen kernel; CUDA, fp16 and bf16
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import BackendError
from vpoet.nn.matmul_attention import products
from vpoet.nn.visibility import Attend, Backend, Visibility, refuse_windows, sees
from vpoet.nn.window_attention import WindowAttention


def backend(name: str, device: torch.device, dtype: torch.dtype, *, windows: bool = False) -> Backend:
    """The backend called ``name`` (sdpa, products, flex or flash), checked for this device and dtype; BackendError says
    what it lacks. auto: flash where it can run, products in bf16 on a CPU with AMX, else sdpa; where documents have
    ``windows``, flex on CUDA, else sdpa."""
    if name == "auto" and windows:
        name = "flex" if device.type == "cuda" else "sdpa"
    if name == "auto":
        if device.type == "cpu" and dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
            return products
        try:
            return backend("flash", device, dtype)
        except BackendError:
            return _sdpa
    if name == "sdpa":
        return _sdpa
    if name == "products":
        if device.type != "cpu":
            raise BackendError(f"attention backend products is for CPUs, not for {device.type}; use flash or sdpa")
        return products
    if name == "flex":
        return _flex
    if name == "flash":
        return _flash(device, dtype)
    raise BackendError(f"attention backend {name!r}: there are auto, sdpa, products, flex and flash")


def _sdpa(visibility: Visibility, device: torch.device) -> Attend:
    lengths = list(visibility.lengths)
    windows = [
        None if until is None else WindowAttention(prefix, until, device)
        for prefix, until in zip(visibility.prefixes, visibility.windows, strict=True)
    ]

    def attend(_: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        dtype = q_TNH.dtype
        if device.type == "cpu" and q_TNH.requires_grad:
            # oneDNN keeps the bf16 kernels of every length that it ever met: 1.5 GB after 400; fp32 has none to keep
            q_TNH, k_TKH, v_TKH = q_TNH.float(), k_TKH.float(), v_TKH.float()
        # split and not sliced: the gradient of a slice is a whole pack of zeros, one for each document
        q_, k_, v_ = (x.transpose(0, 1)[None].split_with_sizes(lengths, dim=2) for x in (q_TNH, k_TKH, v_TKH))
        out = []
        for q, k, v, prefix, window in zip(q_, k_, v_, visibility.prefixes, windows, strict=True):
            if window is not None:
                out.append(window(q, k, v)[0].transpose(0, 1))
                continue
            grouped = q.shape[1] != k.shape[1]
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
            if prefix:
                q, k, v = (x[:, :, :prefix] for x in (q, k, v))
                o_prefix = F.scaled_dot_product_attention(q, k, v, enable_gqa=grouped)
                o = torch.cat((o_prefix, o[:, :, prefix:]), dim=2)
            out.append(o[0].transpose(0, 1))
        return torch.cat(out).to(dtype)

    return attend


def _flex(visibility: Visibility, device: torch.device) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    document_T, prefix_T = visibility.per_token(device)
    until_T = visibility.until_T(device)
    total = visibility.bounds[-1]

    def mask(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return sees(document_T, prefix_T, q, k, until_T)

    blocks = create_block_mask(mask, None, None, total, total, device=device.type)
    kernel = _compiled(flex_attention)

    def attend(_: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
        if device.type == "cpu" and torch.is_grad_enabled() and q_TNH.requires_grad:
            raise BackendError("attention backend flex has no backward pass on a CPU; use sdpa to train there")
        q, k, v = (x.transpose(0, 1)[None].contiguous() for x in (q_TNH, k_TKH, v_TKH))
        o: Tensor = kernel(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
        return o[0].transpose(0, 1)

    return attend


@cache
def _compiled(kernel: Any) -> Any:
    """FlexAttention is fast only when compiled, and compiling once serves every pack."""
    return torch.compile(kernel, dynamic=True)


def _flash(device: torch.device, dtype: torch.dtype) -> Backend:
    if device.type != "cuda":
        raise BackendError(f"attention backend flash runs on CUDA, not on {device.type}; use sdpa")
    if dtype not in (torch.float16, torch.bfloat16):
        raise BackendError(f"attention backend flash computes in fp16 or bf16, not in {dtype}; use sdpa")
    try:
        # a build for another torch, or for no GPU, fails inside the import: the package's presence proves nothing
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        raise BackendError(
            f"attention backend flash: flash-attn cannot be imported ({error}); "
            'pip install --no-build-isolation "vpoet[gpu]"'
        ) from None
    return flash_backend(flash_attn_varlen_func)


def flash_backend(varlen: Callable[..., Tensor]) -> Backend:
    """The flash backend over any function with the signature of ``flash_attn_varlen_func`` (tests hand in a twin)."""

    def prepare(visibility: Visibility, device: torch.device) -> Attend:
        refuse_windows(visibility, "flash")
        causal = _varlen_arguments(visibility.lengths, device)
        some_prefix = any(visibility.prefixes)
        both_ways = _varlen_arguments(tuple(p for p in visibility.prefixes if p), device) if some_prefix else {}
        _, prefix_T = visibility.per_token(device)
        in_prefix = torch.nonzero(torch.arange(len(prefix_T), device=device) < prefix_T)[:, 0]

        def attend(_: int, q_TNH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            o_TNH = varlen(q_TNH, k_TKH, v_TKH, causal=True, **causal)
            if some_prefix:
                q, k, v = (x[in_prefix] for x in (q_TNH, k_TKH, v_TKH))
                o_TNH = o_TNH.index_copy(0, in_prefix, varlen(q, k, v, causal=False, **both_ways))
            return o_TNH

        return attend

    return prepare


def _varlen_arguments(lengths: tuple[int, ...], device: torch.device) -> dict[str, Any]:
    bounds = torch.tensor((0, *lengths), device=device).cumsum(0).to(torch.int32)
    longest = max(lengths)
    return {"cu_seqlens_q": bounds, "cu_seqlens_k": bounds, "max_seqlen_q": longest, "max_seqlen_k": longest}
