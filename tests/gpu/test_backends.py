"""Every backend of attention that can run here gives the definition: of packs, with gradients; through the cache."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import BackendError
from vpoet.nn.attention import backend
from vpoet.nn.cache import KVCache
from vpoet.nn.cache_attention import SDPA, cache_backend
from vpoet.nn.visibility import Visibility

CAUSAL, PREFIXED = Visibility((5, 1, 9), (0, 0, 0)), Visibility((5, 1, 9, 4), (2, 0, 6, 4))
LONG = Visibility((700, 30, 64, 1254), (0, 0, 35, 0))


def inputs(visibility: Visibility, head: int) -> list[Tensor]:
    torch.manual_seed(0)
    total = visibility.bounds[-1]
    return [torch.randn(total, n, head, requires_grad=True) for n in (8, 2, 2)]


def dense(visibility: Visibility, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(), enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("name", ["sdpa", "varlen", "flash", "flash3", "flex"])
def test_of_packs(card: Any, name: str) -> None:
    """In the card's precision against fp32 on the CPU: a few of bfloat16's steps of 2^-8."""
    what, expected = f"attention of packs by {name}", "within 0.03, gradients 0.05"
    try:
        if not card.real and name == "flex":  # a minute of compiling, and no backward pass
            raise BackendError("flex")
        attention = backend(name, card.device, card.half, deterministic=True)
    except BackendError as error:
        card.missing(what, expected, f"not run: {error}" if card.real else "not run: needs CUDA")
        return
    apart = [0.0, 0.0]
    for visibility in card.pick((CAUSAL, PREFIXED, LONG), (CAUSAL, PREFIXED)):
        q, k, v = inputs(visibility, card.pick(128, 8))
        wanted = dense(visibility, q, k, v)
        seed = torch.randn_like(wanted)
        expected_gradients = torch.autograd.grad(wanted, (q, k, v), seed)
        on_card = [x.detach().to(card.device, card.half).requires_grad_() for x in (q, k, v)]
        found = attention(visibility, card.device)(0, *on_card)
        apart[0] = max(apart[0], float((found.detach().float().cpu() - wanted.detach()).abs().max()))
        for mine, theirs in zip(torch.autograd.grad(found, on_card, seed.to(found)), expected_gradients, strict=True):
            apart[1] = max(apart[1], float(((mine.float().cpu() - theirs).abs() / (1 + theirs.abs())).max()))
    holds = apart[0] <= 0.03 and apart[1] <= 0.05
    card.row(what, f"within {apart[0]:.1e}, gradients {apart[1]:.1e}", expected, holds)


@pytest.mark.parametrize("name", ["sdpa", "varlen", "flash", "flash3"])
def test_of_packs_in_a_fixed_order(card: Any, name: str) -> None:
    """What bit-for-bit resume promises of ``deterministic``: gradients of many documents at once, again and again."""
    what, expected = f"gradients by {name}, deterministic", "the same bits, 5 times"
    try:
        attention = backend(name, card.device, card.half, deterministic=True)
    except BackendError as error:
        card.missing(what, expected, f"not run: {error}" if card.real else "not run: needs CUDA")
        return
    visibility = card.pick(Visibility((700, 30, 64, 1254) * 4, (0, 0, 35, 0) * 4), PREFIXED)
    on_card = [x.detach().to(card.device, card.half).requires_grad_() for x in inputs(visibility, card.pick(128, 8))]
    seed = torch.randn(on_card[0].shape).to(on_card[0])
    found = [torch.autograd.grad(attention(visibility, card.device)(0, *on_card), on_card, seed) for _ in range(5)]
    same = sum(all(torch.equal(a, b) for a, b in zip(found[0], again, strict=True)) for again in found)
    card.row(what, f"the same bits, {same} times", expected, same == 5)


@pytest.mark.parametrize("name", ["sdpa", "varlen", "flash"])
def test_through_the_cache(card: Any, name: str) -> None:
    """One token a slot, and several, behind slots of several lengths, against sdpa in fp32 on the CPU."""
    what, expected = f"attention through the cache by {name}", "within 0.03"
    try:
        kernel = cache_backend(name, card.device, card.half)
    except BackendError as error:
        card.missing(what, expected, f"not run: {error}" if card.real else "not run: needs CUDA")
        return
    head, size = card.pick((128, 4096), (8, 64))
    apart = 0.0
    for width in (1, 5):
        place_NW = torch.tensor([0, size // 3, size - width])[:, None] + torch.arange(width)
        torch.manual_seed(0)
        q, k, v = (torch.randn(3 * width, n, head) for n in (8, 2, 2))
        outputs = []
        for each, device, dtype in ((SDPA, torch.device("cpu"), torch.float32), (kernel, card.device, card.half)):
            held = KVCache(
                layers=1, slots=3, size=size, kv_heads=2, head=head, like=q.to(device, dtype), order=each.order
            )
            torch.manual_seed(1)
            for layer in (*held.keys, *held.values):
                layer.copy_(torch.randn(layer.shape))
            attend = each.through(held.keys, held.values, place_NW.to(device), held.reach(size))
            outputs.append(attend(0, *(x.to(device, dtype) for x in (q, k, v))).float().cpu())
        apart = max(apart, float((outputs[1] - outputs[0]).abs().max()))
    card.row(what, f"within {apart:.1e}", expected, apart <= 0.03)
