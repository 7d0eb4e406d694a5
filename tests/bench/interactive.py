"""Frames while they are made: ``interactive``, the next cell of a clip again and again, from its codes to its pixels.

A cell in time is 64 codes of 4x8x8 pixels each: four frames of 64x64, of a clip's first cell one. So there are two ways
to count 64 tokens a frame: ``frames`` a second are those that are seen, ``cells`` a second those of a tokenizer for
which every frame is a cell of its own.

``ms`` is the time of a cell, codes and pixels together (mean of the four behind the first), ``first_ms`` that from the
request to the first frame, ``endless`` the frames a second of a clip of 65 frames in windows, each of which is encoded
again in part, and read, before its first cell. The models: the one that ships, with its own guidance (two slots) and
without, and one of the demo's sizes, 2.3M, with random weights, which change nothing but what guesses gain. All in
processor time of one thread, the best of `ROUNDS`, as other work only slows; what is compiled is so in bf16, and the
time that takes is not counted.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from vpoet.bundle import Bundle
from vpoet.generate.live import live
from vpoet.generate.model import Model, Request, StepCompiler, load
from vpoet.generate.sampling import Sampling
from vpoet.nn.transformer import Transformer, TransformerConfig

ROUNDS = 4
GUESSES = 8
LONG = 65
PROMPT = "a robot walks right on grass"
DEMO = TransformerConfig(width=192, depth=4, heads=4, kv_heads=4, hidden=512, visual_groups=2)
"""train/configs/demo.yaml"""


def interactive(_: float) -> dict[str, Any]:
    """As it is, with guesses, compiled in bf16, and both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    own = load(device="cpu").sampling()
    plain = replace(own, guidance=1.0)
    fp32, bf16 = load(device="cpu").bundle, load(device="cpu", precision="bf16").bundle
    line: dict[str, Any] = {"guesses": GUESSES}
    with compiled_anew() as compiler:
        for name, sampling in (("shipped", own), ("shipped_unguided", plain)):
            line[name] = {
                "as_it_is": watched(Model(fp32, guesses=0), sampling),
                "guessed": watched(Model(fp32, guesses=GUESSES), sampling),
                "compiled": watched(Model(bf16, compiler, 0), sampling),
                "compiled_guessed": watched(Model(bf16, compiler, GUESSES), sampling),
            }
        line["demo_unguided"] = {
            "as_it_is": watched(Model(of_demo_sizes(fp32), guesses=0), plain),
            "compiled": watched(Model(of_demo_sizes(bf16), compiler, 0), plain),
        }
    torch.set_num_threads(threads)
    return line


def watched(model: Model, sampling: Sampling) -> dict[str, float]:
    """One round that is not counted, then the best of each figure."""
    first, cell, endless = [], [], []
    for seed in range(ROUNDS + 1):
        moments = [time.process_time()]
        moments += [time.process_time() for _ in live(model, Request(prompt=PROMPT, seed=seed), sampling)]
        first.append(moments[1] - moments[0])
        cell.append((moments[-1] - moments[1]) / (len(moments) - 2))
    for seed in range(2):
        began = time.process_time()
        frames = sum(len(some) for some in model.stream(Request(prompt=PROMPT, frames=LONG, seed=seed), sampling))
        endless.append(frames / (time.process_time() - began))
    best, stride = min(cell[1:]), model.bundle.video.stride[0]
    return {
        "frames": round(stride / best, 1),
        "cells": round(1 / best, 1),
        "ms": round(1000 * best),
        "first_ms": round(1000 * min(first[1:])),
        "endless": round(max(endless), 1),
    }


def of_demo_sizes(bundle: Bundle) -> Bundle:
    """The same tokenizers with a network of `DEMO`."""
    torch.manual_seed(0)
    network = Transformer(DEMO, bundle.transformer.vocabulary).eval().requires_grad_(False)
    network.to(bundle.transformer.language.weight.dtype)
    return replace(bundle, transformer=network, config=replace(bundle.config, model=DEMO), hash="demo sizes")


@contextmanager
def compiled_anew() -> Iterator[StepCompiler]:
    """A compiler that finds nothing compiled, and leaves nothing behind."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        yield StepCompiler()
    del os.environ["XDG_CACHE_HOME"]
    if before:
        os.environ["XDG_CACHE_HOME"] = before
