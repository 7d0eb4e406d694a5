"""How long a step of each training takes here: real steps of the real networks, in as many processes as will train."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from vpoet.arrays import Frames
from vpoet.data.workers import Progress, share_out
from vpoet.devices import pick
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary, grouped
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining
from vpoet.training.engine.plain import TorchEngine
from vpoet.training.loss import PackLoss
from vpoet.training.meter import matmul_peak
from vpoet.training.recipe import PretrainConfig

PIECES, WORDS = 512, 12
"""Pieces of text that are counted with before there is a text tokenizer, and those of a caption."""
FASTER = 1.2
"""A product in bf16 has to be so many times as fast as in fp32 for training in it to be tried at all."""
LEAST, MOST = 3, 4.0
"""Times that something is done to be timed, and seconds after which it is enough."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What is tried: in each process its share."""

    video: VideoTokenizerRecipe | None
    """Of the video tokenizer to be trained; None: it is ``given``."""
    given: str
    """The folder of a video tokenizer."""
    transformer: PretrainConfig
    clips: Frames
    """uint8 [B, T, H, W, 3]: this process's share of a step of the video tokenizer."""
    threads: int


@dataclass(frozen=True)
class Rates:
    """Seconds, of one process among those that work at the same time."""

    encode: float
    """A clip to codes."""
    video: dict[str, float]
    """A step of the video tokenizer, by precision; empty: none is trained."""
    packs: dict[str, float]
    """A pack of the transformer, by precision."""
    cells: tuple[int, int, int]
    """Of a clip: [t, h, w] codes."""
    levels: tuple[int, ...]
    """Of a code (`vpoet.tokenizer.contract.Tokenizer.levels`)."""
    causal: bool


def tried_together(trial: Trial, processes: int) -> Rates:
    """The rates of the slowest of so many processes."""
    rates = [rate for _, rate in share_out(tried, [trial] * processes, processes, lambda jobs, parts: None)]
    return replace(
        rates[0],
        encode=max(rate.encode for rate in rates),
        video={name: max(rate.video[name] for rate in rates) for name in rates[0].video},
        packs={name: max(rate.packs[name] for rate in rates) for name in rates[0].packs},
    )


def tried(trial: Trial, progress: Progress) -> Rates:
    """Steps of both trainings, timed in this process."""
    torch.set_num_threads(trial.threads)
    device = pick("auto")
    precisions = promising(device)
    video: dict[str, float] = {}
    if trial.video is None:
        tokenizer = VideoTokenizer.load(trial.given).to(device)
    else:
        training = None
        for name in precisions:
            training = TokenizerTraining(replace(trial.video, dtype=name, batch=len(trial.clips), compile=False))
            video[name] = timed(lambda one=training: one.update(trial.clips))  # type: ignore[misc]
        assert training is not None
        tokenizer = VideoTokenizer(training.average).to(device)
    encode = timed(lambda: tokenizer.encode(trial.clips[0]))
    cells = tokenizer.grid(*trial.clips.shape[1:4])
    packs = {name: _pack_seconds(trial.transformer, name, cells, tokenizer.levels) for name in precisions}
    return Rates(encode, video, packs, cells, tokenizer.levels, tokenizer.causal)


def promising(device: torch.device) -> list[str]:
    """The precisions that may be the fastest here: fp32, and bf16 if its products are faster, as measured."""
    peaks = {name: matmul_peak(device, dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    return ["fp32", "bf16"] if peaks["bf16"] > FASTER * peaks["fp32"] else ["fp32"]


def words_of(recipe: PretrainConfig, levels: tuple[int, ...]) -> Vocabulary:
    """The vocabulary that a recipe will have, about: there is no text tokenizer yet."""
    return Vocabulary(PIECES, grouped(levels, recipe.model.visual_groups), "", "", levels=levels)


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes: the median of a few, after one that nobody counts."""
    call()
    took: list[float] = []
    while len(took) < LEAST and sum(took) < MOST:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def _pack_seconds(recipe: PretrainConfig, dtype: str, cells: tuple[int, int, int], levels: tuple[int, ...]) -> float:
    """Of a forward and backward pass over a full pack, with its part of a step."""
    engine = replace(recipe.engine, name="torch", dtype=dtype)
    device = pick("auto")
    vocabulary = words_of(recipe, levels)
    module = PackLoss(
        Transformer(recipe.model, vocabulary), replace(recipe, engine=engine).attends(device), recipe.z_loss
    )
    trainer = TorchEngine(module, engine, recipe.optimizer)
    random = np.random.default_rng(0)
    documents = []
    while True:
        text, codes = random.integers(0, PIECES, WORDS), random.integers(0, int(np.prod(levels)), cells)
        sample = Sample(text.astype(np.int32), codes.astype(np.int32), 8)
        documents.append(build(TABLE["t2v"].document(sample), vocabulary))
        if sum(map(len, documents)) + len(documents[0]) > recipe.data.length:
            break
    batch = [PackTensors.of(pack(documents, recipe.data.length), device)]
    return timed(lambda: trainer.step(batch, lambda nats: nats.sum() / 1000, 1e-5))
