"""Decoding through the KV cache gives what the full forward pass gives, up to the last slot and not one past it."""

import pytest
import torch
from torch import Tensor

from vpoet.errors import ShapeError
from vpoet.nn.attention import backend
from vpoet.nn.cache import BLOCK, KVCache, attend_ahead, attend_step
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


def cache_of(transformer: Transformer, slots: int, size: int, lanes: bool = False) -> KVCache:
    c, dtype = transformer.config, transformer.language.weight.dtype
    return KVCache(
        layers=c.depth, slots=slots, size=size, kv_heads=c.kv_heads, head=c.head,
        like=torch.empty(0, dtype=dtype), lanes=lanes
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
    cache = cache_of(transformer, len(ids), max(map(len, ids)), lanes=products)
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
