"""``python tests/bench/input_length.py``: the peak memory of each command in MB, for 2, 8 and 32 s of a 360p video.

A markdown table. The commands that read shards read those that `ingest` makes of the video, in clips of 9 frames.
"""

import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path

import footprint
import numpy as np
import torch

from vpoet import cli
from vpoet.arrays import Frames
from vpoet.media.mp4 import encode_mp4
from vpoet.tokenizer.video import SHIPPED

SECONDS = (2, 8, 32)
FPS, HEIGHT, WIDTH = 30, 360, 640
COMMANDS = {
    "sample --video": "sample --prompt robot --video {video} --frames 9 --out {out}/a.mp4",
    "sample --task backward": "sample --prompt robot --video {video} --task backward --frames 9 --out {out}/b.mp4",
    "sample --task interpolation": "sample --video {video} --task interpolation --fps 60 --out {out}/c.mp4",
    "sample --outpaint": "sample --prompt robot --video {video} --outpaint 16,0,16,0 --out {out}/d.mp4",
    "score": "score {video}",
    "reconstruct": "reconstruct {video} --height 64 --width 64 --fps 8 --out {out}/e.mp4",
    "ingest": "ingest {video} --frames 9 --height 64 --width 64 --fps 8 --out {out}/raw",
    "encode": "encode {out}/raw --tokenizer {tokenizer} --out {out}/tokens",
    "evaluate-tokenizer": "evaluate-tokenizer {tokenizer} {out}/raw",
}


def main() -> None:
    torch.set_num_threads(1)
    print(f"| peak MB | {' | '.join(f'{seconds} s' for seconds in SECONDS)} |")
    print(f"| --- |{' --: |' * len(SECONDS)}")
    with tempfile.TemporaryDirectory() as folder:
        places = []
        for seconds in SECONDS:
            places.append(Path(folder) / str(seconds))
            places[-1].mkdir()
            encode_mp4(places[-1] / "video.mp4", (frame(i) for i in range(seconds * FPS)), FPS)
        for name, command in COMMANDS.items():
            peaks = [peak(command, place) for place in places]
            print(f"| `{name}` | {' | '.join(map(str, peaks))} |", flush=True)


def frame(number: int) -> Frames:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.uint8)
    return np.stack([columns + np.uint8(number % 256), rows, np.full_like(rows, number % 256)], axis=-1)


def peak(command: str, place: Path) -> int:
    """MB that the command had at the most, in a fork of this process, which has torch loaded."""
    filled = command.format(video=place / "video.mp4", out=place, tokenizer=SHIPPED)
    said = place / "said.txt"
    if (child := os.fork()) == 0:
        sys.argv = ["vpoet", *shlex.split(filled)]
        status = 1
        with said.open("w") as sys.stdout, contextlib.redirect_stderr(sys.stdout):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = int(end.code or 0)
            finally:
                sys.stdout.flush()
                os._exit(status)  # what follows is the parent's
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit(f"{filled}: {said.read_text()}")
    return round(used.ru_maxrss / footprint.UNIT)


if __name__ == "__main__":
    main()
