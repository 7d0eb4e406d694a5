"""The transformer on text against Hugging Face's implementations, random weights copied across.

Our block is Llama's with RMSNorm on each head's queries and keys, which is Qwen3's block. So Qwen3 is compared as it
is, and Llama with our two norms left out. Text stands on the diagonal of the three axes, where rotary positions are
theirs, and its tied head is their tied head's rows of the pieces and the closing token. The visual head has no twin
there: `test_transformer` compares it with its own definition.
"""

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.vocabulary import Vocabulary

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(200, (4, 3), "t", "v")
SIZES = TransformerConfig(width=64, depth=3, heads=4, kv_heads=2, hidden=96, rope_base=10_000.0)
DOCUMENTS = Visibility((19, 1, 30, 12), (0, 0, 11, 12))
FAMILIES = pytest.mark.parametrize(
    ("configure", "build"), [(Qwen3Config, Qwen3ForCausalLM), (LlamaConfig, LlamaForCausalLM)], ids=["qwen3", "llama"]
)


def peer(configure: type, build: type) -> PreTrainedModel:
    torch.manual_seed(0)
    config = configure(
        vocab_size=VOCABULARY.language,
        hidden_size=SIZES.width,
        intermediate_size=SIZES.hidden,
        num_hidden_layers=SIZES.depth,
        num_attention_heads=SIZES.heads,
        num_key_value_heads=SIZES.kv_heads,
        head_dim=SIZES.head,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": SIZES.rope_base},
        tie_word_embeddings=True,
        attn_implementation="sdpa",
    )
    theirs = build(config).eval()
    for parameter in theirs.parameters():  # norms that scale, and attention far from uniform
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return theirs


def ours(theirs: PreTrainedModel) -> Transformer:
    transformer = Transformer(SIZES, VOCABULARY).eval()
    if theirs.config.model_type == "llama":
        for block in transformer.blocks:
            block.attention.q_norm = block.attention.k_norm = nn.Identity()
    weights = renamed({name: parameter.detach() for name, parameter in theirs.named_parameters()})
    missing, unexpected = transformer.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.startswith(("codes.", "visual.")) for name in missing)
    return transformer


def renamed(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their weights, or gradients, under our names."""
    found = {"language.weight": theirs["model.embed_tokens.weight"], "norm.weight": theirs["model.norm.weight"]}
    for i in range(SIZES.depth):
        layer = {name.removeprefix(f"model.layers.{i}."): x for name, x in theirs.items() if f".layers.{i}." in name}
        mine = {
            "attention_norm": layer["input_layernorm.weight"],
            "attention.qkv": torch.cat([layer[f"self_attn.{name}_proj.weight"] for name in "qkv"]),
            "attention.out": layer["self_attn.o_proj.weight"],
            "mlp_norm": layer["post_attention_layernorm.weight"],
            "mlp.up": torch.cat([layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]]),
            "mlp.out": layer["mlp.down_proj.weight"],
        }
        for name in "qk":
            if f"self_attn.{name}_norm.weight" in layer:
                mine[f"attention.{name}_norm"] = layer[f"self_attn.{name}_norm.weight"]
        found |= {f"blocks.{i}.{name}.weight": x for name, x in mine.items()}
    return found


def text() -> tuple[Tensor, Tensor]:
    """Ids of a pack and their positions: each document from zero, the three axes together."""
    positions = torch.cat([torch.arange(n) for n in DOCUMENTS.lengths])
    return torch.randint(VOCABULARY.language, (len(positions),)), positions[:, None].expand(-1, 3)


def packed_states(transformer: Transformer, ids: Tensor, positions: Tensor) -> Tensor:
    return transformer(ids, positions, backend("sdpa", CPU, torch.float32)(DOCUMENTS, CPU))


def single_states(theirs: PreTrainedModel, ids: Tensor) -> Tensor:
    """Each document in a run of its own; one with a prefix is given its mask [1, 1, length, length]."""
    states = []
    for document, prefix in zip(ids.split(DOCUMENTS.lengths), DOCUMENTS.prefixes, strict=True):
        mask = Visibility((len(document),), (prefix,)).mask()[None, None] if prefix else None
        states.append(theirs.model(document[None], attention_mask=mask, use_cache=False).last_hidden_state[0])
    return torch.cat(states)


@FAMILIES
def test_a_pack_of_text_gives_the_states_and_nats_of_hugging_faces_single_runs(configure: type, build: type) -> None:
    theirs = peer(configure, build)
    transformer, (ids, positions) = ours(theirs), text()
    with torch.no_grad():
        wanted, found = single_states(theirs, ids), packed_states(transformer, ids, positions)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        assert float(found.std()) > 0.5
        choices = [VOCABULARY.special("<close:text>"), *VOCABULARY.ids(range(200), "text").tolist()]
        log_p = theirs.lm_head(wanted)[:, choices].log_softmax(-1)
        for at in (0, 1, 150):
            nats = transformer.text_nats(transformer.text_rows(), found, torch.tensor(choices[at]).expand(len(found)))
            torch.testing.assert_close(nats, -log_p[:, at], rtol=0, atol=1e-4)


@FAMILIES
def test_gradients_of_text_are_those_of_hugging_face(configure: type, build: type) -> None:
    theirs = peer(configure, build)
    transformer, (ids, positions) = ours(theirs), text()
    after = VOCABULARY.ids(torch.randint(200, (len(ids),)).numpy(), "text")
    after = torch.from_numpy(after).long()
    rows = transformer.text_rows()
    transformer.text_nats(rows, packed_states(transformer, ids, positions), after).sum().backward()
    choices = torch.tensor([VOCABULARY.special("<close:text>"), *VOCABULARY.ids(range(200), "text").tolist()])
    logits = theirs.lm_head(single_states(theirs, ids))[:, choices]
    nn.functional.cross_entropy(logits, torch.searchsorted(choices, after), reduction="sum").backward()
    wanted = renamed({name: parameter.grad for name, parameter in theirs.named_parameters()})
    found = {name: p.grad for name, p in transformer.named_parameters() if p.grad is not None}
    assert not any(found[name].any() for name in found.keys() - wanted.keys())  # of visual codes, in no text
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        assert scale > 1e-3, name
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 * max(1, scale), msg=name)


def test_bf16_text_is_as_far_from_fp32_as_hugging_faces_own() -> None:
    """Both round each product to 2^-9; ours must not stray further from the fp32 states than theirs do, up to a
    tenth."""
    theirs = peer(Qwen3Config, Qwen3ForCausalLM)
    transformer, (ids, positions) = ours(theirs), text()
    with torch.no_grad():
        exact = packed_states(transformer, ids, positions)
        mine = (packed_states(transformer.bfloat16(), ids, positions).float() - exact).abs().mean()
        others = (single_states(theirs.bfloat16(), ids).float() - exact).abs().mean()
    assert float(exact.abs().mean()) > 0.5
    assert 0 < float(mine) < 1.1 * float(others) < 0.1
