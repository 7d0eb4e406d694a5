"""Rotary positions: scores depend on distances alone, on each axis; text is the one-axis case."""

import pytest
import torch
from torch import Tensor

from vpoet.nn.rope import rotate, rotations

HEAD = 24


def scores(positions_T3: Tensor) -> Tensor:
    """q.k [T, T] of one fixed random query and key at all positions."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, HEAD, dtype=torch.float32).expand(2, len(positions_T3), 1, HEAD)
    turn = rotations(positions_T3, HEAD, 10_000.0)
    return (rotate(q, *turn)[:, 0] @ rotate(k, *turn)[:, 0].T).detach()


def grid() -> Tensor:
    return torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(2))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_along_an_axis_changes_no_score_and_a_distance_does(axis: int) -> None:
    shift = torch.zeros(3, dtype=torch.int64)
    shift[axis] = 7
    before = scores(grid())
    torch.testing.assert_close(scores(grid() + shift), before, rtol=0, atol=1e-4)
    apart = torch.stack([torch.zeros_like(shift), shift])
    assert abs(float(scores(apart)[0, 1] - scores(apart)[0, 0])) > 0.1


def test_axes_are_told_apart() -> None:
    steps = torch.cat([torch.zeros(1, 3, dtype=torch.int64), torch.eye(3, dtype=torch.int64)])
    from_origin = scores(steps)[0]
    assert len({round(float(score), 3) for score in from_origin}) == 4


def test_text_is_the_one_axis_rotary_embedding() -> None:
    positions = torch.arange(50)
    x = torch.randn(50, 2, HEAD)
    pairs = HEAD // 2
    angle = positions[:, None].float() * 10_000.0 ** (-torch.arange(pairs) / pairs)
    turn = torch.polar(torch.ones_like(angle), angle)[:, None]
    expected = torch.complex(x[..., :pairs], x[..., pairs:]) * turn
    found = rotate(x, *rotations(positions[:, None].expand(-1, 3), HEAD, 10_000.0))
    torch.testing.assert_close(found, torch.cat((expected.real, expected.imag), -1), rtol=0, atol=1e-5)


def test_each_axis_has_slow_and_fast_pairs() -> None:
    one = torch.ones(1, 3, dtype=torch.int64)
    for axis in range(3):
        only = torch.zeros_like(one)
        only[0, axis] = 1
        _, sines = rotations(only, 96, 10_000.0)
        turned = sines[0][sines[0] != 0]
        assert len(turned) == 16
        assert turned.max() > 0.5
        assert turned.min() < 1e-3


def test_rotation_keeps_lengths_and_dtype_and_computes_in_fp32() -> None:
    x = torch.randn(6, 2, HEAD)
    far = torch.full((6, 3), 4001)
    turned = rotate(x, *rotations(far, HEAD, 10_000.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    low = rotate(x.bfloat16(), *rotations(far, HEAD, 10_000.0))
    assert low.dtype == torch.bfloat16
    # the angle itself must not be rounded to bf16, where 4001 is 4000: only inputs and outputs are (2^-8 relative)
    torch.testing.assert_close(low.float(), turned, rtol=0, atol=4 * 2**-8)
