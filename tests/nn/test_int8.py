"""Eight-bit weights: the map is that of the rounded weights, and near the one that was rounded."""

import torch
from torch import nn

from vpoet.nn.attention import backend
from vpoet.nn.int8 import Int8Linear, quantise
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary


def test_the_map_is_that_of_the_rounded_weights() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 48, bias=False).requires_grad_(False)
    small = Int8Linear(linear)
    assert small.weight.dtype == torch.int8
    assert int(small.weight.abs().amax(1).min()) == 127  # every row uses the whole range
    rounded = small.weight.float() * small.scale.float()[:, None]
    assert float((rounded - linear.weight).abs().max()) <= float(small.scale.float().max()) * 0.51 + 0.004
    x = torch.randn(5, 64).bfloat16()
    torch.testing.assert_close(small(x).float(), x.float() @ rounded.T, rtol=2e-2, atol=2e-2)


def test_a_row_of_zeros_stays_zero() -> None:
    linear = nn.Linear(32, 16, bias=False).requires_grad_(False)
    linear.weight[3] = 0
    assert bool((Int8Linear(linear)(torch.randn(2, 32).bfloat16())[:, 3] == 0).all())


def test_a_whole_model_in_eight_bits_is_near_the_model() -> None:
    torch.manual_seed(0)
    vocabulary = Vocabulary(30, (16, 8), "t", "v")
    transformer = Transformer(TransformerConfig(width=64, depth=2, heads=4, kv_heads=2, hidden=96), vocabulary).eval()
    ids, positions = torch.randint(vocabulary.size, (12,)), torch.randint(9, (12, 3))
    attend = backend("sdpa", torch.device("cpu"), torch.float32)(Visibility((12,), (0,)), torch.device("cpu"))
    with torch.no_grad():
        wanted = transformer(ids, positions, attend)
        quantise(transformer)
        found = transformer(ids, positions, attend)
    assert not any(isinstance(part, nn.Linear) for part in transformer.modules())
    assert all(weight.dtype == torch.bfloat16 for weight in transformer.parameters())
    assert found.dtype == torch.bfloat16
    assert 0 < float((found.float() - wanted).abs().mean()) < 0.03  # of states of order one


def test_maps_of_any_number_of_inputs_are_taken() -> None:
    """Those that torch's product takes are multiples of 16."""
    linear = nn.Linear(50, 32, bias=False).requires_grad_(False)
    x = torch.randn(3, 50).bfloat16()
    torch.testing.assert_close(Int8Linear(linear)(x).float(), linear(x.float()), rtol=5e-2, atol=5e-2)
