"""Attention backends against their definition, a dense mask; isolation and causality by gradient."""

import re
import shutil
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.errors import BackendError, VpoetWarning
from vpoet.nn.attention import backend
from vpoet.nn.flash_attention import flash_backend, varlen_backend
from vpoet.nn.visibility import Backend, Visibility

CPU = torch.device("cpu")
CUDA, META = torch.device("cuda"), torch.device("meta")
SDPA = backend("sdpa", CPU, torch.float32)
products = backend("products", CPU, torch.float32)
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


def kernel(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, longest: int, causal: bool) -> Tensor:
    """What the kernels for packs compute, in pure torch, with their contract: int32 offsets, and true maxima."""
    assert cu_seqlens.dtype == torch.int32
    assert int(cu_seqlens[-1]) == len(q)
    assert int(cu_seqlens.diff().max()) == longest
    repeat = q.shape[1] // k.shape[1]
    out = []
    for start, stop in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        keys, values = (x[start:stop].repeat_interleave(repeat, dim=1) for x in (k, v))
        scores = torch.einsum("qnh,knh->nqk", q[start:stop], keys) / q.shape[-1] ** 0.5
        if causal:
            scores = scores.masked_fill(~torch.ones(stop - start, stop - start).tril().bool(), -torch.inf)
        out.append(torch.einsum("nqk,knh->qnh", scores.softmax(-1), values))
    return torch.cat(out)


def twin(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """``flash_attn_varlen_func`` of flash-attn 2 and 3, as far as their arguments have one name."""
    assert cu_seqlens_q is cu_seqlens_k
    assert max_seqlen_q == max_seqlen_k
    return kernel(q, k, v, cu_seqlens_q, max_seqlen_q, causal)


def varlen_twin(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Tensor:
    """``torch.nn.attention.varlen.varlen_attn``, which says what is causal by a window."""
    assert cu_seq_q is cu_seq_k
    assert max_q == max_k
    assert window_size in ((-1, -1), (-1, 0))
    assert enable_gqa or query.shape[1] == key.shape[1]
    return kernel(query, key, value, cu_seq_q, max_q, window_size == (-1, 0))


BACKENDS = pytest.mark.parametrize(
    "attention",
    [
        backend("sdpa", CPU, torch.float32),
        backend("products", CPU, torch.float32),
        flash_backend(twin),
        varlen_backend(varlen_twin),
    ],
    ids=["sdpa", "products", "flash", "varlen"],
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


WINDOWED_BACKENDS = pytest.mark.parametrize("attention", [SDPA, products], ids=["sdpa", "products"])


@WINDOWS
@WINDOWED_BACKENDS
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_windows_are_the_definition_and_its_gradients(
    attention: Backend, visibility: Visibility, kv_heads: int
) -> None:
    q, k, v = inputs(visibility, kv_heads=kv_heads)
    seed = torch.randn_like(q)
    found, wanted = attention(visibility, CPU)(0, q, k, v), dense(visibility, q, k, v)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    for mine, theirs in zip(
        torch.autograd.grad(found, (q, k, v), seed), torch.autograd.grad(wanted, (q, k, v), seed), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


@WINDOWED_BACKENDS
def test_beyond_a_window_the_gradient_is_exactly_zero(attention: Backend) -> None:
    q, k, v = inputs(WINDOWED)
    out = attention(WINDOWED, CPU)(0, q, k, v)
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
    with pytest.raises(BackendError, match=r"flash has no window with a sink.*use sdpa"):
        flash_backend(twin)(WINDOWED, CPU)


def test_products_of_windows_in_bf16_are_near_the_definition() -> None:
    q, k, v = (x.detach().bfloat16().requires_grad_() for x in inputs(WINDOWED, kv_heads=2))
    found, wanted = products(WINDOWED, CPU)(0, q, k, v), dense(WINDOWED, q.float(), k.float(), v.float())
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=4e-2)


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


@pytest.mark.parametrize("name", ["varlen", "flash", "flash3"])
def test_a_backend_says_when_it_is_chosen_what_it_cannot_do(name: str) -> None:
    with pytest.raises(BackendError, match=f"{name} runs on CUDA, not on cpu"):
        backend(name, CPU, torch.bfloat16)
    with pytest.raises(BackendError, match=rf"{name} computes in fp16 or bf16, not in torch\.float32"):
        backend(name, CUDA, torch.float32)
    for head in (20, 264):
        with pytest.raises(
            BackendError, match=f"{name} takes heads of a multiple of 8 features up to 256, not of {head}"
        ):
            backend(name, CUDA, torch.bfloat16, head=head)


def test_other_names_and_other_devices_are_refused() -> None:
    with pytest.raises(
        BackendError, match="'xformers': there are auto, sdpa, products, flex, varlen, flash and flash3"
    ):
        backend("xformers", CPU, torch.float32)
    with pytest.raises(BackendError, match="products is for CPUs, not for cuda"):
        backend("products", CUDA, torch.bfloat16)


def card(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def test_an_old_card_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    card(monkeypatch, (7, 5))
    with pytest.raises(BackendError, match=r"capability 8\.0 \(Ampere\), not 7\.5"):
        backend("varlen", CUDA, torch.bfloat16)
    card(monkeypatch, (8, 0))
    backend("varlen", CUDA, torch.bfloat16)
    with pytest.raises(BackendError, match=r"flash3 is for Hopper, compute capability 9\.0, not 8\.0"):
        backend("flash3", CUDA, torch.bfloat16)


@pytest.mark.parametrize("amx", [True, False])
def test_auto_chooses_products_where_a_cpu_is_made_for_them(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert backend("auto", CPU, torch.float32) is backend("sdpa", CPU, torch.float32)
    assert backend("auto", CPU, torch.bfloat16) is backend("products" if amx else "sdpa", CPU, torch.bfloat16)
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert backend("auto", CPU, torch.bfloat16, windows=True) is (products if bf16 else SDPA)
    assert backend("auto", CPU, torch.float32, windows=True) is SDPA
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


def test_a_missing_or_old_flash_attn_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # the import system's own way of saying: not there
    with pytest.raises(BackendError, match=r"flash_attn cannot be imported.*pip install --no-build-isolation"):
        backend("flash", CUDA, torch.bfloat16)
    installed(monkeypatch, "flash_attn", flash_attn_varlen_func=lambda q, k, v: q)
    with pytest.raises(BackendError, match=r"flash_attn is too old, without deterministic=;"):
        backend("flash", CUDA, torch.bfloat16)


def installed(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    vars(module).update(content)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("capability", "there", "chosen"),
    [
        ((9, 0), ("flash_attn_interface", "flash_attn"), "flash_attn_interface"),
        ((8, 0), ("flash_attn_interface", "flash_attn"), "flash_attn"),
        ((9, 0), ("flash_attn",), "flash_attn"),
        ((9, 0), (), "torch"),
    ],
)
def test_auto_takes_the_fastest_kernel_that_runs_on_a_card(
    capability: tuple[int, int], there: tuple[str, ...], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On meta tensors, with what is installed standing in by name; nothing is said, as nothing is lost."""
    card(monkeypatch, capability)
    called = []
    for name in ("flash_attn_interface", "flash_attn"):
        monkeypatch.setitem(sys.modules, name, None)

    def standing_in(name: str) -> Callable[..., Tensor]:
        def flash_attn_varlen_func(
            q: Tensor, *rest: Tensor, deterministic: bool, return_attn_probs: bool = False, **_: Any
        ) -> Tensor:
            called.append(name)
            return torch.empty_like(q)

        return flash_attn_varlen_func

    for name in there:
        installed(monkeypatch, name, flash_attn_varlen_func=standing_in(name))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", torch_kernel(called))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention = backend("auto", CUDA, torch.bfloat16)
    q, k, v = (x.detach().bfloat16().to(META) for x in inputs(CAUSAL))
    attention(CAUSAL, META)(0, q, k, v)
    assert called == [chosen]


def torch_kernel(called: list[str]) -> Callable[..., Tensor]:
    def varlen_attn(q: Tensor, *rest: Any, window_size: tuple[int, int], enable_gqa: bool) -> Tensor:
        called.append("torch")
        return torch.empty_like(q)

    return varlen_attn


@pytest.mark.parametrize(
    ("capability", "dtype", "head", "reason"),
    [
        ((9, 0), torch.float32, 64, "computes in fp16 or bf16, not in torch.float32"),
        ((7, 0), torch.bfloat16, 64, "needs a GPU of compute capability 8.0"),
        ((9, 0), torch.bfloat16, 20, "not of 20"),
    ],
)
def test_auto_that_ends_at_sdpa_on_a_card_says_why_and_what_it_costs(
    capability: tuple[int, int], dtype: torch.dtype, head: int, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    card(monkeypatch, capability)
    with pytest.warns(VpoetWarning, match=rf"falls back to sdpa.*one by one.*slower.*varlen.*{re.escape(reason)}"):
        chosen = backend("auto", CUDA, dtype, head=head)
    assert chosen is backend("sdpa", CPU, torch.float32)


@pytest.mark.parametrize("visibility", [CAUSAL, PREFIXED], ids=["causal", "prefixed"])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_torchs_kernel_takes_what_it_is_given_forward_and_backward(
    visibility: Visibility, kv_heads: int, dtype: torch.dtype
) -> None:
    """On meta tensors, where the real function checks arguments, shapes and types, and computes nothing."""
    q, k, v = (x.detach().to(META, dtype).requires_grad_() for x in inputs(visibility, kv_heads=kv_heads))
    o = backend("varlen", META, dtype, head=8, deterministic=True)(visibility, META)(0, q, k, v)
    assert (o.shape, o.dtype) == (q.shape, dtype)
    for gradient, x in zip(torch.autograd.grad(o.sum(), (q, k, v)), (q, k, v), strict=True):
        assert (gradient.shape, gradient.dtype) == (x.shape, dtype)


class Modes(TorchDispatchMode):
    """Whether each operation ran in torch's deterministic mode."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.setdefault(func.name(), []).append(torch.get_deterministic_debug_mode())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("before", [0, 1])
def test_torchs_kernel_goes_back_in_a_fixed_order_if_asked_and_nothing_else_does(
    deterministic: bool, before: int
) -> None:
    q, k, v = (x.detach().to(META, torch.bfloat16).requires_grad_() for x in inputs(PREFIXED))
    attend = backend("varlen", META, torch.bfloat16, deterministic=deterministic)(PREFIXED, META)
    torch.set_deterministic_debug_mode(before)
    try:
        with Modes() as modes:
            (attend(0, attend(0, q, k, v), k, v) * q).sum().backward()
        assert torch.get_deterministic_debug_mode() == before
    finally:
        torch.set_deterministic_debug_mode(0)
    assert modes.seen["torch_attn::_varlen_attn_backward"] == [2 if deterministic else before] * 4
    for name in ("torch_attn::_varlen_attn", "aten::mul.Tensor", "aten::index_select"):
        assert set(modes.seen[name]) == {before}, name


def test_sdpa_goes_back_in_a_fixed_order_where_another_device_would_not() -> None:
    q, k, v = inputs(PREFIXED)
    for device, mode in ((META, 2), (CPU, 0)):
        with Modes() as modes:
            backend("sdpa", device, torch.float32, deterministic=True)(PREFIXED, CPU)(0, q, k, v).sum().backward()
        assert set(modes.seen["aten::_scaled_dot_product_flash_attention_for_cpu_backward"]) == {mode}
        assert set(modes.seen["aten::cat"]) == {0}
        assert torch.get_deterministic_debug_mode() == 0


@pytest.mark.parametrize("deterministic", [False, True])
def test_flash_attn_is_asked_for_a_fixed_order(deterministic: bool) -> None:
    asked = []

    def told(*args: Any, **kwargs: Any) -> Tensor:
        asked.append(kwargs["deterministic"])
        return twin(*args, **kwargs)

    flash_backend(told, deterministic=deterministic)(PREFIXED, CPU)(0, *inputs(PREFIXED))
    assert asked == [deterministic] * 2
