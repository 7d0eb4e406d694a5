"""Decoding beside Hugging Face's `generate`, with the same weights, in the same run: ``decoding_3m`` and so on.

Llama's shapes with a flat codebook of 8,192 codes, 256 greedy tokens after a prompt of 22, tokens a second of the whole
call, the best of three; the machine's threads as they are (OMP_NUM_THREADS). Hugging Face's model is Qwen3, which is
Llama's block with our norms of queries and keys, its cache the default, dynamic one.

``bound`` is the share of what reading every weight once a token would allow, with the bandwidth of a sum over as many
bytes. ``cold`` is the seconds that compiling takes once, ``warm`` loading what was compiled.
"""

import gc
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from vpoet.data.video import Video
from vpoet.data.worlds.platformer import Platformer
from vpoet.generate.compiled import StepCompiler
from vpoet.generate.decode import Sampling, decode
from vpoet.generate.model import load
from vpoet.nn.attention import backend
from vpoet.nn.int8 import quantise
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE, Sample
from vpoet.sequence.vocabulary import Vocabulary

CODES, TOKENS, PROMPT = 8192, 256, 22
VOCABULARY = Vocabulary(64, (CODES,), "text", "video")
SIZES = {  # width, depth, heads, hidden
    "3m": (192, 4, 4, 512),
    "30m": (512, 8, 8, 1408),
    "120m": (768, 16, 12, 2048),
}
GREEDY = Sampling(temperature=0)
GUIDED = Sampling(temperature=0, guidance=2.0)


def decoding_3m(_: float) -> dict[str, Any]:
    """3M parameters: every precision, guidance, a batch of 8."""
    return _lines("3m", ("fp32", "bf16"))


def decoding_30m(_: float) -> dict[str, Any]:
    """30M parameters."""
    return _lines("30m", ("bf16", "int8"))


def decoding_120m(_: float) -> dict[str, Any]:
    """120M parameters."""
    return _lines("120m", ("int8",))


def precision(_: float) -> dict[str, Any]:
    """Bits a token of 60 clips of the world that the shipped model never saw, given a caption, by its precision."""
    world, documents, found = Platformer(), [], {}
    model = load(device="cpu")
    for seed in range(10**9, 10**9 + 60):
        frames, about = world.clip(seed)
        codes = model.bundle.video.encode(Video(frames, about["fps"]))
        documents.append(model.observed(codes, about["fps"], about["caption"][0]))
    for name in ("fp32", "bf16", "int8"):
        scores = load(device="cpu", precision=name).likelihoods(documents)
        found[name] = round(sum(each.total.bits for each in scores) / sum(each.tokens for each in scores), 4)
    return found


def _lines(size: str, precisions: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        for precision in precisions:
            found[precision] = _line(size, precision)
    return found


def _line(size: str, precision: str) -> dict[str, Any]:
    width, depth, heads, hidden = SIZES[size]
    torch.manual_seed(0)
    sizes = TransformerConfig(
        width=width, depth=depth, heads=heads, kv_heads=heads, hidden=hidden, visual_groups=1
    )  # fmt: skip
    transformer = Transformer(sizes, VOCABULARY).eval().requires_grad_(False)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    batches = (1, 8) if size != "120m" else (1,)
    peers = _peers(transformer, dtype, batches)
    gc.collect()
    if precision == "int8":
        quantise(transformer)
    else:
        transformer.to(dtype)
    read = [*transformer.blocks.parameters(), *transformer.blocks.buffers()]
    read += [*transformer.visual.logits_of.parameters(), *transformer.visual.logits_of.buffers()]
    size_in_bytes = sum(weight.numel() * weight.element_size() for weight in read)
    compiler = StepCompiler()

    def ours(count: int, sampling: Sampling = GREEDY, compiled: bool = True) -> Callable[[], Any]:
        build = (lambda step, b, n: compiler(f"{size}-{precision}", step, b, n)) if compiled else None
        documents = [_document() for _ in range(count)]
        attention = backend("sdpa", torch.device("cpu"), dtype)
        return lambda: decode(
            transformer, documents, seeds=range(count), attention=attention, sampling=sampling, build=build
        )

    eager = _rate(1, ours(1, compiled=False))
    began = time.perf_counter()
    ours(1)()
    cold = time.perf_counter() - began
    fast = {count: _rate(count, ours(count)) for count in batches}
    guided = _rate(1, ours(1, GUIDED))
    compiler = StepCompiler()
    began = time.perf_counter()
    ours(1)()
    warm = time.perf_counter() - began
    return {
        "hugging_face": round(peers[1]),
        "eager": round(eager),
        "compiled": round(fast[1]),
        "times_hugging_face": round(fast[1] / peers[1], 1),
        "bound": round(fast[1] * size_in_bytes / _bandwidth(size_in_bytes), 2),
        "guidance_takes": round(fast[1] / guided, 2),
        "cold": round(cold - TOKENS / fast[1], 1),
        "warm": round(warm - TOKENS / fast[1], 2),
        **(
            {"batch_8": round(fast[8]), "batch_8_times_hugging_face": round(fast[8] / peers[8], 1)} if 8 in fast else {}
        ),
    }


def _peers(transformer: Transformer, dtype: torch.dtype, batches: tuple[int, ...]) -> dict[int, float]:
    theirs = _hugging_face(transformer).to(dtype)
    return {count: _rate(count, lambda count=count: _generate(theirs, count)) for count in batches}


def _document() -> Document:
    """Nine tokens of structure and text pieces before a clip of 4x8x8 codes: a prompt of 22 tokens."""
    return TABLE["t2v"].document(Sample(np.arange(12, dtype=np.int32), np.zeros((4, 8, 8), np.int32), 8))


def _hugging_face(ours: Transformer) -> Any:
    """Qwen3 with the weights of ``ours``; its vocabulary are the codes."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    c = ours.config
    theirs = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=CODES, hidden_size=c.width, intermediate_size=c.hidden, num_hidden_layers=c.depth,
            num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_base},
        )
    ).eval()  # fmt: skip
    weights = {"model.embed_tokens.weight": ours.codes[0].weight, "model.norm.weight": ours.norm.weight}
    weights["lm_head.weight"] = ours.visual.logits_of[0].weight
    for i, block in enumerate(ours.blocks):
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.mlp.up.weight.chunk(2)
        layer = {"q_proj": q, "k_proj": k, "v_proj": v, "o_proj": block.attention.out.weight}
        layer |= {"q_norm": block.attention.q_norm.weight, "k_norm": block.attention.k_norm.weight}
        mlp = {"gate_proj": gate, "up_proj": up, "down_proj": block.mlp.out.weight}
        weights |= {f"model.layers.{i}.self_attn.{name}.weight": weight for name, weight in layer.items()}
        weights |= {f"model.layers.{i}.mlp.{name}.weight": weight for name, weight in mlp.items()}
        weights[f"model.layers.{i}.input_layernorm.weight"] = block.attention_norm.weight
        weights[f"model.layers.{i}.post_attention_layernorm.weight"] = block.mlp_norm.weight
    theirs.load_state_dict({name: weight.detach().clone() for name, weight in weights.items()})
    return theirs


@torch.inference_mode()
def _generate(theirs: Any, count: int) -> None:
    prompt = torch.arange(PROMPT).repeat(count, 1)
    theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip


def _rate(count: int, work: Callable[[], Any]) -> float:
    """Tokens a second of the best of three, after one that is not counted."""
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return count * TOKENS / min(seconds[1:])


def _bandwidth(size: int) -> float:
    """Bytes a second of a sum over as many bytes."""
    values = torch.ones(size // 4)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        values.sum()
        best = min(best, time.perf_counter() - began)
    return size / best
