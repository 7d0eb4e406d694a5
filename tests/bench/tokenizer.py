"""Benchmarks of the video tokenizer's network against others with as many parameters (`peers`).

One thread, and time is what the process spends on the processor, not on the clock: other work on the machine hardly
counts. Batches hold several clips, since torch convolves a single one over time and space several times slower.
"""

import functools
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import footprint
import numpy as np
import torch
from peers import PACKAGES, make
from torch import Tensor, nn

from vpoet.arrays import Frames
from vpoet.evaluate.pixels import psnr
from vpoet.tokenizer.autoencoder import count_parameters
from vpoet.tokenizer.pixels import to_float, to_uint8
from vpoet.training.codec.loss import LossConfig, reconstruction_loss
from vpoet.training.codec.recipe import TokenizerOptimizerConfig
from vpoet.training.codec.training import optimizers
from vpoet.training.optim import learning_rate, parameter_groups
from vpoet.worlds.platformer.world import Platformer

FRAMES = 17
CLIPS = {64: 4, 128: 2}
"""In a batch, by the pixels of a frame's side."""
ROUNDS = 3

CLIPS_TRAINED = 1024
CLIPS_HELD_OUT = 32
TRAINING_BATCH = 4

OPTIMIZER = TokenizerOptimizerConfig()
DENSE_MATRIX_LR = 6e-4
"""Muon's for the dense networks: the best of 6e-4 to 2e-2 for `dense`; AdamW alone, at 1e-3, gives 5 dB less.

vpoet's network has its recipes' own.
"""
OTHERS_LR = 1e-3
"""AdamW's for emu3 and magvit2, whose kernels are no matrices, as Muon needs them."""

Optimizers = list[tuple[torch.optim.Optimizer, float]]
"""Each with its peak learning rate."""


def video_tokenizer(budget: float) -> dict[str, Any]:
    """Speed of vpoet's network and of dense ones; memory of a frame, the clip coded whole, and of a clip in chunks."""
    names = ("vpoet", "dense", "dense_cosmos", "dense_vidtok")
    networks = {name: make(name) for name in names}
    whole = {name: added_memory(name, FRAMES, "whole") for name in names}
    streamed = {frames: added_memory("vpoet", frames, "stream") for frames in (FRAMES, 257)}
    return {
        **compare_speed(networks, sides=(64, 128)),
        "MB_per_frame_128": {name: round(size / footprint.CLIPS / FRAMES, 2) for name, size in whole.items()},
        "vpoet_MB_in_chunks_128": {
            f"{frames}_frames": round(size / footprint.CLIPS, 1) for frames, size in streamed.items()
        },
    }


def video_tokenizer_quality(budget: float) -> dict[str, Any]:
    """PSNR on clips held out, after ``budget`` seconds of training each: vpoet's network and dense ones."""
    return compare_quality(("vpoet", "vpoet_adamw", "dense", "dense_cosmos", "dense_vidtok"), budget)


def video_tokenizer_peers(budget: float) -> dict[str, Any]:
    """Speed, and PSNR after equal training, beside the networks of others."""
    missing = {name: package for name, package in PACKAGES.items() if not importlib.util.find_spec(package)}
    names = [name for name in ("vpoet", "dense_vidtok", *PACKAGES) if name not in missing]
    speed = compare_speed({name: make(name) for name in names}, sides=(64,))
    left_out = {name: f"{package} is not installed" for name, package in missing.items()}
    return {**speed, **compare_quality(names, budget), "left_out": left_out}


def compare_speed(networks: dict[str, nn.Module], sides: Sequence[int]) -> dict[str, Any]:
    """Frames a second, encoded and decoded in fp32, and clips a second of training in bf16; how much faster vpoet is.

    The best of `ROUNDS`, in which the networks take turns.
    """
    torch.set_num_threads(1)
    work: dict[tuple[str, str], tuple[int, Callable[[], object]]] = {}
    for name, network in networks.items():
        for side in sides:
            video = torch.rand(CLIPS[side], 3, FRAMES, side, side) * 2 - 1
            points = torch.no_grad()(network.eval().quantise)(video).points
            count = CLIPS[side] * FRAMES
            work[f"encode_{side}", name] = (count, functools.partial(torch.no_grad()(network.quantise), video))
            work[f"decode_{side}", name] = (count, functools.partial(torch.no_grad()(network.draw), points))
    rates = best_rates(work)
    video = torch.rand(CLIPS[64], 3, FRAMES, 64, 64) * 2 - 1
    training = {
        ("train_64", name): (CLIPS[64], functools.partial(step, network.train(), optimizers_of(name, network), video))
        for name, network in networks.items()
    }
    rates |= best_rates(training)
    return {
        "parameters": {name: count_parameters(network) for name, network in networks.items()},
        "per_second": rates,
        "vpoet_faster": {
            name: {task: round(rate["vpoet"] / rate[name], 2) for task, rate in rates.items()}
            for name in networks
            if name != "vpoet"
        },
    }


def best_rates(work: dict[tuple[str, str], tuple[int, Callable[[], object]]]) -> dict[str, dict[str, float]]:
    """Of each (task, network), with its count and what to call: counts a second, by task and network."""
    rates: dict[str, dict[str, float]] = {}
    for turn in range(1 + ROUNDS):
        for (task, name), (count, call) in work.items():
            began = time.process_time()
            call()
            rate = round(count / (time.process_time() - began), 1)
            if turn:  # the first warms up
                best = rates.setdefault(task, {})
                best[name] = max(rate, best.get(name, 0.0))
    return rates


def compare_quality(names: Sequence[str], budget: float) -> dict[str, Any]:
    """Train each network from random weights on the platformer world, and score it on clips held out.

    "vpoet_adamw" is vpoet's network without Muon.
    """
    torch.set_num_threads(1)
    world = Platformer()
    clips = np.stack([world.clip(seed)[0] for seed in range(CLIPS_TRAINED)])
    held_out = np.stack([world.clip(10**6 + seed)[0] for seed in range(CLIPS_HELD_OUT)])
    steps, scores = {}, {}
    for name in names:
        network = make(name.removesuffix("_adamw"))
        steps[name] = train(network, optimizers_of(name, network), clips, budget)
        scores[name] = score(network, held_out)
    return {
        "seconds": budget,
        "steps": steps,
        "psnr": {name: round(value, 2) for name, value in scores.items()},
        "vpoet_better_dB": {name: round(scores["vpoet"] - scores[name], 2) for name in names if name != "vpoet"},
    }


def train(network: nn.Module, optimizers: Optimizers, clips: Frames, budget: float) -> int:
    """Steps done in ``budget`` seconds of the processor; the learning rate follows the time that is used up."""
    order = np.random.default_rng(0)
    network.train()
    steps = 0
    began = time.process_time()
    while (done := (time.process_time() - began) / budget) < 1:
        scale = learning_rate(OPTIMIZER, int(1000 * done), 1000) / OPTIMIZER.lr
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = scale * peak
        step(network, optimizers, to_float(clips[order.choice(len(clips), TRAINING_BATCH, replace=False)]))
        steps += 1
    return steps


def step(network: nn.Module, optimizers: Optimizers, video: Tensor) -> None:
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16):
        drawn, quantised = network(video)
    loss = reconstruction_loss(drawn, video, LossConfig())["loss"] + quantised.loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), OPTIMIZER.clip)
    for optimizer, _ in optimizers:
        optimizer.step()


@torch.no_grad()
def score(network: nn.Module, clips: Frames) -> float:
    """Mean PSNR, in fp32."""
    network.eval()
    drawn = [to_uint8(network(to_float(pair))[0]) for pair in np.split(clips, len(clips) // 2)]
    return float(np.mean([psnr(*pair) for pair in zip(clips, np.concatenate(drawn), strict=True)]))


def optimizers_of(name: str, network: Any) -> Optimizers:
    if name == "vpoet":
        return list(zip(optimizers(network, OPTIMIZER), (OPTIMIZER.lr, OPTIMIZER.matrix_lr), strict=True))
    if name.startswith("dense"):
        return list(zip(optimizers(network, OPTIMIZER), (OPTIMIZER.lr, DENSE_MATRIX_LR), strict=True))
    lr = OPTIMIZER.lr if name == "vpoet_adamw" else OTHERS_LR
    betas = (OPTIMIZER.beta1, OPTIMIZER.beta2)
    return [(torch.optim.AdamW(parameter_groups(network, OPTIMIZER), lr=lr, betas=betas, fused=True), lr)]


def added_memory(name: str, frames: int, how: str) -> float:
    """MB, from a fresh process. There every larger block that is freed goes back to the system, so that the most memory
    at a time is what the network holds, not what the allocator left between blocks."""
    command = [sys.executable, str(Path(footprint.__file__)), name, str(frames), how]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
