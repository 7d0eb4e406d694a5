"""FSQ: the bijection over whole codebooks, parity with vector-quantize-pytorch, the gradient through the rounding."""

import math

import pytest
import torch
import vector_quantize_pytorch
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.tokenizer.fsq import EDGE, FSQ, LEVELS

SMALL_ENOUGH = [levels for size, levels in LEVELS.items() if size <= 2**16]


@pytest.mark.parametrize("levels", [*LEVELS.values(), (3,), (4, 3), (27, 5)])
def test_codes_digits_and_points_are_a_bijection_over_the_whole_codebook(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    codes = torch.arange(fsq.size)
    digits = fsq.codes_to_digits(codes)
    assert digits.shape == (math.prod(levels), len(levels))
    assert digits.min() == 0
    assert torch.equal(digits.amax(0), torch.tensor(levels) - 1)
    assert torch.equal(fsq.digits_to_codes(digits), codes)
    assert torch.equal(digits[1], torch.eye(len(levels), dtype=torch.long)[0])  # the first digit is the least
    points = fsq.codes_to_points(codes)
    assert points.dtype == torch.float32
    assert points.abs().max() <= 1
    recovered = (points * (fsq.radix // 2)).round().long() + fsq.radix // 2
    assert torch.equal(fsq.digits_to_codes(recovered), codes)


@pytest.mark.parametrize("levels", [*SMALL_ENOUGH, (3,), (4, 3), (27, 5)])
def test_parity_with_vector_quantize_pytorch(levels: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    z = 3 * torch.randn(2, 1500, len(levels))
    reference = vector_quantize_pytorch.FSQ(list(levels))
    expected_points, expected_codes = reference(z)
    codes, points, *_ = FSQ(levels)(z)
    assert torch.equal(codes, expected_codes.long())
    torch.testing.assert_close(points, expected_points, rtol=0, atol=1e-6)
    torch.testing.assert_close(FSQ(levels).codes_to_points(codes), reference.indices_to_codes(expected_codes))


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 5, 5, 5, 5)])
def test_every_level_can_be_reached_and_no_other(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels)
    sweep = torch.linspace(-30, 30, 6001).unsqueeze(-1).expand(-1, len(levels))
    digits = fsq.codes_to_digits(fsq(sweep).codes)
    for digit, level in enumerate(levels):
        assert digits[:, digit].unique().tolist() == list(range(level))


def test_points_are_those_of_the_codes_and_quantising_is_idempotent_in_them() -> None:
    torch.manual_seed(0)
    fsq = FSQ((8, 5, 5, 5))
    codes, points, *_ = fsq(torch.randn(4, 5, 4))
    torch.testing.assert_close(points, fsq.codes_to_points(codes), rtol=0, atol=1e-6)


def test_gradient_passes_the_rounding_straight_through() -> None:
    torch.manual_seed(0)
    fsq = FSQ((8, 5, 7))
    z = torch.randn(6, 3, dtype=torch.float32, requires_grad=True)
    weight = torch.randn(6, 3)
    (fsq(z).points * weight).sum().backward()
    smooth = z.detach().clone().requires_grad_()
    (fsq._bound(smooth) / (fsq.radix // 2) * weight).sum().backward()
    assert z.grad is not None
    assert smooth.grad is not None
    assert z.grad.abs().min() > 0
    torch.testing.assert_close(z.grad, smooth.grad)


def even(fsq: FSQ) -> Tensor:
    """A vector for the middle of every code."""
    points = fsq.codes_to_points(torch.arange(fsq.size))
    half = (fsq.radix - 1) * (1 + EDGE) / 2
    offset = torch.where(fsq.radix % 2 == 0, 0.5, 0.0)
    return ((points * (fsq.radix // 2) + offset) / half).atanh() - (offset / half).atanh()


@pytest.mark.parametrize("levels", [(8, 5), (4, 3, 3)])
def test_unevenness_is_nothing_over_the_whole_codebook_and_grows_with_what_is_lacking(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels, evenness=2.0).train()
    z = even(fsq)
    assert torch.equal(fsq(z).codes, torch.arange(fsq.size))
    assert fsq(z).loss == pytest.approx(0, abs=1e-6)
    assert fsq(z.repeat(3, 1)[torch.randperm(3 * fsq.size)]).loss == pytest.approx(0, abs=1e-6)
    without_a_level = z[fsq.codes_to_digits(torch.arange(fsq.size))[:, 0] > 0]
    assert fsq(without_a_level).loss > 0.01
    same = torch.arange(min(levels))  # level k of the first digit only with level k of the second
    assert fsq(even(fsq)[same + levels[0] * same]).loss > 1 / math.comb(len(levels), 2)  # correlation 1 of one pair
    assert fsq.eval()(without_a_level).loss == 0


def test_less_unevenness_brings_more_codes_into_use() -> None:
    torch.manual_seed(0)
    fsq = FSQ((8, 5, 5), evenness=1.0).train()
    z = (torch.randn(600, 3) @ torch.tensor([[1.0, 0.9, 0], [0, 0.3, 0.5], [0, 0, 0.2]])).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.05)
    used = []
    for _ in range(60):
        quantised = fsq(z)
        used.append(len(quantised.codes.unique()))
        optimizer.zero_grad()
        quantised.loss.backward()
        optimizer.step()
    assert used[0] < 80
    assert used[-1] > 130


def test_autocast_and_bf16_do_not_change_the_codes() -> None:
    torch.manual_seed(0)
    fsq = FSQ((8, 8, 8, 5, 5, 5))
    z = torch.randn(500, 6).bfloat16()
    expected = fsq(z.float()).codes
    with torch.autocast("cpu", torch.bfloat16):
        codes, points, *_ = fsq(z)
    assert torch.equal(codes, expected)
    assert points.dtype == torch.bfloat16
    assert fsq(z.float()).points.dtype == torch.float32


@pytest.mark.parametrize("levels", [(), (2, 5), (5, 0), (8,) * 11])
def test_levels_that_cannot_work_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="levels"):
        FSQ(levels)


def test_presets_are_close_to_their_names() -> None:
    for size, levels in LEVELS.items():
        assert 0.9 < math.prod(levels) / size < 1.1
