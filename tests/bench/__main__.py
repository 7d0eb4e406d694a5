"""Speed of the parts: ``python tests/bench [--seconds N] [NAME ...]``. One JSON line each.

What is measured stands at the top of the module that measures it. Without names all but the last ones that ``--help``
lists: they take long, or need what is not installed everywhere. Of `platformer` and `packing` it is the best of five
runs, as other work only slows.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import asked
import attention
import bucket
import control
import copies
import curation
import decoding
import dirtied
import edits
import engines
import environments
import estimates
import film
import guessing
import ingesting
import interactive
import judge
import long_lists
import many_clips
import numpy as np
import page
import painting
import play
import rewarded
import saving
import serving
import streaming
import subject
import throughput
import tokenizer
import training
import world

from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import build
from vpoet.sequence.packing import BestFit, pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.worlds.platformer.world import Platformer

ROUNDS = 5


def main() -> None:
    fast = {benchmark.__name__: benchmark for benchmark in (platformer, packing)}
    coding = (engines.training_engines, tokenizer.video_tokenizer, tokenizer.video_tokenizer_quality, painting.painting)
    pretraining = (
        attention.attention_cost,
        attention.attention_products,
        attention.attention_windows,
        training.packing_step,
        training.logits_memory,
        throughput.training_throughput,
        saving.saving,
        saving.laying_out,
        estimates.estimates,
        streaming.packs_ahead,
    )
    sampling = (
        decoding.decoding_3m,
        decoding.decoding_30m,
        decoding.decoding_120m,
        decoding.decoding_batch,
        decoding.decoding_start,
        decoding.compiled_beside_a_busy_core,
        decoding.precision,
        copies.copies,
        control.control_decoding,
        edits.edits_identity,
        edits.edits_ground,
        edits.edits_controlled,
        edits.edits_chain,
        subject.subject,
        guessing.guessing,
        interactive.interactive,
        play.play_without_end,
        play.play_futures,
        play.play_pace,
        serving.serving,
        judge.judge_accuracy,
        world.playground,
        world.playground_judge,
        curation.motion_truth,
        curation.duplicates,
    )
    asked_for = (  # by name alone
        tokenizer.video_tokenizer_peers,
        film.video_tokenizer_film,
        film.film_ingest,
        page.page_alone,
        page.page_throughput,
        page.page_tabs,
        rewarded.learned_from_rewards,
        long_lists.list_memory,
        long_lists.shard_list,
        bucket.bucket_waiting,
        many_clips.many_copies,
        many_clips.many_copies_100k,
        many_clips.many_copies_1m,
        ingesting.ingest_speed,
        ingesting.ray_speed,
        asked.asked_motion,
        dirtied.dirtied,
        environments.environment_judges,
    )
    slow: dict[str, Callable[[float], dict[str, Any]]] = {
        each.__name__: each for each in (*pretraining, *sampling, *coding, *asked_for)
    }
    names = [*fast, *slow]
    parser = argparse.ArgumentParser(prog="python tests/bench", description="Speed of the parts, one JSON line each.")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(names)}; all but the last {len(asked_for)} if none",
    )
    parser.add_argument("--seconds", type=float, default=40, help="of training for each network [40]")
    wanted = parser.parse_args()
    if unknown := sorted(set(wanted.names) - set(names)):
        parser.error(f"no benchmark {', '.join(unknown)}; choose from {', '.join(names)}")
    for name in wanted.names or names[: -len(asked_for)]:
        line = best_of_rounds(fast[name]) if name in fast else slow[name](wanted.seconds)
        print(json.dumps({"bench": name, **line, "python": platform.python_version()}), flush=True)


def best_of_rounds(benchmark: Callable[[], dict[str, float]]) -> dict[str, float]:
    rates = [benchmark() for _ in range(ROUNDS)]
    return {name: max(rate[name] for rate in rates) for name in rates[0]}


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
            sequence = build(TABLE["t2v"].document(sample), vocabulary)
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
