"""Requests that several people make: ``serving``, eight of them that arrive at random, by the model that ships.

``one_after_another`` and ``together`` are the seconds in which all eight are done (`vpoet.generate.batching`), and
``first_frame_ms`` that from one request alone to its first frame, in processor time, the best of `ROUNDS`; the clips
are the same bit for bit. ``share`` is the second over the first.
"""

import time
from typing import Any

import numpy as np
import torch

from vpoet.generate.batching import Continuous, OneByOne
from vpoet.generate.growing import Filled, Growing
from vpoet.generate.model import Model, Request, load

REQUESTS, ROUNDS = 8, 3
PROMPT = "a robot walks right on grass"


def serving(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load(device="cpu")
    (alone, clips), (shared, same) = (best(model, turns) for turns in (OneByOne, lambda: Continuous(model)))
    assert all(np.array_equal(a, b) for a, b in zip(clips, same, strict=True))
    began = time.process_time()
    turns = Continuous(model)
    turns.join(Growing(model, Request(prompt=PROMPT), model.sampling()))
    while not turns.step():
        pass
    first = time.process_time() - began
    return {
        "requests": REQUESTS, "one_after_another": round(alone, 2), "together": round(shared, 2),
        "share": round(shared / alone, 2), "first_frame_ms": round(1000 * first),
    }  # fmt: skip


def best(model: Model, make: Any) -> tuple[float, list[Any]]:
    """Seconds, and the clips."""
    rounds = []
    for seed in range(ROUNDS):
        random, turns = np.random.default_rng(seed), make()
        began = time.process_time()
        todo = [Growing(model, Request(prompt=PROMPT, seed=i), model.sampling()) for i in range(REQUESTS)]
        everyone, clips = [*todo], {each: [] for each in todo}
        while todo or len(turns):
            if todo and (not len(turns) or random.random() < 0.2):
                turns.join(todo.pop(0))
            for growing, part in turns.step():
                if isinstance(part, Filled):
                    clips[growing].append(part.frames)
        rounds.append(time.process_time() - began)
    return min(rounds), [np.concatenate(clips[each]) for each in everyone]
