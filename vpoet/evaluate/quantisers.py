"""The same small autoencoder trained with one quantiser or another, and scored: what `vpoet compare-quantisers` runs.

A trial is one variant, codebook and seed: size tiny, 4x8x8, steps of 8 random windows of 9 frames of 32x32, which are
the same for all variants of a seed.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.clip_stream import ClipShape, ClipStream
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.loss import LossConfig
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining

VARIANTS: dict[str, QuantiserConfig] = {
    "fsq": QuantiserConfig(kind="fsq"),
    "lfq": QuantiserConfig(kind="lfq"),
    "lfq-without-entropy": QuantiserConfig(kind="lfq", entropy=0.0),
    "vq": QuantiserConfig(kind="vq"),
    "fsq-with-images": QuantiserConfig(kind="fsq"),
    "fsq-even": QuantiserConfig(kind="fsq"),
}
FRAMES, SIZE, BATCH, IMAGES, EVENNESS = 9, 32, 8, 8, 0.2
SCORED = 256
"""Windows that are drawn again and scored; the codes of all are counted."""
AT_ONCE = 100
HELD_OUT_SEED = 1_000_003


@dataclass(frozen=True)
class Trial:
    variant: str
    """One of `VARIANTS`."""
    codebook: int
    seed: int

    def recipe(self, steps: int, data: tuple[str, ...]) -> VideoTokenizerRecipe:
        """What is trained; ConfigError when there is no such codebook."""
        return VideoTokenizerRecipe(
            run="",
            data=list(data),
            frames=FRAMES,
            height=SIZE,
            width=SIZE,
            augment=True,
            model=AutoencoderConfig(size="tiny", quantiser=replace(VARIANTS[self.variant], codebook=self.codebook)),
            batch=BATCH,
            image_batch=IMAGES if self.variant == "fsq-with-images" else 0,
            loss=LossConfig(evenness=EVENNESS if self.variant == "fsq-even" else 0.0),
            steps=steps,
            seed=self.seed,
        )


def held_out_windows(folders: Sequence[Path], count: int) -> Frames:
    """Random windows uint8 [count, FRAMES, SIZE, SIZE, 3] to score on."""
    some = min(count, AT_ONCE)
    drawn = _batches(tuple(map(str, folders)), HELD_OUT_SEED, FRAMES, some, -(-count // some))
    return drawn.reshape(-1, *drawn.shape[2:])[:count]


def train(recipe: VideoTokenizerRecipe, held_out: Frames) -> dict[str, Any]:
    """Train, and score the averaged weights on windows [N, FRAMES, SIZE, SIZE, 3]; CPU seconds are of training."""
    streams = [_batches(tuple(recipe.data), recipe.seed, FRAMES, BATCH, recipe.steps)]
    if recipe.image_batch:
        streams.append(_batches(tuple(recipe.data), recipe.seed, 1, recipe.image_batch, recipe.steps))
    training = TokenizerTraining(recipe)
    began = time.process_time()
    for step in zip(*streams, strict=True):
        values = training.update(*step)
    seconds = time.process_time() - began
    coder = VideoTokenizer(training.average)
    codes = CodeStatistics(coder.codebook_size)
    for start in range(0, len(held_out), AT_ONCE):
        codes.update(coder.encode_batch(held_out[start : start + AT_ONCE]))
    return {
        "step": training.step,
        "codes": codes.size,
        "held_out_codes": codes.total,
        "used": codes.used,
        "use": codes.usage,
        "uniform_use": codes.uniform_usage,
        "use_of_uniform": codes.usage / codes.uniform_usage,
        "entropy_bits": codes.entropy,
        **_scores(coder, held_out[:SCORED], ""),
        **_scores(coder, held_out[:SCORED, :1], "image_"),
        "loss": values["loss"],
        "cpu_seconds": seconds,
    }


def _scores(coder: VideoTokenizer, clips: Frames, prefix: str) -> dict[str, float]:
    pairs = list(zip(clips, coder.decode_batch(coder.encode_batch(clips)), strict=True))
    measures = {"psnr": psnr, "ssim": ssim}
    return {f"{prefix}{name}": float(np.mean([of(*pair) for pair in pairs])) for name, of in measures.items()}


@functools.cache
def _batches(folders: tuple[str, ...], seed: int, frames: int, batch: int, number: int) -> Frames:
    """Random windows uint8 [number, batch, frames, SIZE, SIZE, 3], drawn once for all the trials that take them."""
    stream = ClipStream(folders, ClipShape(frames, SIZE, SIZE, augment=True), batch=batch, seed=seed)
    return np.stack(list(islice(stream, number)))
