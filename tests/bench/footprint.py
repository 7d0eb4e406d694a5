"""``python tests/bench/footprint.py NETWORK FRAMES whole|stream``: MB that coding clips adds to the process's memory.

Encodes and decodes `CLIPS` clips of 128x128 pixels at once, in one piece or in chunks of four cells. A process of its
own, as the operating system keeps the most memory that a process ever had.
"""

import resource
import sys

import torch
from peers import make

CLIPS = 2
SIDE = 128
CHUNK = 16
"""Frames of four cells of time; the first chunk has three fewer, as a clip's first cell is one frame."""


UNIT = 1e6 if sys.platform == "darwin" else 1e3
"""Of the operating system's figures in a MB: bytes there, kilobytes elsewhere."""


def main(name: str, frames: int, how: str) -> None:
    torch.set_num_threads(1)
    network = make(name).eval().requires_grad_(False)
    network(torch.zeros(CLIPS, 3, 1, 32, 32))  # what the first call alone needs
    if how == "whole":
        video = pixels(frames)
        before, _ballast = most(), fill()
        network(video)
    else:
        sizes = [CHUNK - 3] + [CHUNK] * ((frames - CHUNK + 3) // CHUNK)
        sizes += [frames - sum(sizes)] if sum(sizes) < frames else []
        encoder_past: dict = {}
        decoder_past: dict = {}
        before, _ballast = most(), fill()
        for size in sizes:
            network.decode(network.encode(pixels(size), encoder_past), decoder_past)
    print(most() - before)


def pixels(frames: int) -> torch.Tensor:
    return torch.empty(CLIPS, 3, frames, SIDE, SIDE).uniform_(-1, 1)


def fill() -> list[torch.Tensor]:
    """Hold as much memory as the process ever had, so that any more is seen."""
    before, ballast = most(), []
    while most() == before:
        ballast.append(torch.ones(2**16))
    return ballast


def most() -> float:
    """MB that the process had at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
