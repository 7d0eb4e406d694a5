"""Memory for long films, which are read and written piece by piece.

``video_tokenizer_film``: `vpoet reconstruct` of films of one minute and of ten. ``film_ingest``: `vpoet ingest --cuts
vpoet` of films of an hour and of a day.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import peak

from vpoet.arrays import Frames
from vpoet.data.shards import Manifest
from vpoet.media.mp4 import encode_mp4
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.worlds.platformer.world import Platformer

FPS = 8
PROGRAMS = Path(__file__).parents[2]
SHOT = 500
"""Seconds of a shot of the long films, which have a frame a second."""


def video_tokenizer_film(budget: float) -> dict[str, object]:
    """MB at the most, and seconds, by the minutes of film (64x64 at 8 frames a second); the network is untrained."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, film = Path(folder, "tokenizer"), Path(folder, "film.mp4")
        VideoTokenizer(Autoencoder(AutoencoderConfig(size="small"))).save(tokenizer)
        for minutes in (1, 10):
            encode_mp4(film, itertools.islice(world(), 60 * FPS * minutes), FPS)
            began = time.perf_counter()
            megabytes = most_of(
                "sample/reconstruct.py", [film, "--tokenizer", tokenizer, "--out", Path(folder, "both.mp4")]
            )
            figures[f"{minutes}_minutes"] = {"MB": megabytes, "seconds": round(time.perf_counter() - began, 1)}
    return figures


def film_ingest(_: float) -> dict[str, object]:
    """MB at the most, seconds of the processor, and clips, by the hours of film (32x32, a frame a second; of these
    every fourth is kept)."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for hours in (1, 24):
            film, out = Path(folder, f"{hours}.mp4"), Path(folder, f"raw-{hours}")
            encode_mp4(film, itertools.islice(shots(), 3600 * hours), 1)
            before = os.times()
            shape = ["--frames", "17", "--height", "32", "--width", "32", "--fps", "0.25"]
            megabytes = most_of("train/ingest.py", [film, "--out", out, *shape, "--cuts", "vpoet"])
            seconds = os.times().children_user - before.children_user
            clips = Manifest.load(out).samples
            figures[f"{hours}_hours"] = {"MB": megabytes, "seconds": round(seconds, 1), "clips": clips}
    return figures


def shots() -> Iterator[Frames]:
    """A picture that wanders, another one after each shot; without end."""
    for shot in itertools.count():
        still = np.random.default_rng(shot).integers(0, 256, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        yield from (np.roll(still, at, 1) for at in range(SHOT))


def world() -> Iterator[Frames]:
    """Frames of one clip after the other, without end."""
    platformer = Platformer()
    for seed in itertools.count():
        yield from platformer.clip(seed)[0]


def most_of(program: str, arguments: list[Path | str]) -> float:
    """MB that the program needed at the most, asked for ten times a second."""
    most = 0.0
    with subprocess.Popen([sys.executable, PROGRAMS / program, *arguments], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(OSError, ValueError):  # it ends just now
                most = max(most, peak.megabytes(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{program} failed")
    return round(most)
