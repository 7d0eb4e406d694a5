"""The kernels of attention through the KV cache, chosen by value as those of packs are (`vpoet.nn.attention`).

    sdpa        torch's kernels behind a mask; runs everywhere; the oracle of the others
    varlen      torch's FlashAttention, which reads of each slot as much as it holds; CUDA, fp16 and bf16
    flash       flash-attn's kernel for caches, which besides shares a long slot out among the processors of a GPU
                however many tokens ask; CUDA, fp16 and bf16

Shapes: N slots, W new tokens a slot, T = N * W of them, S positions a slot has room for, Q query heads, K key/value
heads, H head size.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import BackendError, VpoetWarning
from vpoet.nn.cache import HEADS, TOKENS, attend_ahead
from vpoet.nn.visibility import Attend

Through = Callable[[list[Tensor], list[Tensor], Tensor, Tensor], Attend]
"""(keys, values, place_NW, reach_S) -> attention of the new tokens, as `vpoet.nn.cache.attend_ahead` is."""


@dataclass(frozen=True)
class CacheBackend:
    """A kernel, and the cache that it needs."""

    through: Through
    order: tuple[int, ...] = HEADS
    """How the cache lies in memory (`KVCache`)."""
    by_length: bool = False
    """It is told how much each slot holds, and needs no reach. It takes the W tokens of a slot to stand side by side,
    and so reads up to W - 1 positions behind the last one that is of use: the cache must have room for them."""


SDPA = CacheBackend(attend_ahead)


def cache_backend(name: str, device: torch.device, dtype: torch.dtype) -> CacheBackend:
    """The kernel called ``name`` (sdpa, varlen or flash), checked for this device and dtype; BackendError says what it
    lacks. auto: flash, varlen or sdpa, the first that can run; on CUDA, a VpoetWarning says why it is sdpa."""
    if name == "sdpa" or (name == "auto" and device.type == "cpu"):
        return SDPA
    if name == "auto":
        try:
            return cache_backend("flash", device, dtype)
        except BackendError:
            pass
        try:
            return cache_backend("varlen", device, dtype)
        except BackendError as error:
            warnings.warn(f"{error}; sdpa reads the whole cache each step, as slow", VpoetWarning, stacklevel=2)
            return SDPA
    if name not in ("varlen", "flash"):
        raise BackendError(f"attention through the cache by {name!r}: there are auto, sdpa, varlen and flash")
    if device.type != "cuda":
        raise BackendError(f"attention through the cache by {name} runs on CUDA, not on {device.type}; use sdpa")
    if dtype not in (torch.float16, torch.bfloat16):
        raise BackendError(f"attention through the cache by {name} computes in fp16 or bf16, not in {dtype}")
    if torch.cuda.get_device_capability(device) < (8, 0):
        raise BackendError(f"attention through the cache by {name} needs an Ampere GPU (A100) or a later one")
    try:
        if name == "varlen":
            from torch.nn.attention.varlen import varlen_attn

            return varlen_backend(varlen_attn)
        # a build for another torch, or for no GPU, fails inside the import: the package's presence proves nothing
        from flash_attn import flash_attn_with_kvcache

        return flash_backend(flash_attn_with_kvcache)
    except ImportError as error:
        raise BackendError(f"attention through the cache by {name}: it cannot be imported ({error})") from None


def varlen_backend(varlen: Callable[..., Any]) -> CacheBackend:
    """The backend over a function with the signature of ``varlen_attn`` (tests hand in a twin)."""

    def kernel(q_NWQH: Tensor, keys_NSKH: Tensor, values_NSKH: Tensor, used_N: Tensor) -> Tensor:
        (slots, width), room = q_NWQH.shape[:2], keys_NSKH.shape[1]
        bound = torch.arange(slots + 1, device=used_N.device, dtype=torch.int32)
        o_TQH: Tensor = varlen(
            q_NWQH.flatten(0, 1),
            keys_NSKH.flatten(0, 1),
            values_NSKH.flatten(0, 1),
            bound * width,
            bound * room,
            width,
            room,
            # the last of several tokens sees all; one alone needs no mask, and without it the kernel may split the slot
            window_size=(-1, 0) if width > 1 else (-1, -1),
            enable_gqa=q_NWQH.shape[2] != keys_NSKH.shape[2],
            seqused_k=used_N,
        )
        return o_TQH.view(q_NWQH.shape)

    return CacheBackend(_written(kernel), TOKENS, by_length=True)


def flash_backend(with_kvcache: Callable[..., Tensor]) -> CacheBackend:
    """The backend over a function with the signature of ``flash_attn_with_kvcache`` (tests hand in a twin)."""

    def kernel(q_NWQH: Tensor, keys_NSKH: Tensor, values_NSKH: Tensor, used_N: Tensor) -> Tensor:
        return with_kvcache(q_NWQH, keys_NSKH, values_NSKH, cache_seqlens=used_N, causal=True)

    return CacheBackend(_written(kernel), TOKENS, by_length=True)


def _written(kernel: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Through:
    """Attention by a kernel that is told how much each slot holds, once the new tokens are written there.

    ``reach_S`` is not read: what a slot holds bounds what is read of it, on the device, so that one captured step
    serves any length.
    """

    def through(keys: list[Tensor], values: list[Tensor], place_NW: Tensor, reach_S: Tensor) -> Attend:
        slot_N1 = torch.arange(len(place_NW), device=place_NW.device)[:, None]
        used_N = (place_NW[:, 0] + place_NW.shape[1]).to(torch.int32)

        def attend(layer: int, q_TQH: Tensor, k_TKH: Tensor, v_TKH: Tensor) -> Tensor:
            q_NWQH, k_NWKH, v_NWKH = (x.view(*place_NW.shape, *x.shape[1:]) for x in (q_TQH, k_TKH, v_TKH))
            keys_NSKH, values_NSKH = keys[layer].transpose(1, 2), values[layer].transpose(1, 2)
            keys_NSKH.index_put_((slot_N1, place_NW), k_NWKH.to(keys_NSKH.dtype))
            values_NSKH.index_put_((slot_N1, place_NW), v_NWKH.to(values_NSKH.dtype))
            return kernel(q_NWQH, keys_NSKH, values_NSKH, used_N).flatten(0, 1)

        return attend

    return through
