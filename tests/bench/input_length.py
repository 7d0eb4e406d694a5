"""``python tests/bench/input_length.py``: the peak memory of each command in MB, by the length of what it is given.

Two markdown tables. The first is for 2, 8 and 32 s of a 360p video; the commands that read shards read those that
`ingest` makes of it, in clips of 9 frames. The second is for 50, 200 and 800 clips of the platformer world, in shards
of 32 clips: what learns from them takes 4 steps, and `report` shows a demo's folder with that many held-out clips.
"""

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import footprint
import numpy as np
import torch

from vpoet import bundle, cli
from vpoet.arrays import Frames
from vpoet.media.mp4 import encode_mp4
from vpoet.tokenizer.video import SHIPPED

ROOT = Path(__file__).parents[2]
SECONDS = (2, 8, 32)
CLIPS = (50, 200, 800)
FPS, HEIGHT, WIDTH = 30, 360, 640
TOKENIZER = f"--tokenizer {bundle.SHIPPED}/video_tokenizer"
BY_SECONDS = {
    "sample --video": "sample --prompt robot --video {out}/video.mp4 --frames 9 --out {out}/a.mp4",
    "sample --task backward": "sample --video {out}/video.mp4 --task backward --frames 9 --out {out}/b.mp4",
    "sample --task interpolation": "sample --video {out}/video.mp4 --task interpolation --fps 60 --out {out}/c.mp4",
    "sample --outpaint": "sample --prompt robot --video {out}/video.mp4 --outpaint 16,0,16,0 --out {out}/d.mp4",
    "score": "score {out}/video.mp4",
    "reconstruct": "reconstruct {out}/video.mp4 --height 64 --width 64 --fps 8 --out {out}/e.mp4",
    "ingest": "ingest {out}/video.mp4 --frames 9 --height 64 --width 64 --fps 8 --out {out}/raw",
    "encode": f"encode {{out}}/raw --tokenizer {SHIPPED} --out {{out}}/tokens",
    "evaluate-tokenizer": f"evaluate-tokenizer {SHIPPED} {{out}}/raw",
}
BY_CLIPS = {
    "ingest": "ingest world:platformer --clips {count} --frames 9 --height 32 --width 32 --fps 8 "
    "--samples-per-shard 32 --out {out}/raw/heldout",
    "encode": f"encode {{out}}/raw/heldout {TOKENIZER} --out {{out}}/tokens",
    "train-text": "train-text {out}/raw/heldout --size 300 --out {out}/text.model",
    "train-video": f"train-video {ROOT}/tokenizers/configs/tiny-platformer.yaml run={{out}}/video "
    "data=[{out}/raw/heldout] held_out=[{out}/raw/heldout] frames=9 height=32 width=32 batch=2 steps=4 "
    "evaluate_clips=4",
    "pretrain": f"pretrain {ROOT}/train/configs/demo.yaml run={{out}}/run text={{out}}/text.model "
    f"video={bundle.SHIPPED}/video_tokenizer 'data.sources=[{{{{path: {{out}}/tokens}}}}]' data.length=256 "
    "'heldout=[{{path: {out}/tokens}}]' samples.frames=9 samples.height=32 samples.width=32 steps=4",
    "export": "export {out}/run --out {out}/bundle",
    "finetune": "finetune {out}/bundle {out}/tokens --out {out}/tuned steps=4",
    "evaluate-tokenizer": f"evaluate-tokenizer {bundle.SHIPPED}/video_tokenizer {{out}}/raw/heldout",
    "inspect": "inspect {out}/raw/heldout",
    "report": "report {out}",
}


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        places = [Path(folder, f"{seconds}s") for seconds in SECONDS]
        for seconds, place in zip(SECONDS, places, strict=True):
            film(place / "video.mp4", seconds)
        table([f"{seconds} s" for seconds in SECONDS], BY_SECONDS, [{"out": place} for place in places])
        places = [Path(folder, f"{count}clips") for count in CLIPS]
        for place in places:
            film(place / "samples/sample-0.mp4", 2)
            (place / "samples/prompts.txt").write_text("a robot\n")
            (place / "stages.jsonl").write_text('{"stage": "all", "seconds": 1, "command": "", "result": ""}\n')
        given = [{"out": place, "count": count} for place, count in zip(places, CLIPS, strict=True)]
        table([f"{count} clips" for count in CLIPS], BY_CLIPS, given)


def film(path: Path, seconds: int) -> None:
    path.parent.mkdir(parents=True)
    encode_mp4(path, (frame(i) for i in range(seconds * FPS)), FPS)


def frame(number: int) -> Frames:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.uint8)
    return np.stack([columns + np.uint8(number % 256), rows, np.full_like(rows, number % 256)], axis=-1)


def table(heads: Sequence[str], commands: Mapping[str, str], inputs: Sequence[Mapping[str, object]]) -> None:
    """A row for each command: its peak for each of the inputs, whose words fill its line."""
    print(f"\n| peak MB | {' | '.join(heads)} |")
    print(f"| --- |{' --: |' * len(heads)}")
    for name, command in commands.items():
        peaks = [peak(command.format(**words), Path(str(words["out"]))) for words in inputs]
        print(f"| `{name}` | {' | '.join(map(str, peaks))} |", flush=True)


def peak(command: str, place: Path) -> int:
    """MB that the command had at the most, in a fork of this process, which has torch loaded."""
    said = place / "said.txt"
    if (child := os.fork()) == 0:
        sys.argv = ["vpoet", *shlex.split(command)]
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
        sys.exit(f"{command}: {said.read_text()}")
    return round(used.ru_maxrss / footprint.UNIT)


if __name__ == "__main__":
    main()
