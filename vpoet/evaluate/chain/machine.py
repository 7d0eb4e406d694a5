"""This machine, looked at on the very clips that a chain is for."""

import os
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from vpoet.data.clips import ClipSettings
from vpoet.errors import ConfigError
from vpoet.evaluate.chain import sizes
from vpoet.evaluate.chain.plan import Asked, Machine
from vpoet.evaluate.chain.reading import measuring, read
from vpoet.evaluate.chain.sources import Sources
from vpoet.evaluate.chain.stages import processes_here
from vpoet.evaluate.chain.trial import Trial, tried_together
from vpoet.tokenizer.video import VideoTokenizer

FRAMES, FPS, SIZE, STRIDE = 17, 8.0, 64, 8
"""Of a clip: two seconds, begun every second; pixels of a side."""
MOST_START = 30.0
"""Seconds that a command needs to begin, at most: this process may have had something else to do before."""


def settings_for(asked: Asked, own: bool) -> ClipSettings:
    """How clips are cut. ShapeError: the tokenizer that is given has no grid for any such clip."""
    frames = FRAMES
    if asked.tokenizer:
        tokenizer = VideoTokenizer.load(asked.tokenizer)
        frames = FRAMES if tokenizer.causal else FRAMES - 1
        tokenizer.grid(frames, SIZE, SIZE)
    clips = ClipSettings(frames=frames, fps=FPS, height=SIZE, width=SIZE)
    return replace(clips, stride=STRIDE, cuts="vpoet", min_shot=frames) if own else clips


def look(
    asked: Asked, sources: Sources, settings: ClipSettings, start: float, say: Callable[[str], None]
) -> tuple[Machine, int, list[str]]:
    """How fast it is, how many clips the sources give, and what to tell of it."""
    began = time.monotonic()
    own = sources.clips is None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes, why = processes_here(cores) if asked.processes is None else (asked.processes, "")
    notes = [why] if why else []
    video = None if asked.tokenizer else sizes.tried_tokenizer(own)
    if video is not None and video.batch % processes:
        raise ConfigError(f"--processes {processes}: they share {video.batch} clips evenly: 1, 2, 4 or 8")
    say("looking at some of the clips, and how fast this machine reads them and learns; a minute at most")
    reading = read(sources.items, settings)
    if reading.guessed:
        notes.append(f"sources: of {reading.guessed} it is not known how long they are, so that the times are a guess")
    shape = (settings.frames, settings.height, settings.width, 3)
    found = reading.found or [np.random.default_rng(0).integers(0, 256, shape, np.uint8)]
    measured = measuring(found, settings.fps) if own else (0.0, 0.0)
    share = 1 if video is None else video.batch // processes
    batch = np.stack([found[at % len(found)] for at in range(share)])
    trial = Trial(video, asked.tokenizer, sizes.tried_transformer(own), batch, max(1, cores // processes))
    rates = tried_together(trial, processes)
    start = min(start, MOST_START)
    took = time.monotonic() - began + start
    cuda = torch.cuda.is_available()
    return Machine(cores, processes, cuda, start, reading.seconds, measured, rates, took), reading.clips, notes
