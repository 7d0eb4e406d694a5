"""Decoding through the KV cache gives what the full forward pass gives, up to the last slot and not one past it."""

import inspect
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from vpoet.errors import BackendError, ShapeError, VpoetWarning
from vpoet.nn.attention import backend
from vpoet.nn.cache import BLOCK, HEADS, LANES, KVCache, attend_ahead, attend_step
from vpoet.nn.cache_attention import SDPA as SDPA_CACHE
from vpoet.nn.cache_attention import CacheBackend, cache_backend, flash_backend, varlen_backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(20, (6, 4), "t", "v")


def model(kv_heads: int = 2) -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=32, depth=3, heads=4, kv_heads=kv_heads, hidden=48), VOCABULARY)
    for parameter in transformer.parameters():
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)  # so that attention is far from uniform
    return transformer.eval().requires_grad_(False)


def tokens(lengths: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(VOCABULARY.size, (n,), generator=generator) for n in lengths]
    return ids, [torch.randint(30, (n, 3), generator=generator) for n in lengths]


def cache_of(transformer: Transformer, slots: int, size: int, order: tuple[int, ...] = HEADS) -> KVCache:
    c, dtype = transformer.config, transformer.language.weight.dtype
    return KVCache(
        layers=c.depth, slots=slots, size=size, kv_heads=c.kv_heads, head=c.head,
        like=torch.empty(0, dtype=dtype), order=order
    )  # fmt: skip


def decode(
    transformer: Transformer,
    ids: list[Tensor],
    positions: list[Tensor],
    prompts: tuple[int, ...],
    both_ways: bool,
    products: bool = False,
) -> list[Tensor]:
    """Hidden states of each document from its last prompt token on: prefill, then one token a step."""
    cache = cache_of(transformer, len(ids), max(map(len, ids)), order=LANES if products else HEADS)
    visibility = Visibility(prompts, prompts if both_ways else (0,) * len(prompts))
    given = [torch.cat([x[:n] for x, n in zip(part, prompts, strict=True)]) for part in (ids, positions)]
    states = transformer(given[0], given[1], cache.prefill(visibility, SDPA(visibility, CPU)))
    out = [[states[stop - 1]] for stop in visibility.bounds[1:]]
    for done in range(max(len(x) - n for x, n in zip(ids, prompts, strict=True))):
        # a finished document idles: it feeds its last token again, over its last slot
        at = [min(n + done, len(x) - 1) for n, x in zip(prompts, ids, strict=True)]
        step = [torch.stack([x[i] for x, i in zip(part, at, strict=True)]) for part in (ids, positions)]
        place_N, reach_S = torch.tensor(at), cache.reach(max(at) + 1)
        if products:
            attend = attend_step(cache.keys, cache.values, place_N, reach_S)
        else:
            attend = attend_ahead(cache.keys, cache.values, place_N[:, None], reach_S)
        for slot, state in enumerate(transformer(step[0], step[1], attend)):
            if prompts[slot] + done < len(ids[slot]):
                out[slot].append(state)
    return [torch.stack(states) for states in out]


@pytest.mark.parametrize("products", [False, True], ids=["kernel", "products"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("both_ways", [False, True], ids=["causal", "prefix"])
def test_decoding_equals_the_full_forward_pass_to_the_last_slot(kv_heads: int, both_ways: bool, products: bool) -> None:
    lengths, prompts = (12, 7, 12, 9), (5, 1, 11, 4)
    transformer, (ids, positions) = model(kv_heads), tokens(lengths)
    decoded = decode(transformer, ids, positions, prompts, both_ways, products)
    visibility = Visibility(lengths, prompts if both_ways else (0,) * 4)
    full = transformer(torch.cat(ids), torch.cat(positions), SDPA(visibility, CPU))
    for states, (start, stop), prompt in zip(
        decoded, zip(visibility.bounds, visibility.bounds[1:], strict=False), prompts, strict=True
    ):
        wanted = full[start + prompt - 1 : stop]
        torch.testing.assert_close(states, wanted, rtol=0, atol=2e-5)
        torch.testing.assert_close(
            transformer.visual.first(states), transformer.visual.first(wanted), rtol=0, atol=2e-5
        )


def test_decoding_goes_on_from_block_to_block() -> None:
    lengths, prompts = (BLOCK + 3, 2 * BLOCK + 1), (BLOCK - 2, BLOCK)
    transformer, (ids, positions) = model(), tokens(lengths)
    for states, ids_T, positions_T3, prompt in zip(
        decode(transformer, ids, positions, prompts, False), ids, positions, prompts, strict=True
    ):
        whole = Visibility((len(ids_T),), (0,))
        full = transformer(ids_T, positions_T3, SDPA(whole, CPU))
        torch.testing.assert_close(states, full[prompt - 1 :], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("both_ways", [False, True], ids=["causal", "prefix"])
def test_several_tokens_at_once_are_the_full_forward_pass_and_leave_no_trace_when_taken_back(
    kv_heads: int, both_ways: bool
) -> None:
    """Passes of four tokens a slot, of which all but the first one to three are wrong and are put right in the next."""
    lengths, prompts = (19, 14), (5, 2)
    transformer, (ids, positions) = model(kv_heads), tokens(lengths)
    visibility = Visibility(lengths, prompts if both_ways else (0, 0))
    wanted = transformer(torch.cat(ids), torch.cat(positions), SDPA(visibility, CPU)).split(lengths)
    cache = cache_of(transformer, 2, max(lengths))
    visibility = Visibility(prompts, prompts if both_ways else (0, 0))
    given = [torch.cat([x[:n] for x, n in zip(part, prompts, strict=True)]) for part in (ids, positions)]
    transformer(given[0], given[1], cache.prefill(visibility, SDPA(visibility, CPU)))
    here = list(prompts)
    for right in [(1, 3), (3, 1), (2, 2), (1, 1), (3, 1), (1, 1)]:
        at_NW = torch.tensor(here)[:, None] + torch.arange(4)
        ids_NW, positions_NW3 = (
            torch.stack([x[at] for x, at in zip(part, at_NW, strict=True)]) for part in (ids, positions)
        )
        for slot, n in enumerate(right):
            ids_NW[slot, n:] = (ids_NW[slot, n:] + 7) % VOCABULARY.size
        attend = attend_ahead(cache.keys, cache.values, at_NW, cache.reach(int(at_NW.max()) + 1))
        states = transformer(ids_NW.flatten(), positions_NW3.flatten(0, 1), attend).view(2, 4, -1)
        for slot, n in enumerate(right):
            stop = here[slot] + n
            torch.testing.assert_close(states[slot, :n], wanted[slot][here[slot] : stop], rtol=0, atol=2e-5)
            here[slot] = stop
    assert here == [16, 11]


def test_slots_that_begin_alike_share_one_prefill() -> None:
    transformer, (ids, positions) = model(), tokens((4, 3))
    cache, sources = cache_of(transformer, 3, 6), (1, 0, 1)
    visibility = Visibility((4, 3), (0, 0))
    transformer(torch.cat(ids), torch.cat(positions), cache.prefill(visibility, SDPA(visibility, CPU), sources))
    for slot, source in enumerate(sources):
        alone = cache_of(transformer, 1, 6)
        one = Visibility((len(ids[source]),), (0,))
        transformer(ids[source], positions[source], alone.prefill(one, SDPA(one, CPU)))
        for mine, theirs in zip([*cache.keys, *cache.values], [*alone.keys, *alone.values], strict=True):
            torch.testing.assert_close(mine[slot], theirs[0], rtol=0, atol=1e-6)


def test_one_past_the_last_slot_is_refused_with_both_numbers() -> None:
    cache = cache_of(model(), slots=2, size=4)
    with pytest.raises(ShapeError, match="holds 4 tokens a slot, and 5 are needed"):
        cache.prefill(Visibility((4, 5), (0, 0)), SDPA(Visibility((4, 5), (0, 0)), CPU))
    assert torch.equal(cache.reach(4), torch.arange(BLOCK))
    with pytest.raises(ShapeError, match="holds 4 tokens a slot, and 5 are needed"):
        cache.reach(5)


def test_bf16_decoding_is_near_fp32() -> None:
    """bf16 rounds to 2^-9 relative; after three layers, states of order one differ by 0.1 at worst, 0.02 on average."""
    ids, positions = tokens((10, 6))
    transformer = model()
    wanted = torch.cat(decode(transformer, ids, positions, (3, 2), False))
    found = torch.cat(decode(transformer.bfloat16(), ids, positions, (3, 2), False))
    assert found.dtype == torch.bfloat16
    difference = (found.float() - wanted).abs()
    assert float(difference.mean()) < 0.02
    assert float(difference.max()) < 0.1


def twin(q_NWQH: Tensor, keys_NSKH: Tensor, values_NSKH: Tensor, *, cache_seqlens: Tensor, causal: bool) -> Tensor:
    """``flash_attn_with_kvcache`` in pure torch, with its contract: int32 lengths, features side by side, and the last
    query at the last key."""
    assert cache_seqlens.dtype == torch.int32
    assert causal
    assert keys_NSKH.stride(-1) == values_NSKH.stride(-1) == q_NWQH.stride(-1) == 1
    out = []
    for q_WQH, k_SKH, v_SKH, used in zip(q_NWQH, keys_NSKH, values_NSKH, cache_seqlens.tolist(), strict=True):
        assert len(q_WQH) <= used <= len(k_SKH)
        k, v = (x[:used].repeat_interleave(q_WQH.shape[1] // x.shape[1], dim=1) for x in (k_SKH, v_SKH))
        scores = torch.einsum("qnh,knh->nqk", q_WQH, k) / q_WQH.shape[-1] ** 0.5
        hidden = torch.ones(len(q_WQH), used).tril(used - len(q_WQH)) == 0
        out.append(torch.einsum("nqk,knh->qnh", scores.masked_fill(hidden, -torch.inf).softmax(-1), v))
    return torch.stack(out)


def varlen_twin(*inputs: Any, **named: Any) -> Tensor:
    """``varlen_attn`` in pure torch: its signature, int32 bounds of contiguous keys, no mask but for (-1, 0)."""
    given = inspect.signature(varlen_attn).bind(*inputs, **named)
    given.apply_defaults()
    q_TQH, k, v, starts_q, starts_k, longest, room, *_ = given.args
    named = given.kwargs
    assert k.is_contiguous()
    assert v.is_contiguous()
    assert starts_q.dtype == starts_k.dtype == named["seqused_k"].dtype == torch.int32
    assert named["window_size"] == ((-1, 0) if longest > 1 else (-1, -1))
    assert named["enable_gqa"] == (q_TQH.shape[1] != k.shape[1])
    slots = len(starts_q) - 1
    assert starts_q.tolist() == [i * longest for i in range(slots + 1)]
    assert starts_k.tolist() == [i * room for i in range(slots + 1)]
    caches = (x.view(slots, room, *x.shape[1:]) for x in (k, v))
    return twin(
        q_TQH.view(slots, longest, *q_TQH.shape[1:]), *caches, cache_seqlens=named["seqused_k"], causal=True
    ).flatten(0, 1)


@pytest.mark.parametrize("kernel", [flash_backend(twin), varlen_backend(varlen_twin)], ids=["flash", "varlen"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("width", [1, 5])
def test_kernels_that_are_told_lengths_give_the_definition(kernel: CacheBackend, kv_heads: int, width: int) -> None:
    """Slots of several lengths, to the last place; what lies behind, of tokens that were taken back, is not seen."""
    torch.manual_seed(0)
    starts, head, size = (0, 9, 64 - width), 8, 64
    place_NW = torch.tensor(starts)[:, None] + torch.arange(width)
    q, k, v = (torch.randn(3 * width, n, head) for n in (4, kv_heads, kv_heads))
    found = []
    for each in (SDPA_CACHE, kernel):
        held = KVCache(layers=2, slots=3, size=size, kv_heads=kv_heads, head=head, like=q, order=each.order)
        torch.manual_seed(1)
        for layer in (*held.keys, *held.values):
            layer.copy_(torch.randn(layer.shape))
        out = each.through(held.keys, held.values, place_NW, held.reach(size))(1, q, k, v)
        found.append([out, *held.keys, *held.values])
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=1e-6)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found[0][1:], found[1][1:], strict=True))


def test_kernels_say_what_they_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    for name in ("varlen", "flash"):
        with pytest.raises(BackendError, match=f"by {name} runs on CUDA, not on cpu; use sdpa"):
            cache_backend(name, CPU, torch.bfloat16)
        with pytest.raises(BackendError, match=rf"by {name} computes in fp16 or bf16, not in torch\.float32"):
            cache_backend(name, cuda, torch.float32)
    with pytest.raises(BackendError, match="by 'flex': there are auto, sdpa, varlen and flash"):
        cache_backend("flex", cuda, torch.bfloat16)
    assert cache_backend("auto", CPU, torch.bfloat16) is SDPA_CACHE
    with pytest.warns(VpoetWarning, match=r"by varlen computes in fp16 or bf16, not in torch\.float32; sdpa reads"):
        assert cache_backend("auto", cuda, torch.float32) is SDPA_CACHE
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.warns(VpoetWarning, match="needs an Ampere GPU"):
        assert cache_backend("auto", cuda, torch.bfloat16) is SDPA_CACHE
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    with pytest.raises(BackendError, match="by flash: it cannot be imported"):
        cache_backend("flash", cuda, torch.bfloat16)
    assert cache_backend("auto", cuda, torch.bfloat16).by_length
