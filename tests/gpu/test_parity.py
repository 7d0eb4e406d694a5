"""The card computes what the CPU computes: logits and gradients, codes, samples."""

import copy
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import vpoet
from vpoet.errors import VpoetWarning
from vpoet.generate.model import Model, Request
from vpoet.nn.attention import backend
from vpoet.nn.nats import PackTensors
from vpoet.nn.transformer import Transformer
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.document import Document, build
from vpoet.sequence.packing import pack
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Vocabulary
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.loss import PackLoss

CPU = torch.device("cpu")
VOCABULARY = Vocabulary(300, (64, 64), "text", "video")


def documents(counts: Sequence[int]) -> list[Document]:
    """Clips of random codes, so many cells of time each."""
    random = np.random.default_rng(0)
    return [
        TABLE["t2v"].document(
            Sample(random.integers(0, 300, 12), random.integers(0, 4096, (t, 4, 4)).astype(np.int32), 8)
        )
        for t in counts
    ]


def test_logits_and_gradients(card: Any) -> None:
    """In fp32 on both; TF32 is off unless it is asked for."""
    torch.manual_seed(0)
    there = Transformer(card.network(width=512, depth=8, heads=8, kv_heads=2, hidden=1408), VOCABULARY)
    here = copy.deepcopy(there).to(card.device)
    sequences = [build(document, VOCABULARY) for document in documents(card.pick((12, 3, 30, 2), (2, 3)))]
    row = pack(sequences, sum(map(len, sequences)))
    nats = []
    for network, device in ((there, CPU), (here, card.device)):
        loss = PackLoss(network, backend("sdpa", device, torch.float32))
        nats.append(loss.nats(PackTensors.of(row, device)))
        nats[-1].mean().backward()
    apart = float((nats[1].detach().cpu() - nats[0].detach()).abs().max())
    card.row(
        "nats of a pack in fp32, card against CPU: largest difference", f"{apart:.1e}", "at most 1e-3", apart <= 1e-3
    )
    worst = max(
        float((mine.grad.cpu() - theirs.grad).norm() / theirs.grad.norm())
        for mine, theirs in zip(here.parameters(), there.parameters(), strict=True)
        if theirs.grad is not None and theirs.grad.norm() > 0
    )
    card.row(
        "gradients in fp32: largest relative difference of a weight's", f"{worst:.1e}", "at most 1e-3", worst <= 1e-3
    )


def clips(count: int, frames: int) -> Any:
    """A square that moves over a gradient, uint8 [B, T, 64, 64, 3]."""
    random = np.random.default_rng(0)
    x = np.linspace(0, 255, 64)
    found = np.empty((count, frames, 64, 64, 3), np.uint8)
    for clip in found:
        clip[:] = (x[:, None, None] * random.random(3) + x[None, :, None] * random.random(3)) / 2
        top, left = random.integers(0, 30, 2)
        for t in range(frames):
            clip[t, top : top + 16, left + t : left + t + 16] = random.integers(0, 256, 3)
    return found


def test_codes(card: Any) -> None:
    """Of the video tokenizer that ships: in fp32, and in tf32, which is allowed for encoding."""
    frames = clips(*card.pick((64, 17), (1, 5)))
    there, here = VideoTokenizer.load(), VideoTokenizer.load().to(card.device)
    wanted = there.encode_batch(frames)
    for dtype, most in (("fp32", 1e-4), ("tf32", 2e-3)):
        what, expected = f"codes in {dtype} that differ from the CPU's", f"at most {most:.2%}"
        if dtype == "tf32" and not card.real:
            card.missing(what, expected)
            continue
        other = float((here.to(card.device, dtype).encode_batch(frames) != wanted).mean())
        card.row(what, f"{other:.3%}", expected, other <= most)
    here.to(card.device)
    pixels = np.abs(here.decode_batch(wanted).astype(int) - there.decode_batch(wanted)).max()
    card.row("frames of the same codes in fp32: largest difference", f"{pixels} of 255", "at most 1", pixels <= 1)


def test_samples(card: Any) -> None:
    """Of the model that ships, in fp32: the same noise draws the same codes, up to a near tie."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VpoetWarning)  # of slow attention in fp32
        there, here = vpoet.load(device="cpu"), vpoet.load(device=card.device.type, precision="fp32")
    frames, count = card.pick((17, 8), (5, 1))
    requests = [Request(prompt="a robot walks right on grass", frames=frames, seed=seed) for seed in range(count)]
    sampling = there.sampling(guidance=2.0)

    def drawn(model: Model) -> list[Any]:
        return model.decode([model.document(request) for request in requests], range(count), sampling)

    wanted, found = drawn(there), drawn(here)
    same = np.mean([one.document.equals(other.document) for one, other in zip(wanted, found, strict=True)])
    card.row("samples in fp32 that are the CPU's, code by code", f"{same:.0%}", "at least 75%", same >= 0.75)
    scored = there.likelihoods([one.document for one in found])
    apart = max(abs(float(one.nats.sum()) - score.total.nats) for one, score in zip(found, scored, strict=True))
    card.row(
        "nats that a sample was drawn with, against its score on the CPU", f"{apart:.1e}", "at most 0.05", apart <= 0.05
    )
