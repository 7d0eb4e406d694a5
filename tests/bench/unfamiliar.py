"""``python tests/bench/unfamiliar.py FOLDER ...``: bits per token of first frames under the model that ships.

`Model.unfamiliar` warns above log2 of the codebook's size. A line for held-out clips of the model's own world, for what
may befall such a clip, and for the videos and images in each folder: least, median and most, and the share told.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable

import numpy as np
import torch

import vpoet
from vpoet.arrays import Frames
from vpoet.data.sources import gather
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

CLIPS = 100
SEED = 10**9
"""Of the first clip: far from those that the model was trained on."""
PROMPT = "a robot walks right on grass"

CHANGES: dict[str, Callable[[Frames], Frames]] = {
    "as it is": lambda frames: frames,
    "mirrored": lambda frames: frames[:, :, ::-1].copy(),
    "H.264 at crf 30": lambda frames: Video.read(Video(frames, 8).encode(".mp4", crf=30)).frames,
    "half as bright": lambda frames: frames // 2,
    "upside down": lambda frames: frames[:, ::-1].copy(),
    "red for blue": lambda frames: frames[..., ::-1].copy(),
    "black": np.zeros_like,
}


def main(folders: list[str]) -> None:
    torch.set_num_threads(1)
    model = vpoet.load()
    uniform = math.log2(model.bundle.video.codebook_size)

    def tell(name: str, bits: Iterable[float]) -> None:
        found = np.array(list(bits))
        low, middle, high = np.quantile(found, (0, 0.5, 1)).round(1).tolist()
        told = float((found > uniform).mean())
        print(json.dumps({"clips": name, "n": len(found), "bits": [low, middle, high], "told": round(told, 3)}))

    world = Platformer(height=64, width=64, fps=8, frames=17)
    clips = [world.clip(SEED + number)[0][:1] for number in range(CLIPS)]
    for name, change in CHANGES.items():
        tell(f"world, {name}", (model.score(Video(change(c), 8), PROMPT, frames=1).per_token.bits for c in clips))
    for folder in folders:
        items = gather([folder])[::-1][:CLIPS]
        tell(folder, (model.score(item.path, PROMPT, frames=1).per_token.bits for item in items))


if __name__ == "__main__":
    main(sys.argv[1:])
