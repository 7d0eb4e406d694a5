"""Play that goes on for ever: milliseconds a frame near its beginning and 10,000 frames later, and the memory it holds.

A network of random weights (4 blocks of width 192), frames of 8x8 codes of 1,024, a window of 16 frames. Processor
time, one thread, the best of three stretches of ten frames; the two places are timed in turn.
"""

import time
from typing import Any

import numpy as np
import torch

from vpoet.generate.decoder import Decoding
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.nn.attention import backend
from vpoet.nn.transformer import Transformer, TransformerConfig
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.vocabulary import Vocabulary

WINDOW, LATER, STRETCH, ROUNDS = 16, 10_000, 10, 3
SPACE = ActionSpace(names=["left", "right", "jump", "climb"])


def play_without_end(_: float) -> dict[str, Any]:
    """One token a pass, so that each frame takes as many passes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = TransformerConfig(width=192, depth=4, heads=4, kv_heads=2, hidden=512)
    transformer = Transformer(sizes, SPACE.vocabulary(Vocabulary(512, (32, 32), "text", "video"))).eval()
    decoding = Decoding(
        transformer=transformer, attention=backend("sdpa", torch.device("cpu"), torch.float32), window=WINDOW
    )
    scene = Scene(fps=8, grid=(8, 8), actions=1)
    soon = PlayDecoder(decoding, scene, [np.arange(12, dtype=np.int32)], length=2048)
    soon.step(None, [np.random.default_rng(0)])
    _frames(soon, WINDOW)
    late = soon.fork()
    late._cache.frames += LATER  # what lies in the cache costs the same, whatever it is
    costs = {"soon": float("inf"), "late": float("inf")}
    for _ in range(ROUNDS):
        for name, decoder in (("soon", soon), ("late", late)):
            began = time.process_time()
            _frames(decoder, STRETCH)
            costs[name] = min(costs[name], (time.process_time() - began) / STRETCH)
    held = sum(x.nbytes for x in (*late._cache.keys, *late._cache.values))
    torch.set_num_threads(threads)
    return {
        "milliseconds_a_frame": {name: round(1000 * cost, 1) for name, cost in costs.items()},
        "late_over_soon": round(costs["late"] / costs["soon"], 3),
        "cache_megabytes": round(held / 1e6, 2),
        "frames": late.frames,
    }


def _frames(decoder: PlayDecoder, count: int) -> None:
    for _ in range(count):
        decoder.step(np.full((1, 1), 1, np.int32), [np.random.default_rng(decoder.frames)])
