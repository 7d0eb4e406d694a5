"""What attention over a pack costs, as the pack grows, and by how it is computed."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vpoet.nn.attention import backend
from vpoet.nn.visibility import Attend, Visibility

DOCUMENT = 512
TOKENS = (4096, 8192, 16384, 32768)
HEADS, HEAD = 8, 64
ROUNDS = 3
SINK, FRAME = 40, 66
"""Tokens: a prompt; an action, an outcome and 64 codes."""


def attention_cost(_: float) -> dict[str, Any]:
    """Milliseconds (of the processor, one thread, the best of three runs) of attention over documents of 512 tokens,
    forward and with the backward pass, by the tokens of the pack; and how many times the cost of 4,096 tokens they
    are, over how many times the sum of squared lengths is: 1 where the cost is in proportion."""
    cpu = torch.device("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for name, backward in (("forward", False), ("both", True)):
        costs = {}
        for total in TOKENS:
            visibility = Visibility((DOCUMENT,) * (total // DOCUMENT), (0,) * (total // DOCUMENT))
            q, k, v = (torch.randn(total, HEADS, HEAD, requires_grad=backward) for _ in range(3))
            attend = backend("sdpa", cpu, torch.float32)(visibility, cpu)
            costs[total] = float("inf")
            for _ in range(ROUNDS):
                began = time.process_time()
                out = attend(0, q, k, v)
                if backward:
                    torch.autograd.grad(out.sum(), (q, k, v))
                costs[total] = min(costs[total], time.process_time() - began)
        first = TOKENS[0]
        figures[f"{name}_ms"] = {str(total): round(1000 * cost) for total, cost in costs.items()}
        figures[f"{name}_in_proportion"] = {
            str(total): round(cost / costs[first] * first / total, 2) for total, cost in costs.items()
        }
    torch.set_num_threads(threads)
    return figures


def attention_products(_: float) -> dict[str, Any]:
    """Milliseconds (likewise, forward and backward) of training in bf16 on packs of about 1,400 tokens, 4 heads of 64,
    by the length of their documents: by PyTorch's fused kernel, and by products of matrices."""
    cpu = torch.device("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    for length, count in ((82, 17), (345, 4), (690, 2), (1380, 1)):
        visibility = Visibility((length,) * count, (0,) * count)
        q, k, v = (torch.randn(length * count, 4, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        costs = {}
        for name in ("sdpa", "products"):
            attend = backend(name, cpu, torch.bfloat16)(visibility, cpu)
            costs[name] = float("inf")
            for _ in range(4 * ROUNDS):
                began = time.process_time()
                torch.autograd.grad(attend(0, q, k, v).sum(), (q, k, v))
                costs[name] = min(costs[name], time.process_time() - began)
        figures[str(length)] = {name: round(1000 * cost, 1) for name, cost in costs.items()}
        figures[str(length)]["times"] = round(costs["sdpa"] / costs["products"], 2)
    torch.set_num_threads(threads)
    return figures


def attention_windows(_: float) -> dict[str, Any]:
    """Microseconds a token (likewise, of one document, forward and backward) with a window of so many frames of 66
    tokens behind a sink of 40, and without one, by the tokens of the document; and in bf16, with as many, how many
    times as fast products are as sdpa."""
    cpu = torch.device("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    ratios: dict[str, float] = {}
    for frames in (8, 16, 32, 0):
        costs = {}
        for frame_count in (60, 120, 240):
            length = SINK + frame_count * FRAME
            at = np.arange(length)
            until = np.where(at < SINK, length, SINK + ((at - SINK) // FRAME + frames) * FRAME).astype(np.int32)
            visibility = Visibility((length,), (0,), (until,) if frames else None)
            q, k, v = (torch.randn(length, 4, HEAD, requires_grad=True) for _ in range(3))
            costs[length] = _seconds(backend("sdpa", cpu, torch.float32)(visibility, cpu), q, k, v)
            if frames:
                half = [x.detach().bfloat16().requires_grad_() for x in (q, k, v)]
                sdpa, products = (
                    _seconds(backend(name, cpu, torch.bfloat16)(visibility, cpu), *half)
                    for name in ("sdpa", "products")
                )
                ratios[f"{frames}, {length}"] = round(sdpa / products, 2)
        figures[str(frames) if frames else "none"] = {
            str(length): round(1e6 * cost / length, 1) for length, cost in costs.items()
        }
    torch.set_num_threads(threads)
    figures["products_over_sdpa_bf16"] = ratios
    return figures


def _seconds(attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> float:
    """Of the processor, forward and backward; the best of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        torch.autograd.grad(attend(0, q, k, v).float().sum(), (q, k, v))
        best = min(best, time.process_time() - began)
    return best
