"""A small world of tokens to train on, made without rendering: codes that follow a rule a model can learn. And
processes that train together."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vpoet.data.shards import ShardWriter, codes_to_npy
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.text import TextTokenizer
from vpoet.tokenizer.video import VideoTokenizer

COLOURS = ("red", "green", "blue", "white", "black")


@dataclass(frozen=True)
class Tokens:
    """Tokenizers and token shards in one folder."""

    folder: Path
    text: TextTokenizer
    video: VideoTokenizer
    vocabulary: Vocabulary

    def recipe(self, path: Path, **changes: object) -> Path:
        """A recipe of a run that takes seconds; ``changes`` are further top-level lines."""
        lines = {
            "run": path.with_suffix(""),
            "text": self.folder / "text.model",
            "video": self.folder / "video",
            "data": f"{{sources: [{{path: {self.folder / 'train'}}}], length: 128, lookahead: 8, "
            "tasks: {t2v: 2, i2v: 1, continuation: 1, t2i: 1}}",
            "heldout": f"[{{path: {self.folder / 'heldout'}}}]",
            "model": "{width: 32, depth: 2, heads: 4, kv_heads: 2, hidden: 48, visual_groups: 2}",
            "optimizer": "{lr: 1e-2, warmup: 2}",
            "batch": 4,
            "steps": 8,
            "evaluate_every": 4,
            "evaluate_packs": 3,
            "save_every": 3,
            "log_every": 2,
            **changes,
        }
        path.write_text("".join(f"{key}: {value}\n" for key, value in lines.items()))
        return path


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(0)
    captions = [f"a {a} ball rolls over a {b} floor" for a in COLOURS for b in COLOURS]
    text = TextTokenizer.train(captions, folder / "text.model", 300)
    torch.manual_seed(0)
    video = VideoTokenizer(
        Autoencoder(
            AutoencoderConfig(
                quantiser=QuantiserConfig(levels=[4, 4, 3]),
                widths=[8, 8, 8],
                encoder_blocks=[1, 1, 1],
                decoder_blocks=[1, 1, 1],
            )
        )
    )
    video.save(folder / "video")
    for split, count in (("train", 60), ("heldout", 10)):
        with ShardWriter(folder / split, kind="tokens", samples_per_shard=20, tokenizer=video.hash) as writer:
            for i in range(count):
                first = int(random.integers(48))
                codes = (first + np.arange(3 * 2 * 2).reshape(3, 2, 2)) % 48
                info = {"caption": captions[i % len(captions)], "fps": 8, "grid": [3, 2, 2], "tokenizer": video.hash}
                writer.write(f"{split}-{i:04}", {"codes.npy": codes_to_npy(codes.astype(np.int32)), "json": info})
        writer.manifest().save(folder / split)
    vocabulary = Vocabulary(text.size, grouped(video.levels, 2), text.hash, video.hash)
    return Tokens(folder, text, video, vocabulary)


@pytest.fixture(scope="session")
def workers(together: Callable[..., list[str]]) -> Callable[..., list[dict[str, Any]]]:
    """Run a worker of this folder in ``world`` processes of one group, and read the JSON that each prints at the end:
    ``workers("deepspeed_worker.py", 2, "0-fp32")``."""

    def run(worker: str, world: int, *arguments: str) -> list[dict[str, Any]]:
        printed = together(Path(__file__).parent / worker, world, *arguments)
        return [json.loads(out.splitlines()[-1]) for out in printed]

    return run
