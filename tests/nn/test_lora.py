"""LoRA on the transformer: peft's arithmetic, and ours that adds what it learned to the weights."""

import pytest
import torch

from vpoet.errors import CheckpointError, ConfigError
from vpoet.nn import lora
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary

SIZES = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)


def fresh() -> Transformer:
    torch.manual_seed(0)
    return Transformer(SIZES, Vocabulary(40, (6, 4), "text", "video"))


def states(transformer: Transformer) -> torch.Tensor:
    ids_T, positions_T3 = torch.arange(20) % 60, torch.arange(20)[:, None].expand(-1, 3)
    attention = backend("sdpa", torch.device("cpu"), torch.float32)(Visibility((20,), (0,)), torch.device("cpu"))
    with torch.no_grad():
        return transformer(ids_T, positions_T3, attention)


def test_updates_are_on_every_matrix_of_the_blocks_and_change_nothing_at_first() -> None:
    plain, adapted = fresh(), fresh()
    lora.add(adapted, lora.LoraConfig(rank=4))
    assert torch.equal(states(plain), states(adapted))
    trained = {name: weight.shape for name, weight in adapted.named_parameters() if weight.requires_grad}
    matrices = {name: weight for name, weight in plain.blocks.named_parameters() if weight.dim() == 2}
    assert len(matrices) == 4 * SIZES.depth
    assert trained == {
        f"blocks.{name.removesuffix('weight')}lora_{side}.default.weight": shape
        for name, weight in matrices.items()
        for side, shape in (("A", (4, weight.shape[1])), ("B", (weight.shape[0], 4)))
    }


def test_weights_with_the_update_added_are_the_model_with_the_adapter() -> None:
    """peft is the oracle: it computes the update beside the weights, at every layer."""
    adapted, config = fresh(), lora.LoraConfig(rank=4, alpha=10.0)
    lora.add(adapted, config)
    before = states(adapted)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    weights, merged = adapted.state_dict(), fresh()
    assert lora.plain(weights).keys() == merged.state_dict().keys()
    assert all(torch.equal(value, merged.state_dict()[name]) for name, value in lora.plain(weights).items())
    merged.load_state_dict(lora.trained(weights, config))
    assert (states(adapted) - before).abs().max() > 0.1
    torch.testing.assert_close(states(merged), states(adapted), rtol=0, atol=1e-5)


def test_an_update_that_is_none_of_this_network_is_refused() -> None:
    weights = fresh().state_dict()
    A, B = torch.zeros(4, 32), torch.zeros(64, 4)
    place = "blocks.0.attention.qkv"
    assert lora.merged(weights, {f"{place}.lora_A": A, f"{place}.lora_B": B}, 1.0).keys() == weights.keys()
    for update, told in (
        ({f"{place}.lora_A": A}, "not pairs"),
        ({"blocks.7.mlp.up.lora_A": A, "blocks.7.mlp.up.lora_B": B}, r"blocks\.7\.mlp\.up does not fit"),
        ({f"{place}.lora_A": A, f"{place}.lora_B": B[1:]}, "qkv does not fit"),
        ({f"{place}.lora_A": A[1:], f"{place}.lora_B": B}, "qkv does not fit"),
    ):
        with pytest.raises(CheckpointError, match=told):
            lora.merged(weights, update, 1.0)


@pytest.mark.parametrize("settings", [{"rank": 0}, {"alpha": 0.0}, {"alpha": float("nan")}])
def test_a_rank_or_alpha_of_nothing_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be above 0"):
        lora.LoraConfig(**settings)
