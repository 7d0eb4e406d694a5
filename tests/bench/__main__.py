"""Speed of the parts: ``python tests/bench``. One JSON line each; the best of five runs, as other work only slows."""

import json
import platform
import time
from collections.abc import Callable

import numpy as np

from vpoet.data.worlds.platformer import Platformer
from vpoet.sequence.document import build
from vpoet.sequence.packing import BestFit, pack
from vpoet.sequence.tasks import TABLE, Sample
from vpoet.sequence.vocabulary import Vocabulary

ROUNDS = 5


def main() -> None:
    for benchmark in (platformer, packing):
        rates = [benchmark() for _ in range(ROUNDS)]
        best = {name: max(rate[name] for rate in rates) for name in rates[0]}
        print(json.dumps({"bench": benchmark.__name__, **best, "python": platform.python_version()}), flush=True)


def platformer() -> dict[str, float]:
    """Clips of 17 frames of 64x64 that one process draws in a second."""
    world = Platformer()
    return {"clips_per_second": per_second(20, lambda: [world.clip(seed) for seed in range(20)])}


def packing() -> dict[str, float]:
    """Documents of a caption and a clip's codes, built and laid into rows of 4096 tokens, and how full the rows get."""
    random = np.random.default_rng(0)
    vocabulary = Vocabulary(512, (64000,), "text", "video")
    samples = [
        Sample(random.integers(0, 512, random.integers(4, 24)), random.integers(0, 64000, (t, 8, 8)), 8)
        for t in random.integers(2, 6, 400)
    ]
    filled = []

    def work() -> None:
        fit: BestFit = BestFit(4096, 64)
        for sample in samples:
            sequence = build(TABLE["t2v"].document(sample, 0), vocabulary)
            fit.add(len(sequence), sequence)
            if fit.full:
                filled.append(1 - pack(fit.take(), 4096).padding / 4096)

    rate = per_second(len(samples), work)
    return {"documents_per_second": rate, "filled": round(float(np.mean(filled)), 4)}


def per_second(count: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return round(count / (time.perf_counter() - began), 1)


if __name__ == "__main__":
    main()
