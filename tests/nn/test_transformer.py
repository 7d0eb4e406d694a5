"""The transformer: causality and isolation by gradient, the factorised head, initialisation, precision."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig, VisualHead
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
SDPA = backend("sdpa", CPU, torch.float32)
VOCABULARY = Vocabulary(30, (6, 4, 3), "t", "v")
SIZES = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48)


def model(config: TransformerConfig = SIZES, vocabulary: Vocabulary = VOCABULARY) -> Transformer:
    torch.manual_seed(0)
    return Transformer(config, vocabulary).eval()


def test_gradients_show_that_a_state_depends_on_what_its_token_sees_and_on_nothing_else() -> None:
    visibility = Visibility((5, 4, 6), (0, 2, 5))
    total = visibility.bounds[-1]
    transformer = model()
    ids = torch.randint(VOCABULARY.size, (total,))
    embedded = transformer.embed(ids).detach().requires_grad_()
    transformer.embed = lambda ids_T: embedded  # type: ignore[method-assign]
    states = transformer(ids, torch.randint(9, (total, 3)), SDPA(visibility, CPU))
    reach = visibility.mask()
    for row, state in enumerate(states):
        (gradient,) = torch.autograd.grad(state.square().sum() + state.sum(), embedded, retain_graph=True)
        assert torch.equal(gradient.abs().sum(-1) > 0, reach[row]), row  # where not seen, exactly zero


def test_a_state_depends_on_its_own_document_bit_for_bit() -> None:
    visibility = Visibility((5, 6), (0, 3))
    transformer = model().requires_grad_(False)
    ids, positions = torch.randint(VOCABULARY.size, (11,)), torch.randint(9, (11, 3))
    before = transformer(ids, positions, SDPA(visibility, CPU))
    ids[:5] = torch.randint(VOCABULARY.size, (5,))
    after = transformer(ids, positions, SDPA(visibility, CPU))
    assert torch.equal(before[5:], after[5:])
    assert not torch.equal(before[:5], after[:5])


def test_an_appended_range_has_a_table_and_a_head_and_leaves_all_else_alone() -> None:
    longer = replace(VOCABULARY, appended=(("actions", 6),))
    before, after = model(), model(vocabulary=longer)
    missing, unexpected = after.load_state_dict(before.state_dict(), strict=False)
    assert (missing, unexpected) == (["appended.actions.weight"], [])
    ids = torch.arange(longer.size)
    embedded = after.embed(ids)
    assert torch.equal(embedded[: VOCABULARY.size], before.embed(ids[: VOCABULARY.size]))
    assert torch.equal(embedded[VOCABULARY.size :], after.appended["actions"].weight)
    state = torch.randn(1, SIZES.width).expand(6, -1)
    probabilities = after.head("actions")(state, ids[VOCABULARY.size :], 0.0).neg().exp()
    torch.testing.assert_close(probabilities.sum(), torch.tensor(1.0))


def test_language_and_visual_tokens_are_embedded_by_their_own_tables() -> None:
    transformer = model()
    codes = torch.arange(VOCABULARY.codes)
    ids = torch.cat([torch.arange(VOCABULARY.language), codes + VOCABULARY.language])
    embedded = transformer.embed(ids)
    assert torch.equal(embedded[: VOCABULARY.language], transformer.language.weight)
    tables = [table.weight for table in transformer.codes]
    expected = tables[0][codes % 6] + tables[1][codes // 6 % 4] + tables[2][codes // 24]
    torch.testing.assert_close(embedded[VOCABULARY.language :], expected)


def all_nats(head: VisualHead, states: Tensor, codes: int) -> Tensor:
    """[M, codes]"""
    pairs = states.repeat_interleave(codes, 0), torch.arange(codes).repeat(len(states))
    return head.nats(*pairs).view(len(states), codes)


@pytest.mark.parametrize("radices", [(24,), (6, 4), (2, 3, 4)])
def test_the_head_is_a_distribution_over_all_codes(radices: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = VisualHead(16, radices)
    with torch.no_grad():
        mass = all_nats(head, 3 * torch.randn(5, 16), 24).neg().exp()
    assert float(mass.std()) > 0.01
    torch.testing.assert_close(mass.sum(1), torch.ones(5), rtol=0, atol=1e-5)


def test_one_group_is_the_flat_softmax() -> None:
    torch.manual_seed(0)
    head, states = VisualHead(16, (24,)), torch.randn(5, 16)
    expected = -F.linear(states, head.logits_of[0].weight).log_softmax(-1)
    torch.testing.assert_close(all_nats(head, states, 24), expected)


def test_the_head_multiplies_the_conditionals_that_a_sampler_reads() -> None:
    torch.manual_seed(0)
    head, state = VisualHead(16, (6, 4)), torch.randn(1, 16)
    log_first = head.first(state).log_softmax(-1)[0]
    for first, second in itertools.product(range(6), range(4)):
        _, logits = head.following(1, state, torch.tensor([first]))
        nats = -(log_first[first] + logits.log_softmax(-1)[0, second])
        code = head.codes([torch.tensor([first]), torch.tensor([second])])
        torch.testing.assert_close(head.nats(state, code)[0], nats)
    after = [head.following(1, state, torch.tensor([digit]))[1] for digit in (0, 1)]
    assert not torch.allclose(*after)  # the second digit does depend on the first


def test_digits_and_codes_are_inverse_over_the_whole_codebook() -> None:
    head, codes = VisualHead(4, (6, 4, 3)), torch.arange(72)
    digits = head.digits(codes)
    assert [int(d.max()) for d in digits] == [5, 3, 2]
    assert digits[0][:7].tolist() == [0, 1, 2, 3, 4, 5, 0]  # least significant first
    assert torch.equal(head.codes(digits), codes)


def test_text_is_predicted_among_pieces_and_the_closing_token_alone() -> None:
    transformer, states = model(), torch.randn(3, 32)
    close = VOCABULARY.special("<close:text>")
    choices = torch.tensor([close, *VOCABULARY.ids(range(30), "text").tolist()])
    nats = torch.stack([transformer.text_nats(transformer.text_rows(), states, choice.repeat(3)) for choice in choices])
    torch.testing.assert_close(nats.neg().exp().sum(0), torch.ones(3))
    expected = -F.linear(states, transformer.language.weight[choices]).log_softmax(-1).T
    torch.testing.assert_close(nats, expected)


def test_initial_weights_have_the_stated_deviations_and_the_loss_starts_at_uniform() -> None:
    config = TransformerConfig(width=128, depth=8, heads=4, kv_heads=4, hidden=256)
    transformer = model(config, Vocabulary(300, (40, 25), "t", "v"))
    for name, parameter in transformer.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
            continue
        residual = name.startswith("blocks.") and ".out." in name
        wanted = 0.02 / (4 if residual else 1)  # sqrt(2 * 8)
        # a deviation estimated from n values errs by about 1/sqrt(2n): five of those, for all tensors, is safe
        assert float(parameter.detach().std()) == pytest.approx(wanted, rel=5 / math.sqrt(2 * parameter.numel())), name
    ids = torch.randint(transformer.vocabulary.size, (200,))
    states = transformer(ids, torch.randint(9, (200, 3)), SDPA(Visibility((200,), (0,)), CPU))
    nats = transformer.visual.nats(states, torch.randint(1000, (200,)))
    assert float(nats.mean()) == pytest.approx(math.log(1000), abs=0.15)


def test_bf16_states_are_near_fp32() -> None:
    """bf16 rounds to 2^-9 relative; two layers of states of order one agree to 0.02 on average."""
    transformer, visibility = model().requires_grad_(False), Visibility((9, 7), (0, 3))
    ids, positions = torch.randint(VOCABULARY.size, (16,)), torch.randint(9, (16, 3))
    wanted = transformer(ids, positions, SDPA(visibility, CPU))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = transformer(ids, positions, SDPA(visibility, CPU))
    low = transformer.bfloat16()(ids, positions, SDPA(visibility, CPU))
    assert low.dtype == torch.bfloat16
    for states in (mixed, low):
        assert float((states.float() - wanted).abs().mean()) < 0.02


def test_dropout_acts_in_training_only() -> None:
    config = TransformerConfig(width=32, depth=2, heads=4, kv_heads=2, hidden=48, dropout=0.5)
    transformer = model(config)
    arguments = torch.randint(VOCABULARY.size, (6,)), torch.randint(9, (6, 3)), SDPA(Visibility((6,), (0,)), CPU)
    assert torch.equal(transformer(*arguments), transformer(*arguments))
    transformer.train()
    assert not torch.equal(transformer(*arguments), transformer(*arguments))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"width": 30, "heads": 4}, "model.width = 30 must be an even multiple of model.heads = 4"),
        ({"width": 12, "heads": 4}, "model.width = 12 must be an even multiple"),
        ({"heads": 4, "kv_heads": 3}, "model.heads = 4 must be a multiple of model.kv_heads = 3"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TransformerConfig(**sizes)


def test_flops_count_products_and_visible_pairs() -> None:
    transformer = model()
    block = 2 * ((4 + 2 * 2) * 8 * 32 + 32 * 32 + 32 * 96 + 48 * 32)
    head = 32 * (6 + 4 + 3) + 2 * (32 * 64 + 32 * 32)
    visibility = Visibility((5, 3), (2, 0))
    pairs = int(visibility.mask().sum())
    expected = 6 * block * 8 + 6 * head * 7 + 12 * 2 * 32 * pairs
    assert transformer.flops(visibility, visual_targets=7) == expected
    windowed = Visibility((5, 3), (2, 0), (np.array([5, 3, 4, 9, 9], np.int32), None))
    fewer = pairs - int(windowed.mask().sum())
    assert transformer.flops(windowed, visual_targets=7) == expected - 12 * 2 * 32 * fewer < expected
    for parameter in transformer.parameters():
        parameter.data = torch.empty(0)  # as ZeRO stage 3 leaves a process without the gathered weights
    assert transformer.flops(visibility, visual_targets=7) == expected
