"""What attention over a pack costs, as the pack grows."""

import time
from typing import Any

import torch

from vpoet.nn.attention import Visibility, backend

DOCUMENT = 512
TOKENS = (4096, 8192, 16384, 32768)
HEADS, HEAD = 8, 64
ROUNDS = 3


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
