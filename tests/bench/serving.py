"""Requests that several people make: ``serving``, eight of them that arrive at random, by the model that ships.

``one_after_another`` and ``together`` are the seconds in which all eight are done (`vpoet.generate.batching`), and
``first_frame_ms`` that from one request alone to its first frame, in processor time, the best of `ROUNDS`; the clips
are the same bit for bit. ``share`` is the second over the first. ``in_one_batch`` are those of a batch of `vpoet
sample`, whose eight are all there from the beginning, and ``least_share`` what would be theirs.

What passes cannot share is attention, each request's through its own cache: ``attention_apart_ms`` is that of eight
requests with guidance in one layer, one after the other, and ``attention_at_once_ms`` that of one call for them all, on
one cache; by how many tokens a pass brings of each. ``parts`` are the shares of the processor time of all eight
together, under a profiler.
"""

import cProfile
import pstats
import time
from typing import Any

import numpy as np
import torch

from vpoet.generate.batching import Continuous, OneByOne
from vpoet.generate.growing import Filled, Growing
from vpoet.generate.model import Model, Request, load
from vpoet.generate.rollout import roll
from vpoet.nn.cache import TILE, attend_ahead

REQUESTS, ROUNDS = 8, 3
PROMPT = "a robot walks right on grass"


def serving(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load(device="cpu")
    (alone, clips), (shared, same) = (best(model, turns) for turns in (OneByOne, lambda: Continuous(model)))
    assert all(np.array_equal(a, b) for a, b in zip(clips, same, strict=True))
    batch = min(in_one_batch(model) for _ in range(ROUNDS))
    began = time.process_time()
    turns = Continuous(model)
    turns.join(Growing(model, Request(prompt=PROMPT), model.sampling()))
    while not turns.step():
        pass
    first = time.process_time() - began
    return {
        "requests": REQUESTS, "one_after_another": round(alone, 2), "together": round(shared, 2),
        "share": round(shared / alone, 2), "in_one_batch": round(batch, 2), "least_share": round(batch / alone, 2),
        "first_frame_ms": round(1000 * first), **attention(model),
        "parts": parts(model),
    }  # fmt: skip


def parts(model: Model) -> dict[str, float]:
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    run(model, Continuous(model), 0)
    profile.disable()
    taken: Any = pstats.Stats(profile)
    whole = taken.total_tt

    def share(file: str, name: str) -> float:
        those = [each[3] for (path, _, what), each in taken.stats.items() if path.endswith(file) and name in what]
        return sum(those) / whole

    found = {
        "attention": share("~", "scaled_dot_product_attention"), "linear maps": share("nn/steady.py", "forward"),
        "pixels": share("tokenizer/network.py", "decode"),
    }  # fmt: skip
    return {name: round(value, 2) for name, value in [*found.items(), ("all else", 1 - sum(found.values()))]}


@torch.inference_mode()
def attention(model: Model) -> dict[str, Any]:
    """Milliseconds of a processor, the best of `ROUNDS`."""
    config, random = model.bundle.transformer.config, torch.Generator().manual_seed(0)
    apart, at_once = {}, {}
    for width in (4, 8, 16):
        for calls, found in ((REQUESTS, apart), (1, at_once)):
            slots = 2 * REQUESTS // calls
            places, reach = torch.arange(200, 200 + width).repeat(slots, 1), torch.arange(TILE)
            shape = calls, slots, config.kv_heads, TILE, config.head  # a cache of its own for each call
            caches = zip(*torch.randn(2, *shape, generator=random), strict=True)
            through = [attend_ahead([keys], [values], places, reach) for keys, values in caches]
            q = torch.randn(slots * width, config.heads, config.head, generator=random)
            k, v = torch.randn(2, slots * width, config.kv_heads, config.head, generator=random)
            took = []
            for _ in range(10 * ROUNDS):
                began = time.process_time()
                for each in through:
                    each(0, q, k, v)
                took.append(time.process_time() - began)
            found[width] = round(1000 * min(took), 2)
    return {"attention_apart_ms": apart, "attention_at_once_ms": at_once}


def best(model: Model, make: Any) -> tuple[float, list[Any]]:
    """Seconds, and the clips."""
    rounds, clips = [], list[Any]()
    for seed in range(ROUNDS):
        turns, began = make(), time.process_time()
        clips = run(model, turns, seed)
        rounds.append(time.process_time() - began)
    return min(rounds), clips


def in_one_batch(model: Model) -> float:
    """Seconds."""
    began = time.process_time()
    rollouts = [model.rollout(Request(prompt=PROMPT, seed=i)) for i in range(REQUESTS)]
    for _, _, pieces in roll(model, rollouts, model.sampling()):
        for _ in pieces:
            pass
    return time.process_time() - began


def run(model: Model, turns: Any, seed: int) -> list[Any]:
    """The clips of all requests, each of which joins at a random pass."""
    random = np.random.default_rng(seed)
    todo = [Growing(model, Request(prompt=PROMPT, seed=i), model.sampling()) for i in range(REQUESTS)]
    everyone, clips = [*todo], {each: [] for each in todo}
    while todo or len(turns):
        if todo and (not len(turns) or random.random() < 0.2):
            turns.join(todo.pop(0))
        for growing, part in turns.step():
            if isinstance(part, Filled):
                clips[growing].append(part.frames)
    return [np.concatenate(clips[each]) for each in everyone]
