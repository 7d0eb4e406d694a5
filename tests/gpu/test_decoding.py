"""Decoding: captured steps give the bits of plain ones, and how near they come to what the card's memory allows."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from vpoet.generate.decode import decode
from vpoet.generate.decoder import Decoding
from vpoet.generate.graphed_step import Capture, GraphedSteps, Outputs, cuda_capture, cuda_fuse, rounded
from vpoet.generate.likelihood import likelihoods
from vpoet.generate.sampling import Sampling
from vpoet.nn.attention import backend
from vpoet.nn.cache import KVCache
from vpoet.nn.cache_attention import cache_backend
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(300, (256, 256), "text", "video")
SMALL = {"width": 512, "depth": 8, "heads": 8, "kv_heads": 2, "hidden": 1408}
ONE_BILLION = {"width": 2048, "depth": 16, "heads": 32, "kv_heads": 8, "hidden": 8192}
"""train/configs/1b.yaml."""


def called_again(call: Callable[[], Outputs]) -> tuple[Outputs, Callable[[], None]]:
    """A rehearsal's capture."""
    outputs = call()

    def replay() -> None:
        for output, new in zip(outputs, call(), strict=True):
            output.copy_(new)

    return outputs, replay


def capture_of(card: Any) -> Capture:
    return cuda_capture() if card.real else called_again


def network(card: Any, sizes: dict[str, int]) -> Transformer:
    torch.manual_seed(0)
    with torch.device(card.device):
        made = Transformer(card.network(**sizes), VOCABULARY)
    return made.eval().requires_grad_(False).to(card.half)


def clip(cells: int, side: int) -> Document:
    return TABLE["t2v"].document(Sample(np.arange(16, dtype=np.int32), np.zeros((cells, side, side), np.int32), 8))


def test_captured_steps(card: Any) -> None:
    """In the card's precision, by its fastest kernel and by sdpa; with guidance, alone and in a batch, guessing."""
    transformer, side = network(card, SMALL), card.pick(8, 2)
    attention = backend("sdpa", card.device, card.half)
    for name in ("auto", "sdpa"):
        through = cache_backend(name, card.device, card.half)
        steps = GraphedSteps(capture_of(card), through)

        def like(size: int, **sizes: Any) -> KVCache:
            """A cache that is read as far as the captured steps': kernels add in an order by how much they read."""
            return KVCache(size=rounded(size), **sizes | {"block": card.pick(rounded(1), sizes["block"])})

        plain = Decoding(transformer=transformer, attention=attention, through=through, memory=like)
        for guesses, batch in ((0, [clip(4, side)]), (0, [clip(3, side), clip(2, side)]), (3, [clip(2, side)])):
            how = replace(plain, guesses=guesses)
            wanted, found = (
                decode(each, batch, range(len(batch)), Sampling(guidance=2.0))
                for each in (how, replace(how, build=steps, memory=steps.cache))
            )
            same = all(
                one.document.equals(other.document) and np.array_equal(one.nats, other.nats)
                for one, other in zip(wanted, found, strict=True)
            )
            what = f"captured steps through the cache by {name}, {len(batch)} documents, {guesses} guesses"
            card.row(what, "the same bits" if same else "other codes", "the bits of plain steps", same)


def test_compiled_steps(card: Any) -> None:
    """Compiled and captured, they draw other codes in near ties, with nats that the model scores them by."""
    transformer = network(card, SMALL)
    attention = backend("sdpa", card.device, card.half)
    through = cache_backend("auto", card.device, card.half)
    steps = GraphedSteps(capture_of(card), through, cuda_fuse if card.real else lambda function: function)
    how = Decoding(transformer=transformer, attention=attention, through=through, build=steps, memory=steps.cache)
    (done,) = decode(how, [clip(2, card.pick(8, 2))], [0], Sampling(guidance=2.0))
    (score,) = likelihoods(transformer, [done.document], attention=attention, stride=(4, 8, 8), length=1)
    apart = abs(float(done.nats.mean()) - score.per_token.nats)
    card.row("nats per token of a compiled sample, against its score", f"{apart:.1e}", "within 0.05", apart <= 0.05)


def test_speed(card: Any) -> None:
    """1B parameters, one document with guidance: steps a second, and the share of what reading every weight and the
    cache once a step would allow."""
    transformer = network(card, ONE_BILLION)
    document = clip(card.pick(5, 2), card.pick(16, 2))
    attention, through = backend("sdpa", card.device, card.half), cache_backend("auto", card.device, card.half)
    plain = Decoding(transformer=transformer, attention=attention, through=through)
    ways: dict[str, tuple[Decoding, float, float]] = {"plain": (plain, 80, 250)}
    for name, fuse, least in (("captured", None, 400.0), ("compiled and captured", cuda_fuse, 800.0)):
        steps = GraphedSteps(capture_of(card), through, fuse if card.real else None)
        ways[name] = replace(plain, build=steps, memory=steps.cache), least, float("inf")
    weights = sum(w.nbytes for part in (transformer.blocks, transformer.visual) for w in part.parameters())
    config, length = transformer.config, document.codes().size
    cache = 2 * 2 * config.depth * config.kv_heads * config.head * length / 2 * card.half.itemsize
    for name, (how, least, most) in ways.items():
        work = partial(decode, how, [document], [0], Sampling(guidance=2.0))
        work()  # captures, and compiles
        rate = length / card.seconds(work, rounds=1)
        card.measured(f"1B decoding with guidance, {name}", rate, "steps/s", least, most)
    for name, bandwidth, least in (("a copy", card.bandwidth(), 0.6), ("the data sheet", card.sheet()[1], 0.5)):
        share = rate * (weights + cache) / bandwidth
        card.measured(f"1B decoding, compiled and captured: share of the bandwidth of {name}", share, "", least, 1.05)
