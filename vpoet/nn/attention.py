"""The backends of attention over packed documents: each computes the same `vpoet.nn.visibility`, chosen by value.

Shapes: T packed tokens, N query heads, K key/value heads (N a multiple of K), H head size.

    sdpa        pure torch, one call for each document; supports everything; the oracle of the others
    products    plain products of matrices (`vpoet.nn.matmul_attention`): training in bf16 on CPUs with units for it
    flex        FlexAttention with a block mask; on CPU forward only
    varlen, flash, flash3
                kernels that take all documents in one call (`vpoet.nn.flash_attention`); CUDA, fp16 and bf16
"""

import warnings
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import BackendError, VpoetWarning
from vpoet.nn.flash_attention import in_order, kernel_backend
from vpoet.nn.matmul_attention import products
from vpoet.nn.visibility import Attend, Backend, Visibility, sees
from vpoet.nn.window_attention import WindowAttention

KERNELS = ("flash3", "flash", "varlen")
"""In the order in which auto tries them."""


def backend(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    head: int | None = None,
    deterministic: bool = False,
    windows: bool = False,
) -> Backend:
    """The backend called ``name``, checked for this device and dtype, and for heads of ``head`` features if given;
    BackendError says what it lacks.

    auto: products in bf16 on a CPU with AMX, or where documents have ``windows`` one with any bf16 products, else sdpa;
    on a GPU the first of flash3, flash and varlen that can run there, else sdpa, and a VpoetWarning; with ``windows``
    flex.
    ``deterministic``: on a GPU the backward pass gives the same bits each time, for some memory and time (sdpa's with
    windows does not); elsewhere it does anyway.
    """
    if name == "auto" and windows and device.type == "cuda":
        name = "flex"
    if name == "auto" and windows:
        multiplies = dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        name = "products" if multiplies else "sdpa"
    if name == "auto" and device.type == "cpu":
        amx = dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported()
        name = "products" if amx else "sdpa"
    if name == "auto":
        return _fastest(device, dtype, head=head, deterministic=deterministic)
    if name == "sdpa":
        return partial(_sdpa, deterministic=True) if deterministic and device.type != "cpu" else _sdpa
    if name == "products":
        if device.type != "cpu":
            raise BackendError(f"attention backend products is for CPUs, not for {device.type}; use varlen or sdpa")
        return products
    if name == "flex":
        return _flex
    if name in KERNELS:
        return kernel_backend(name, device, dtype, head=head, deterministic=deterministic)
    raise BackendError(f"attention backend {name!r}: there are auto, sdpa, products, flex, varlen, flash and flash3")


def _fastest(device: torch.device, dtype: torch.dtype, *, head: int | None, deterministic: bool) -> Backend:
    for name in KERNELS:
        try:
            return kernel_backend(name, device, dtype, head=head, deterministic=deterministic)
        except BackendError as error:
            reason = error
    warnings.warn(
        f"attention on {device.type} falls back to sdpa, which takes the documents of a pack one by one, several "
        f"kernels for each and layer, and computes many times slower than one call for all: {reason}",
        VpoetWarning,
        stacklevel=3,
    )
    return backend("sdpa", device, dtype, deterministic=deterministic)


def _sdpa(visibility: Visibility, device: torch.device, *, deterministic: bool = False) -> Attend:
    lengths = list(visibility.lengths)
    windows = [
        None if until is None else WindowAttention(prefix, until, device)
        for prefix, until in zip(visibility.prefixes, visibility.windows, strict=True)
    ]

    def kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
        o = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
        return in_order(o) if deterministic else o

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
            o = kernel(q, k, v, True)
            if prefix:
                o_prefix = kernel(q[:, :, :prefix], k[:, :, :prefix], v[:, :, :prefix], False)
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
