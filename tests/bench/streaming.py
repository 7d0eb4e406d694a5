"""What packs cost the process that trains: made where they are asked for, and made ahead by a process of their own.

Milliseconds of the processor a pack, of all threads of the training process: what its interpreter cannot do in that
time. Clips of 2 to 5 x 8 x 8 codes with captions, the best of three rounds. ``first_pack_s`` is the start of the other
process: until its first pack is there, by the clock.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.data.shards import ShardWriter
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(300, (320, 200), "text", "visual")
PACKS, ROUNDS = 40, 3


def spell(text: str) -> list[int]:
    return list(text.encode())


def packs_ahead(_: float) -> dict[str, Any]:
    """See above."""
    random = np.random.default_rng(0)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        with ShardWriter(Path(folder), kind="tokens", samples_per_shard=500, tokenizer="visual") as writer:
            for i in range(1000):
                codes = random.integers(0, 64000, (random.integers(2, 6), 8, 8), dtype=np.int32)
                info = {"caption": f"clip number {i}", "fps": 8.0, "tokenizer": "visual"}
                writer.write(f"clip-{i:04d}", {"codes.npy": codes, "json": info})
        writer.manifest().save(folder)
        for length in (4096, 16384):
            config = StreamConfig(sources=[Source(path=folder)], tasks={"t2v": 1.0}, length=length)
            for name, prefetch in (("here", 0), ("ahead", 2)):
                documents = Documents(config, vocabulary=VOCABULARY, text=spell, seed=0)
                began = time.perf_counter()
                with PackStream(documents, lanes=1, prefetch=prefetch) as stream:
                    next(stream)
                    if prefetch:
                        figures["first_pack_s"] = round(time.perf_counter() - began, 2)
                    figures[f"{name}_{length}_ms"] = min(_milliseconds(stream) for _ in range(ROUNDS))
    return figures


def _milliseconds(stream: PackStream) -> float:
    began = time.process_time()
    for _ in range(PACKS):
        next(stream)
    return round(1000 * (time.process_time() - began) / PACKS, 2)
