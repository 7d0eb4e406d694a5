"""Motion that is asked for against motion that is measured: ``asked_motion``.

The model that ships is trained on (train/configs/motion.yaml) with the motion of each clip told, as `vpoet measure`
measured it. Then `CLIPS` samples are each asked for one of `ASKED`, in turn, and measured in the same way.
``spearman``: the correlation of ranks of asked and measured over all clips, without any prompt (``free``) and with
captions of clips never seen (``prompted``), which say what is done, and so ask for motion, too; ``means``: of the mean
of each that was asked for. Everything lies in runs/motion; what is there is not made again.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.bundle import SHIPPED
from vpoet.evaluate.adherence import prompts
from vpoet.evaluate.ranks import spearman
from vpoet.generate.model import Model, Request, load
from vpoet.generate.sampling import Sampling
from vpoet.media import signals

RUN = Path("runs/motion")
TRAINED, HELD_OUT = (4000, 21), (48, 22)
"""Clips and seed of each set."""
CLIPS = 96
ASKED = (0.0, 0.3, 0.6, 0.9, 1.2, 1.7, 2.2, 2.7)
"""In percent of the picture's height per second: most clips of the world lie between."""
SAMPLING = Sampling(guidance=1.0, temperature=0.8)


def asked_motion(_: float) -> dict[str, Any]:
    """How well samples move as much as they are asked to."""
    for name, (clips, seed) in (("raw", TRAINED), ("heldout", HELD_OUT)):
        _vpoet("ingest", "world:platformer", "--clips", clips, "--seed", seed, "--out", RUN / name)
    _vpoet("measure", RUN / "raw")
    _vpoet("select", RUN / "raw", "--out", RUN / "measured")
    _vpoet("encode", RUN / "measured", "--tokenizer", SHIPPED / "video_tokenizer", "--out", RUN / "tokens")
    if not (RUN / "bundle").is_dir():
        _vpoet("pretrain", "train/configs/motion.yaml", "--resume")
        _vpoet("export", RUN / "pretrain", "--out", RUN / "bundle")
    model = load(RUN / "bundle", "cpu")
    texts = [clip.text for clip in prompts(RUN / "heldout", HELD_OUT[0])]
    return {"free": _followed(model, [""]), "prompted": _followed(model, texts)}


def _followed(model: Model, texts: list[str]) -> dict[str, Any]:
    asked = [ASKED[i % len(ASKED)] for i in range(CLIPS)]
    # a caption is asked for with every motion
    wanted = [
        Request(prompt=texts[i // len(ASKED) % len(texts)], motion=motion, seed=i) for i, motion in enumerate(asked)
    ]
    found = []
    for first in range(0, CLIPS, 16):
        for video in model.sample_batch(wanted[first : first + 16], SAMPLING):
            found.append(signals.motion(signals.greys(video.frames), video.fps).whole)
    means = {motion: float(np.mean(found[at :: len(ASKED)])) for at, motion in enumerate(ASKED)}
    return {
        "spearman": round(spearman(np.array(asked), np.array(found)), 3),
        "means": round(spearman(np.array(ASKED), np.array(list(means.values()))), 3),
        "measured": {str(motion): round(mean, 2) for motion, mean in means.items()},
    }


def _vpoet(*words: Any) -> None:
    subprocess.run([Path(sys.executable).with_name("vpoet"), *map(str, words)], check=True)
