"""Decoding beside Hugging Face's `generate` and llama.cpp, same weights, same run: ``decoding_3m`` and so on.

Llama's shapes with a flat codebook of 8,192 codes, greedy tokens behind a prompt of 22 (256 at 3M, 128 at 30M; at 120M
64 behind 20), tokens a second of the whole call, the best of three. In one thread, which is what is measured unless
OMP_NUM_THREADS says otherwise, it is the processor's time, as other work only slows; with more it is the clock's, and
the machine is to do nothing else. Hugging Face's model is Qwen3, which is Llama's block with our norms of queries and
keys, its cache the default, dynamic one; what has eight bits is compared with the faster of its two precisions.
llama.cpp is that of `gguf_peer`.

``bound`` is the share of what reading every weight once a token would allow, with the bandwidth of a sum over as many
bytes (``gigabytes_a_second``). Compiled steps stay in the folder vpoet-bench of the temporary files, for the next run.
"""

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_peer
import numpy as np
import torch

from vpoet.generate.compiled_step import StepCompiler
from vpoet.generate.decode import decode
from vpoet.generate.decoder import Build, Decoding
from vpoet.generate.model import load
from vpoet.generate.sampling import Sampling
from vpoet.generate.step import Step
from vpoet.media.video import Video
from vpoet.nn.attention import backend
from vpoet.nn.int8 import quantise
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.worlds.platformer.world import Platformer

CODES, PROMPT, ROUNDS = 8192, 22, 3
VOCABULARY = Vocabulary(64, (CODES,), "text", "video")
SIZES = {  # width, depth, heads, hidden, cells of 64 tokens to make
    "3m": (192, 4, 4, 512, 4),
    "30m": (512, 8, 8, 1408, 2),
    "120m": (768, 16, 12, 2048, 1),
}
GREEDY = Sampling(temperature=0)
GUIDED = Sampling(temperature=0, guidance=2.0)


def decoding_3m(_: float) -> dict[str, Any]:
    """3M parameters."""
    return _lines("3m", ("fp32", "bf16"))


def decoding_30m(_: float) -> dict[str, Any]:
    """30M parameters."""
    return _lines("30m", ("bf16",))


def decoding_120m(_: float) -> dict[str, Any]:
    """120M parameters."""
    return _lines("120m", ("int8", "fp32"))


def decoding_batch(_: float) -> dict[str, Any]:
    """3M parameters in bf16: eight documents at once, and one with guidance."""
    _prepare()
    many, guided, alone = (_Ours("3m", "bf16").rate(n, s) for n, s in ((8, GREEDY), (1, GUIDED), (1, GREEDY)))
    theirs = _peer("3m", torch.bfloat16, 8)
    return {
        "hugging_face": round(theirs),
        "compiled": round(many),
        "times_hugging_face": round(many / theirs, 1),
        "guidance_takes": round(alone / guided, 2),
    }


def decoding_start(_: float) -> dict[str, Any]:
    """Seconds of processor time until the first token of 3M parameters in bf16: compiling, then what was compiled."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        step = Step(_network("3m").to(torch.bfloat16), filtered=False, products=True)
        for name in ("cold", "warm"):
            before = os.times()
            StepCompiler()("3m", step, 1, 1, 1)
            found[name] = round(sum(os.times()[:4]) - sum(before[:4]), 2)
    return found


def compiled_beside_a_busy_core(_: float) -> dict[str, Any]:
    """30M parameters in bf16: tokens a second of a step that was compiled beside another job, and of one that was not,
    each measured by itself, and how many times as slow the first is."""
    _prepare()
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name in ("busy", "idle"):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            ours = _Ours("30m", "bf16")
            beside = [subprocess.Popen([sys.executable, "-c", "while True: pass"])] if name == "busy" else []
            ours.rate()  # compiles
            for job in beside:
                job.kill()
                job.wait()
            found[name] = round(ours.rate())
    return found | {"times_as_slow": round(found["idle"] / found["busy"], 2)}


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


def _prepare() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    os.environ["XDG_CACHE_HOME"] = str(Path(tempfile.gettempdir(), "vpoet-bench"))


def _lines(size: str, precisions: tuple[str, ...]) -> dict[str, Any]:
    _prepare()
    theirs = {name: _peer(size, dtype, 1) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "hugging_face": {name: round(rate) for name, rate in theirs.items()},
    }
    for precision in precisions:
        found[precision] = _line(size, precision, theirs.get(precision, max(theirs.values())))
    return found


def _network(size: str) -> Transformer:
    width, depth, heads, hidden, _ = SIZES[size]
    torch.manual_seed(0)
    sizes = TransformerConfig(
        width=width, depth=depth, heads=heads, kv_heads=heads, hidden=hidden, visual_groups=1
    )  # fmt: skip
    return Transformer(sizes, VOCABULARY).eval().requires_grad_(False)


class _Ours:
    """A network of ours in a precision."""

    def __init__(self, size: str, precision: str) -> None:
        self.name, self.size, self.transformer = f"{size}-{precision}", size, _network(size)
        self.dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        self.compiler = StepCompiler()
        if precision == "int8":
            quantise(self.transformer)
        else:
            self.transformer.to(self.dtype)

    @property
    def bytes(self) -> int:
        """That a token reads."""
        parts = self.transformer.blocks, self.transformer.visual.logits_of
        return sum(w.numel() * w.element_size() for part in parts for w in (*part.parameters(), *part.buffers()))

    def rate(self, count: int = 1, sampling: Sampling = GREEDY, compiled: bool = True) -> float:
        build: Build | None = (lambda step, *shape: self.compiler(self.name, step, *shape)) if compiled else None
        documents = [_document(self.size) for _ in range(count)]
        attention = backend("sdpa", torch.device("cpu"), self.dtype)
        decoding = Decoding(transformer=self.transformer, attention=attention, build=build)

        def work() -> None:
            decode(decoding, documents, range(count), sampling)

        work()  # compiles, or loads
        return _rate(count * 64 * SIZES[self.size][-1], work)


def _line(size: str, precision: str, peer: float) -> dict[str, Any]:
    llama_cpp = gguf_peer.tokens_a_second(_network(size), precision, PROMPT, 64 * SIZES[size][-1], ROUNDS)
    ours = _Ours(size, precision)
    fast, bandwidth = ours.rate(), _bandwidth(ours.bytes)
    line = {
        "eager": round(ours.rate(compiled=False)),
        "compiled": round(fast),
        "times_hugging_face": round(fast / peer, 1),
        "bound": round(fast * ours.bytes / bandwidth, 2),
        "gigabytes_a_second": round(bandwidth / 1e9, 1),
    }
    if isinstance(llama_cpp, str):
        return line | {"llama_cpp": llama_cpp}
    return line | {"llama_cpp": round(llama_cpp), "times_llama_cpp": round(fast / llama_cpp, 2)}


def _peer(size: str, dtype: torch.dtype, count: int) -> float:
    """Tokens a second of Hugging Face's `generate`."""
    gc.collect()
    theirs, tokens = _hugging_face(_network(size)).to(dtype), 64 * SIZES[size][-1]
    return _rate(count * tokens, lambda: _generate(theirs, count, tokens))


def _document(size: str) -> Document:
    """Nine tokens of structure and text pieces before a clip of 8x8 codes a cell: a prompt of 22 tokens."""
    codes = np.zeros((SIZES[size][-1], 8, 8), np.int32)
    return TABLE["t2v" if len(codes) > 1 else "t2i"].document(
        Sample(np.arange(12, dtype=np.int32), codes, 8 if len(codes) > 1 else 0)
    )


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
def _generate(theirs: Any, count: int, tokens: int) -> None:
    prompt = torch.arange(PROMPT).repeat(count, 1)
    theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip


def _rate(tokens: int, work: Callable[[], Any]) -> float:
    """Tokens a second, the best of the rounds."""
    seconds = []
    for _ in range(ROUNDS):
        began = gguf_peer.now()
        work()
        seconds.append(gguf_peer.now() - began)
    return tokens / min(seconds)


def _bandwidth(size: int) -> float:
    """Bytes a second of a sum over as many bytes."""
    values = torch.ones(size // 4)
    best = float("inf")
    for _ in range(20):
        began = gguf_peer.now()
        values.sum()
        best = min(best, gguf_peer.now() - began)
    return size / best
