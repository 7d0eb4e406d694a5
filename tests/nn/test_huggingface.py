"""What is exported is loaded by transformers, every tensor in its place, and gives our logits."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, Qwen3ForCausalLM, Qwen3VLForConditionalGeneration

from vpoet.errors import ConfigError
from vpoet.nn.attention import backend
from vpoet.nn.huggingface import FORMS, whole
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.nn.visibility import Visibility
from vpoet.sequence.document import build
from vpoet.sequence.spans import Document, Span
from vpoet.sequence.vocabulary import Modality, Vocabulary

CPU = torch.device("cpu")
FLAT = Vocabulary(50, (24,), "t", "v", (("actions", 6),))


def model(vocabulary: Vocabulary, head: int = 20) -> Transformer:
    """Of random weights far from any symmetry; 10 pairs of a head are not shared evenly by three axes."""
    torch.manual_seed(0)
    sizes = TransformerConfig(width=4 * head, depth=2, heads=4, kv_heads=2, hidden=48, rope_base=1000.0)
    transformer = Transformer(sizes, vocabulary).eval().requires_grad_(False)
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.1)
    return transformer


def states(transformer: Transformer, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    attend = backend("sdpa", CPU, torch.float32)(Visibility((len(ids),), (0,)), CPU)
    return transformer(ids, positions, attend)


def loaded(transformer: Transformer, part: str, family: Any, folder: Path) -> Any:
    config, tensors = FORMS[part](transformer, 128)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    theirs, found = family.from_pretrained(folder, output_loading_info=True)
    assert not any(found[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), found
    assert AutoConfig.from_pretrained(folder).architectures == [family.__name__]
    return theirs.eval()


@pytest.mark.parametrize("visual", [(24,), (6, 4)])
def test_texts_have_the_logits_of_a_qwen3(visual: tuple[int, ...], tmp_path: Path) -> None:
    vocabulary = Vocabulary(50, visual, "t", "v")
    transformer = model(vocabulary)
    theirs = loaded(transformer, "text", Qwen3ForCausalLM, tmp_path)
    ids = torch.randint(vocabulary.language, (40,))
    ours = states(transformer, ids, torch.arange(40)[:, None].expand(-1, 3)) @ transformer.text_rows().T
    choices = [vocabulary.special("<close:text>"), *vocabulary.ids(np.arange(50), "text").tolist()]
    with torch.no_grad():
        logits = theirs(ids[None]).logits[0]
    assert logits.shape == (40, vocabulary.language)
    assert float(ours.std()) > 0.1
    torch.testing.assert_close(logits[:, choices], ours, rtol=0, atol=1e-4)


def document() -> Document:
    codes = np.arange(3 * 2 * 4, dtype=np.int32).reshape(3, 2, 4) % 24
    text = Span(Modality.TEXT, np.arange(7, dtype=np.int32), False)
    return Document("t2v", (text, Span(Modality.VIDEO, codes, True, fps=8)))


def test_a_flat_codebook_has_all_its_logits_in_a_qwen3_vl(tmp_path: Path) -> None:
    """At the cells' own positions on three axes; at one axis for all, as Qwen3 has it, it would not."""
    transformer = model(FLAT)
    theirs = loaded(transformer, "all", Qwen3VLForConditionalGeneration, tmp_path)
    sequence = build(document(), FLAT)
    ids, positions = torch.from_numpy(sequence.ids).long(), torch.from_numpy(sequence.positions).long()
    assert not torch.equal(positions[:, 0], positions[:, 2])
    ours = states(transformer, ids, positions)
    with torch.no_grad():
        logits = theirs(input_ids=ids[None], position_ids=positions.T[:, None]).logits[0]
        on_one_axis = theirs(input_ids=ids[None], position_ids=torch.arange(len(ids)).expand(3, 1, -1)).logits[0]
    start, stop = FLAT.ranges["codes"]
    torch.testing.assert_close(logits[:, start:stop], transformer.visual.first(ours), rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[:, :start], ours @ transformer.language.weight.T, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[:, stop:], ours @ transformer.appended["actions"].weight.T, rtol=0, atol=1e-4)
    assert not torch.allclose(on_one_axis, logits, atol=1e-2)


def test_a_factorised_head_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"as 2 digits \(6 \* 4\), each given those before it.*visual_groups: 1"):
        whole(model(Vocabulary(50, (6, 4), "t", "v")), 128)
