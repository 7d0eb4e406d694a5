"""The transformer in Hugging Face's layout: what they call its tensors and sizes, where theirs is the same network.

Our block is Llama's with RMSNorm on each head's queries and keys, which is Qwen3's block; Llama's own, without the two
norms, it is not. Text stands on the diagonal of our three rotary axes, where they are Qwen3's one. Of visual codes the
cells stand at (t, h, w), which Qwen3 cannot say; Qwen3-VL can: its interleaved rotary axes (Bai et al.,
arXiv:2511.21631, section 2.1) are ours, pair p turned by axis p mod 3. Neither has a head that predicts a code digit by
digit, so codes can go along only where the codebook is flat (`model.visual_groups: 1`).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vpoet.errors import ConfigError
from vpoet.nn.transformer import Block, Transformer

Exported = tuple[dict[str, Any], dict[str, Tensor]]
"""What stands in config.json, and the tensors of model.safetensors."""


def text_part(transformer: Transformer, length: int) -> Exported:
    """A Qwen3ForCausalLM of special tokens, numbers and text pieces, up to ``length`` tokens: the same states and,
    among what may stand in a text, the same logits. Its head is its embedding (tied), as ours is for texts."""
    config = _sizes(transformer, length) | {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": transformer.vocabulary.language,
        "tie_word_embeddings": True,
    }  # fmt: skip
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": transformer.config.rope_base}
    return config, {"model.embed_tokens.weight": transformer.language.weight} | _blocks(transformer, "model.")


def whole(transformer: Transformer, length: int) -> Exported:
    """A Qwen3VLForConditionalGeneration of all ids, without eyes: pictures are ids here, so its vision tower has no
    blocks, and zeros for what remains. Given our positions as ``position_ids`` [3, 1, T] it has the same logits.

    ConfigError: the codebook is not flat.
    """
    vocabulary = transformer.vocabulary
    if len(vocabulary.visual) > 1:
        groups = " * ".join(map(str, vocabulary.visual))
        raise ConfigError(
            f"this model predicts a code as {len(vocabulary.visual)} digits ({groups}), each given those before it, "
            "and Hugging Face's heads are one matrix: export its text part alone, or train with model.visual_groups: 1"
        )
    further = [transformer.appended[name].weight for name, _ in vocabulary.appended]
    ids = torch.cat([transformer.language.weight, transformer.codes[0].weight, *further])  # type: ignore[list-item]
    rows = torch.cat([transformer.language.weight, transformer.visual.logits_of[0].weight, *further])  # type: ignore[list-item]
    text = _sizes(transformer, length) | {"model_type": "qwen3_vl_text", "vocab_size": vocabulary.size}
    pairs = transformer.config.head // 2
    text["rope_parameters"] = {
        "rope_type": "default", "rope_theta": transformer.config.rope_base, "mrope_interleaved": True,
        "mrope_section": [-(-(pairs - axis) // 3) for axis in range(3)],
    }  # fmt: skip
    width = transformer.config.width
    eyes = {
        "model_type": "qwen3_vl_vision", "depth": 0, "hidden_size": 4, "intermediate_size": 4, "num_heads": 1,
        "in_channels": 3, "patch_size": 1, "spatial_merge_size": 1, "temporal_patch_size": 1, "out_hidden_size": width,
        "num_position_embeddings": 1, "deepstack_visual_indexes": [],
    }  # fmt: skip
    blind = {
        "patch_embed.proj.weight": (4, 3, 1, 1, 1), "patch_embed.proj.bias": (4,), "pos_embed.weight": (1, 4),
        "merger.norm.weight": (4,), "merger.norm.bias": (4,), "merger.linear_fc1.weight": (4, 4),
        "merger.linear_fc1.bias": (4,), "merger.linear_fc2.weight": (width, 4), "merger.linear_fc2.bias": (width,),
    }  # fmt: skip
    outside = {f"{name}_token_id": vocabulary.size + at for at, name in enumerate(_NOT_OURS)}
    config = {
        "architectures": ["Qwen3VLForConditionalGeneration"], "model_type": "qwen3_vl", "tie_word_embeddings": False,
        "text_config": text | {"tie_word_embeddings": False}, "vision_config": eyes, **outside,
    }  # fmt: skip
    tensors = {"lm_head.weight": rows, "model.language_model.embed_tokens.weight": ids}
    tensors |= {f"model.visual.{name}": torch.zeros(shape) for name, shape in blind.items()}
    return config, tensors | _blocks(transformer, "model.language_model.")


_NOT_OURS = ("image", "video", "vision_start", "vision_end")
"""Tokens of theirs that stand for pixels: ids beyond our last, so that none of ours is taken for one."""


def _sizes(transformer: Transformer, length: int) -> dict[str, Any]:
    sizes = transformer.config
    return {
        "hidden_size": sizes.width, "intermediate_size": sizes.hidden, "num_hidden_layers": sizes.depth,
        "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.kv_heads, "head_dim": sizes.head,
        "rms_norm_eps": transformer.norm.eps, "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
        "max_position_embeddings": length, "rope_theta": sizes.rope_base,
    }  # fmt: skip


def _blocks(transformer: Transformer, above: str) -> dict[str, Tensor]:
    """The blocks and the last norm under their names; what we keep in one matrix is cut."""
    found: dict[str, Tensor] = {f"{above}norm.weight": transformer.norm.weight}
    sizes = transformer.config
    cut = [heads * sizes.head for heads in (sizes.heads, sizes.kv_heads, sizes.kv_heads)]
    for i, block in enumerate(transformer.blocks):
        assert isinstance(block, Block)
        qkv = torch.split(block.attention.qkv.weight, cut)
        gate, up = block.mlp.up.weight.chunk(2)
        names = {
            "input_layernorm": block.attention_norm.weight, "self_attn.q_proj": qkv[0], "self_attn.k_proj": qkv[1],
            "self_attn.v_proj": qkv[2], "self_attn.o_proj": block.attention.out.weight,
            "self_attn.q_norm": block.attention.q_norm.weight, "self_attn.k_norm": block.attention.k_norm.weight,
            "post_attention_layernorm": block.mlp_norm.weight, "mlp.gate_proj": gate, "mlp.up_proj": up,
            "mlp.down_proj": block.mlp.out.weight,
        }  # fmt: skip
        found |= {f"{above}layers.{i}.{name}.weight": weight for name, weight in names.items()}
    return found


FORMS: dict[str, Callable[[Transformer, int], Exported]] = {"text": text_part, "all": whole}
"""What of a model is exported."""
