"""LFQ: the bijection over whole codebooks, parity with vector-quantize-pytorch, exact entropies in bounded memory."""

import math

import pytest
import torch
import vector_quantize_pytorch
from torch.utils._python_dispatch import TorchDispatchMode

from vpoet.errors import ConfigError
from vpoet.tokenizer.lfq import INV_TEMPERATURE, LFQ, entropies

UNSURE = 2 / INV_TEMPERATURE / 4
"""Scale of numbers whose bits are neither sure nor fair."""


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def brute_force(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both entropies by a softmax over the distances to every code, in double precision."""
    points = LFQ(2 ** z.shape[-1], entropy=0, commitment=0).codes_to_points(torch.arange(2 ** z.shape[-1]))
    logs = (-INV_TEMPERATURE * (z.double()[:, None] - points).square().sum(-1)).log_softmax(-1)
    mean = logs.exp().mean(0)
    return -(logs.exp() * logs).sum(-1).mean(), torch.special.entr(mean).sum()


@pytest.mark.parametrize("bits", range(2, 19))
def test_codes_digits_and_points_are_a_bijection_over_the_whole_codebook(bits: int) -> None:
    lfq = LFQ(2**bits, entropy=0.1, commitment=0.25).eval()
    assert (lfq.size, lfq.width, lfq.levels) == (2**bits, bits, (2,) * bits)
    codes = torch.arange(lfq.size)
    digits = lfq.codes_to_digits(codes)
    assert torch.equal(digits[1], torch.eye(bits, dtype=torch.long)[0])  # the first digit is the least
    assert torch.equal(lfq.digits_to_codes(digits), codes)
    points = lfq.codes_to_points(codes)
    assert points.dtype == torch.float32
    assert torch.equal(points, torch.where(digits > 0, 1.0, -1.0))
    quantised = lfq(points)
    assert torch.equal(quantised.codes, codes)
    assert torch.equal(quantised.points, points)
    assert quantised.use == 1


@pytest.mark.parametrize("bits", [2, 8, 13, 18])
def test_parity_of_codes_and_points_with_vector_quantize_pytorch(bits: int) -> None:
    """Its first number is the most significant bit, ours the least: each gets the other's numbers reversed."""
    torch.manual_seed(0)
    z = torch.randn(2, 500, bits)
    reference = vector_quantize_pytorch.LFQ(codebook_size=2**bits).eval()
    expected_points, expected_codes, _ = reference(z.flip(-1))
    codes, points, _, loss, use = LFQ(2**bits, entropy=0.1, commitment=0.25).eval()(z)
    assert torch.equal(codes, expected_codes.long())
    assert torch.equal(points, expected_points.flip(-1))
    assert loss == 0
    assert use == pytest.approx(len(codes.unique()) / min(1000, 2**bits))


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_parity_of_the_loss_and_its_gradient_with_vector_quantize_pytorch(bits: int) -> None:
    """Up to its floor of 1e-5 for logarithms, which alters entropies a little where codes are that improbable."""
    torch.manual_seed(0)
    z = (UNSURE * torch.randn(2, 300, bits)).requires_grad_()
    reference = vector_quantize_pytorch.LFQ(
        codebook_size=2**bits, entropy_loss_weight=0.3, commitment_loss_weight=0.7, diversity_gamma=1.0
    )
    (_, _, expected), parts = reference(z, inv_temperature=INV_TEMPERATURE, return_loss_breakdown=True)
    (expected_gradient,) = torch.autograd.grad(expected, z)
    loss = LFQ(2**bits, entropy=0.3, commitment=0.7)(z).loss
    (gradient,) = torch.autograd.grad(loss, z)
    sure, spread = entropies(z.flatten(0, 1))
    torch.testing.assert_close(sure, parts.per_sample_entropy, rtol=0, atol=1e-4)
    torch.testing.assert_close(spread, parts.batch_entropy, rtol=0, atol=1e-4)
    assert 0.1 * bits < sure < spread - 0.01 * bits
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=0.02 * gradient.abs().max().item())


@pytest.mark.parametrize("bits", [2, 3, 8, 11, 18])
@pytest.mark.parametrize("scale", [0.0, UNSURE, 1.0])
def test_entropies_are_those_of_the_full_softmax(bits: int, scale: float) -> None:
    torch.manual_seed(0)
    z = scale * torch.randn(7, bits)
    sure, spread = entropies(z)
    expected_sure, expected_spread = brute_force(z)
    assert sure.item() == pytest.approx(expected_sure.item(), rel=1e-5, abs=1e-5)
    assert spread.item() == pytest.approx(expected_spread.item(), rel=1e-5, abs=1e-5)
    if not scale:
        assert sure.item() == pytest.approx(bits * math.log(2))


def test_memory_grows_neither_with_vectors_times_codes_nor_in_the_backward_pass() -> None:
    torch.manual_seed(0)
    z = (UNSURE * torch.randn(1000, 18)).requires_grad_()
    lfq = LFQ(2**18, entropy=0.1, commitment=0.25)
    with LargestTensor() as seen:
        lfq(z).loss.backward()
    assert 2**18 <= seen.elements <= 1000 * 2**9
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_gradients_stay_finite_where_probabilities_underflow() -> None:
    z = torch.tensor([[30.0, -30.0, 30.0, 0.0], [-30.0, 1e-3, 0.0, 30.0]], requires_grad=True)
    LFQ(16, entropy=1.0, commitment=0.0)(z).loss.backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert z.grad[1, 1] != 0


def test_the_entropy_term_makes_bits_sure_and_codes_equally_frequent() -> None:
    torch.manual_seed(0)
    z = (UNSURE * (0.5 * torch.randn(512, 4) + 0.5)).requires_grad_()
    lfq = LFQ(16, entropy=1.0, commitment=0.0)
    optimizer = torch.optim.Adam([z], lr=3e-4)
    rarest = [torch.bincount(lfq(z).codes, minlength=16).min()]
    for _ in range(200):
        optimizer.zero_grad()
        lfq(z).loss.backward()
        optimizer.step()
    rarest.append(torch.bincount(lfq(z).codes, minlength=16).min())
    sure, spread = entropies(z.detach())
    assert sure < 0.05
    assert spread > math.log(16) - 0.1
    assert rarest[0] <= 1
    assert rarest[1] > 10


def test_gradient_passes_the_sign_straight_through() -> None:
    torch.manual_seed(0)
    z = torch.randn(6, 3, 8, requires_grad=True)
    weight = torch.randn(6, 3, 8)
    points = LFQ(2**8, entropy=0.1, commitment=0.25)(z).points
    (points * weight).sum().backward()
    assert torch.equal(points, torch.where(z > 0, 1.0, -1.0))
    assert z.grad is not None
    assert torch.equal(z.grad, weight)


def test_autocast_and_bf16_change_neither_codes_nor_loss() -> None:
    torch.manual_seed(0)
    lfq = LFQ(2**12, entropy=0.1, commitment=0.25)
    z = (UNSURE * torch.randn(500, 12)).bfloat16()
    expected = lfq(z.float())
    with torch.autocast("cpu", torch.bfloat16):
        codes, points, _, loss, _ = lfq(z)
    assert torch.equal(codes, expected.codes)
    assert torch.equal(loss, expected.loss)
    assert (points.dtype, loss.dtype, expected.points.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_it_has_no_state() -> None:
    assert not LFQ(2**8, entropy=0.1, commitment=0.25).state_dict()


@pytest.mark.parametrize("codebook", [-4, 0, 1, 2, 1000, 2**31])
def test_codebooks_that_cannot_work_are_refused(codebook: int) -> None:
    with pytest.raises(ConfigError):
        LFQ(codebook, entropy=0.1, commitment=0.25)
