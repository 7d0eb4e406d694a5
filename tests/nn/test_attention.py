"""Attention backends against their definition, a dense mask; isolation and causality by gradient."""

import shutil
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import BackendError
from vpoet.nn.attention import backend, flash_backend
from vpoet.nn.visibility import Backend, Visibility

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
CAUSAL = Visibility((5, 1, 9), (0, 0, 0))
PREFIXED = Visibility((5, 1, 9, 4), (2, 0, 6, 4))
LONG = Visibility((70, 5, 64, 3, 65), (0, 0, 35, 2, 65))
"""Several blocks of 32 rows, and prefixes that end within one."""


def frames(length: int, sink: int, frame: int, window: int) -> np.ndarray:
    """`Visibility.until` of a sink, then frames of so many tokens, of which a window is seen."""
    at = np.arange(length)
    return np.where(at < sink, length, sink + ((at - sink) // frame + window) * frame).astype(np.int32)


WINDOWED = Visibility(
    (23, 4, 40, 11), (0, 2, 15, 11), (frames(23, 3, 4, 2), None, frames(40, 5, 6, 1), frames(11, 2, 3, 2))
)
"""One document is seen whole; two have windows in which, or behind which, the prefix ends."""
LONG_WINDOWED = Visibility((700, 290), (0, 0), (frames(700, 9, 10, 30), frames(290, 7, 20, 2)))
"""Several blocks of queries, within a window and beyond."""


def twin(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    causal: bool,
) -> Tensor:
    """``flash_attn_varlen_func`` in pure torch, with its contract: int32 offsets, and true maxima."""
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert int(cu_seqlens_q[-1]) == len(q)
    assert int(cu_seqlens_q.diff().max()) == max_seqlen_q
    assert int(cu_seqlens_k.diff().max()) == max_seqlen_k
    repeat = q.shape[1] // k.shape[1]
    out = []
    for start, stop in zip(cu_seqlens_q[:-1].tolist(), cu_seqlens_q[1:].tolist(), strict=True):
        keys, values = (x[start:stop].repeat_interleave(repeat, dim=1) for x in (k, v))
        scores = torch.einsum("qnh,knh->nqk", q[start:stop], keys) / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(~torch.ones(stop - start, stop - start).tril().bool(), -torch.inf)
        out.append(torch.einsum("nqk,knh->qnh", scores.softmax(-1), values))
    return torch.cat(out)


BACKENDS = pytest.mark.parametrize(
    "attention",
    [backend("sdpa", CPU, torch.float32), backend("products", CPU, torch.float32), flash_backend(twin)],
    ids=["sdpa", "products", "flash"],
)
WINDOWS = pytest.mark.parametrize("visibility", [WINDOWED, LONG_WINDOWED], ids=["short", "long"])


def inputs(visibility: Visibility, heads: int = 4, kv_heads: int = 2, head: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    total = visibility.bounds[-1]
    q, k, v = (torch.randn(total, n, head, requires_grad=True) for n in (heads, kv_heads, kv_heads))
    return q, k, v


def dense(visibility: Visibility, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition: every query sees what `Visibility.mask` shows it."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visibility.mask(), enable_gqa=True)[0].transpose(0, 1)


def test_the_mask_is_the_one_in_the_drawing() -> None:
    drawn = ["##......", "##......", "###.....", "####....", "#####...", ".....#..", ".....##.", ".....###"]
    mask = Visibility((5, 3), (2, 0)).mask()
    assert ["".join(".#"[int(cell)] for cell in row) for row in mask] == drawn


@pytest.mark.parametrize("visibility", [CAUSAL, PREFIXED], ids=["causal", "prefixed"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@BACKENDS
def test_a_backend_gives_the_definition_and_its_gradients(
    visibility: Visibility, kv_heads: int, attention: Backend
) -> None:
    q, k, v = inputs(visibility, kv_heads=kv_heads)
    seed = torch.randn_like(q)
    found = attention(visibility, CPU)(0, q, k, v)
    wanted = dense(visibility, q, k, v)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(found, (q, k, v), seed), torch.autograd.grad(wanted, (q, k, v), seed), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@BACKENDS
def test_what_a_token_sees_by_gradient_is_the_mask_exactly(attention: Backend) -> None:
    q, k, v = inputs(PREFIXED)
    out = attention(PREFIXED, CPU)(0, q, k, v)
    seen = torch.stack([torch.autograd.grad(row.sum(), v, retain_graph=True)[0].abs().sum((1, 2)) for row in out])
    assert torch.equal(seen > 0, PREFIXED.mask())


def test_the_mask_of_a_window_is_the_one_in_the_drawing() -> None:
    drawn = ["#......", "##.....", "###....", "#.##...", "#.###..", "#...##.", "....###"]
    until = np.array([6, 3, 5, 5, 7, 7, 7], np.int32)
    mask = Visibility((7,), (0,), (until,)).mask()
    assert ["".join(".#"[int(cell)] for cell in row) for row in mask] == drawn
    two = Visibility((3, 7), (0, 0), (None, until)).mask()
    assert torch.equal(two[3:, 3:], mask)
    assert not two[3:, :3].any()


@WINDOWS
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_windows_are_the_definition_and_its_gradients(visibility: Visibility, kv_heads: int) -> None:
    q, k, v = inputs(visibility, kv_heads=kv_heads)
    seed = torch.randn_like(q)
    found, wanted = SDPA(visibility, CPU)(0, q, k, v), dense(visibility, q, k, v)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(found, (q, k, v), seed), torch.autograd.grad(wanted, (q, k, v), seed), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_beyond_a_window_the_gradient_is_exactly_zero() -> None:
    q, k, v = inputs(WINDOWED)
    out = SDPA(WINDOWED, CPU)(0, q, k, v)
    seen = torch.stack([torch.autograd.grad(row.sum(), v, retain_graph=True)[0].abs().sum((1, 2)) for row in out])
    assert torch.equal(seen > 0, WINDOWED.mask())


def test_a_window_that_hides_nothing_changes_no_bit() -> None:
    plain = Visibility((9, 5), (0, 3))
    wide = Visibility((9, 5), (0, 3), (frames(9, 2, 3, 5), None))
    q, k, v = inputs(plain)
    assert torch.equal(SDPA(plain, CPU)(0, q, k, v), SDPA(wide, CPU)(0, q, k, v))
    assert torch.equal(plain.mask(), wide.mask())
    backend("products", CPU, torch.float32)(wide, CPU)


def test_what_a_window_computes_grows_with_the_window_and_not_with_the_document(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scores computed for each query, counted."""
    counted = 0
    plain = F.scaled_dot_product_attention

    def counting(q: Tensor, k: Tensor, v: Tensor, **options: object) -> Tensor:
        nonlocal counted
        counted += q.shape[2] * k.shape[2]
        return plain(q, k, v, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)

    def scores(length: int, window: int) -> float:
        nonlocal counted
        counted, visibility = 0, Visibility((length,), (0,), (frames(length, 16, 16, window),))
        SDPA(visibility, CPU)(0, *(x.detach() for x in inputs(visibility, 1, 1)))
        return counted / length

    assert scores(16384, 32) < 1.1 * scores(4096, 32) < 1.6 * 33 * 16
    assert scores(16384, 64) > 1.7 * scores(16384, 32)


def test_backends_without_windows_say_so() -> None:
    for name, attention in (("products", backend("products", CPU, torch.float32)), ("flash", flash_backend(twin))):
        with pytest.raises(BackendError, match=f"{name} has no window with a sink.*use sdpa"):
            attention(WINDOWED, CPU)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)], ids=["fp32", "bf16"])
@pytest.mark.parametrize("rows", [32, 64, 384])
def test_products_are_the_definition_whatever_the_rows_of_a_block(
    rows: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpoet.nn.matmul_attention.ROWS", rows)
    q, k, v = inputs(LONG)
    seed = torch.randn_like(q)
    wanted = dense(LONG, q, k, v)
    found = backend("products", CPU, dtype)(LONG, CPU)(0, *(x.to(dtype) for x in (q, k, v)))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=tolerance)
    for mine, theirs in zip(
        torch.autograd.grad(found, (q, k, v), seed.to(dtype)), torch.autograd.grad(wanted, (q, k, v), seed), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="FlexAttention needs a C++ compiler")
def test_flex_gives_what_sdpa_gives() -> None:
    attention = backend("flex", CPU, torch.float32)
    with torch.no_grad():
        for visibility in (CAUSAL, PREFIXED, WINDOWED):
            q, k, v = inputs(visibility, head=16)
            found = attention(visibility, CPU)(0, q, k, v)
            torch.testing.assert_close(found, dense(visibility, q, k, v), rtol=0, atol=1e-5)


def test_flex_says_that_it_cannot_train_on_a_cpu() -> None:
    with pytest.raises(BackendError, match="flex has no backward pass on a CPU; use sdpa"):
        backend("flex", CPU, torch.float32)(CAUSAL, CPU)(0, *inputs(CAUSAL))


def test_a_backend_says_when_it_is_chosen_what_it_cannot_do() -> None:
    with pytest.raises(BackendError, match="flash runs on CUDA, not on cpu"):
        backend("flash", CPU, torch.bfloat16)
    with pytest.raises(BackendError, match=r"fp16 or bf16, not in torch\.float32"):
        backend("flash", torch.device("cuda"), torch.float32)
    with pytest.raises(BackendError, match="'xformers': there are auto, sdpa, products, flex and flash"):
        backend("xformers", CPU, torch.float32)
    with pytest.raises(BackendError, match="products is for CPUs, not for cuda"):
        backend("products", torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize("amx", [True, False])
def test_auto_chooses_products_where_a_cpu_is_made_for_them(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert backend("auto", CPU, torch.float32) is backend("sdpa", CPU, torch.float32)
    assert backend("auto", CPU, torch.bfloat16) is backend("products" if amx else "sdpa", CPU, torch.bfloat16)
    assert backend("auto", CPU, torch.bfloat16, windows=True) is SDPA
    assert backend("auto", torch.device("cuda"), torch.bfloat16, windows=True) is backend("flex", CPU, torch.float32)


def test_bf16_is_near_fp32() -> None:
    """Eight bits of mantissa: outputs of order one, averaged over several values, agree to 2e-2."""
    q, k, v = (x.detach() for x in inputs(PREFIXED))
    found = backend("sdpa", CPU, torch.bfloat16)(PREFIXED, CPU)(0, q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), dense(PREFIXED, q, k, v), rtol=0, atol=2e-2)


def test_training_in_bf16_on_a_cpu_computes_attention_in_fp32() -> None:
    """Where bf16's kernels would be kept for the length of every document."""
    low = [x.detach().bfloat16().requires_grad_() for x in inputs(PREFIXED)]
    high = [x.detach().float().requires_grad_() for x in low]
    sdpa = backend("sdpa", CPU, torch.bfloat16)(PREFIXED, CPU)
    found, wanted = sdpa(0, *low), sdpa(0, *high)
    assert torch.equal(found, wanted.bfloat16())
    seed = torch.randn_like(found)
    for mine, theirs in zip(
        torch.autograd.grad(found, low, seed), torch.autograd.grad(wanted, high, seed.float()), strict=True
    ):
        assert torch.equal(mine, theirs.bfloat16())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("name", ["flash", "flex"])
@pytest.mark.parametrize("visibility", [CAUSAL, PREFIXED], ids=["causal", "prefixed"])
def test_cuda_backends_give_the_definition_and_its_gradients(visibility: Visibility, name: str) -> None:
    """bfloat16 on a card against fp32 on the CPU; the tolerance is a few of bfloat16's steps of 2^-8."""
    cuda = torch.device("cuda")
    q, k, v = inputs(visibility, head=32)
    wanted = dense(visibility, q, k, v)
    seed = torch.randn_like(wanted)
    expected = torch.autograd.grad(wanted, (q, k, v), seed)
    on_card = [x.detach().to(cuda, torch.bfloat16).requires_grad_() for x in (q, k, v)]
    found = backend(name, cuda, torch.bfloat16)(visibility, cuda)(0, *on_card)
    torch.testing.assert_close(found.float().cpu(), wanted, rtol=0.03, atol=0.03)
    for mine, theirs in zip(torch.autograd.grad(found, on_card, seed.to(found)), expected, strict=True):
        torch.testing.assert_close(mine.float().cpu(), theirs, rtol=0.05, atol=0.05)


def test_a_missing_flash_attn_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # the import system's own way of saying: not there
    with pytest.raises(BackendError, match=r"flash-attn cannot be imported.*pip install --no-build-isolation"):
        backend("flash", torch.device("cuda"), torch.bfloat16)
    assert backend("auto", torch.device("cuda"), torch.bfloat16) is backend("sdpa", CPU, torch.float32)
