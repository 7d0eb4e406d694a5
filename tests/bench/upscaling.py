"""``python tests/bench/upscaling.py SMALL LARGE RAW [CLIPS]``: what a decoder of larger pictures gains.

SMALL and LARGE are folders of two video tokenizers of the same codes, the second with ``model.upscale``; RAW has clips
of the size that LARGE draws. Each clip is encoded once. One JSON line: PSNR in dB, the mean over clips, of what LARGE
draws of the codes, and of what SMALL draws, scaled up by bicubic interpolation.
"""

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from vpoet.data.folder import read_samples
from vpoet.evaluate.pixels import psnr
from vpoet.media.video import Video
from vpoet.tokenizer.video import VideoTokenizer


def main(small: Path, large: Path, raw: Path, count: int) -> None:
    torch.set_num_threads(1)
    base, upscaled = VideoTokenizer.load(small), VideoTokenizer.load(large)
    if base.codes != upscaled.codes:
        sys.exit(f"the codes of {large} are not those of {small}")
    found = []
    for sample in islice(read_samples(raw), count):
        frames = Video.read(sample.video).frames
        codes = upscaled.encode(frames)
        scaled = Video(base.decode(codes), 0).resize(*frames.shape[1:3]).frames
        found.append([psnr(frames, drawn) for drawn in (upscaled.decode(codes), scaled)])
    ours, bicubic = np.mean(found, axis=0).tolist()
    print(json.dumps({"clips": len(found), "upscaled": ours, "bicubic": bicubic, "gain": ours - bicubic}))


if __name__ == "__main__":
    small, large, raw, *rest = sys.argv[1:]
    main(Path(small), Path(large), Path(raw), int(rest[0]) if rest else 64)
