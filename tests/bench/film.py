"""Memory of `vpoet reconstruct` for films of one minute and of ten: it reads, codes and writes chunk by chunk."""

import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import footprint

from vpoet.arrays import Frames
from vpoet.media.mp4 import encode_mp4
from vpoet.tokenizer.autoencoder import Autoencoder, AutoencoderConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.worlds.platformer.world import Platformer

FPS = 8
PROGRAM = Path(__file__).parents[2] / "sample" / "reconstruct.py"


def video_tokenizer_film(budget: float) -> dict[str, object]:
    """MB at the most, and seconds, by the minutes of film (64x64 at 8 frames a second); the network is untrained."""
    figures: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer, film = Path(folder, "tokenizer"), Path(folder, "film.mp4")
        VideoTokenizer(Autoencoder(AutoencoderConfig(size="small"))).save(tokenizer)
        for minutes in (1, 10):
            encode_mp4(film, itertools.islice(world(), 60 * FPS * minutes), FPS)
            began = time.perf_counter()
            megabytes = most_of([film, "--tokenizer", tokenizer, "--out", Path(folder, "both.mp4")])
            figures[f"{minutes}_minutes"] = {"MB": megabytes, "seconds": round(time.perf_counter() - began, 1)}
    return figures


def world() -> Iterator[Frames]:
    """Frames of one clip after the other, without end."""
    platformer = Platformer()
    for seed in itertools.count():
        yield from platformer.clip(seed)[0]


def most_of(arguments: list[Path | str]) -> float:
    """MB that the program needed at the most."""
    process = subprocess.Popen([sys.executable, PROGRAM, *arguments], stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{PROGRAM} failed")
    return round(usage.ru_maxrss / footprint.UNIT)
