"""llama.cpp with the weights of one of our networks: its own GGUF file, written and run here.

It takes two packages that vpoet doesn't depend on: ``pip install gguf llama-cpp-python``, the second of which compiles
llama.cpp for this machine. Where they are missing, `tokens_a_second` says so.

The file holds llama.cpp's ``qwen3``, Llama's block with norms of queries and keys, without a tokenizer: 8,192 codes.
"""

import ctypes
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet.nn.transformer import Transformer

TYPES = {"fp32": "F32", "bf16": "BF16", "int8": "Q8_0"}
"""What llama.cpp calls our precisions."""


def tokens_a_second(ours: Transformer, precision: str, prompt: int, tokens: int, rounds: int) -> float | str:
    """Greedy tokens a second by `now`, prompt and all, the best of so many rounds; or what is missing."""
    try:
        import gguf
        import llama_cpp as cpp
    except ImportError as error:
        return f"left out: {error}; pip install gguf llama-cpp-python"
    silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    cpp.llama_log_set(silent, None)
    cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        _write(gguf, ours, precision, path)
        reading = cpp.llama_model_default_params()
        reading.use_extra_bufts = False  # AMX, which has no part in one token, crashed on Q8_0 (0.3.36)
        model = cpp.llama_model_load_from_file(str(path).encode(), reading)
        assert model, f"llama.cpp does not read {path}"
        settings = cpp.llama_context_default_params()
        settings.n_ctx = prompt + tokens
        settings.n_threads = settings.n_threads_batch = torch.get_num_threads()
        context = cpp.llama_init_from_model(model, settings)
        best = min(_seconds(cpp, context, len(ours.codes[0].weight), prompt, tokens) for _ in range(rounds))
        cpp.llama_free(context)
        cpp.llama_model_free(model)
    return tokens / best


def now() -> float:
    """Seconds by the clock; of one thread, which other work can only slow, by the processor's time."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def _seconds(cpp: Any, context: Any, codes: int, prompt: int, tokens: int) -> float:
    began = now()
    cpp.llama_memory_clear(cpp.llama_get_memory(context), True)
    given = list(range(prompt))
    for _ in range(tokens):
        ids = (ctypes.c_int32 * len(given))(*given)  # a batch points at them and does not keep them
        failed = cpp.llama_decode(context, cpp.llama_batch_get_one(ids, len(given)))
        assert not failed
        logits = np.ctypeslib.as_array(cpp.llama_get_logits_ith(context, -1), shape=(codes,))
        given = [int(logits.argmax())]
    return now() - began


def _write(gguf: Any, ours: Transformer, precision: str, path: Path) -> None:
    config, kind = ours.config, getattr(gguf.GGMLQuantizationType, TYPES[precision])
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_block_count(config.depth)
    writer.add_context_length(4096)
    writer.add_embedding_length(config.width)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head)
    writer.add_value_length(config.head)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(ours.codes[0].weight))
    writer.add_tokenizer_model("none")
    for name, weight in _names(ours).items():
        values = weight.detach().float().numpy()
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _names(ours: Transformer) -> dict[str, Any]:
    """Our weights under llama.cpp's names."""
    weights = {"token_embd": ours.codes[0].weight, "output_norm": ours.norm.weight}
    weights["output"] = ours.visual.logits_of[0].weight
    for i, block in enumerate(ours.blocks):
        q, k, v = block.attention.qkv.weight.chunk(3)
        gate, up = block.mlp.up.weight.chunk(2)
        layer = {"attn_q": q, "attn_k": k, "attn_v": v, "attn_output": block.attention.out.weight}
        layer |= {"attn_q_norm": block.attention.q_norm.weight, "attn_k_norm": block.attention.k_norm.weight}
        layer |= {"ffn_gate": gate, "ffn_up": up, "ffn_down": block.mlp.out.weight}
        layer |= {"attn_norm": block.attention_norm.weight, "ffn_norm": block.mlp_norm.weight}
        weights |= {f"blk.{i}.{name}": weight for name, weight in layer.items()}
    return {f"{name}.weight": weight for name, weight in weights.items()}
