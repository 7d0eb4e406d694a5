"""Clips that training shows 20 times beside clips that it shows once: what of them is learned by heart.

The model that ships is trained on (train/configs/copies.yaml) for one pass over new clips of its world, of which 20 are
among the documents 20 times. ``bits``: a token of clips given their caption. ``nearest``: of clips sampled from
captions, the median distance to the nearest of the clips trained on (`vpoet.evaluate.distances`); ``own``: the share of
them for which that is the very clip of the caption. Everything lies in runs/copies; what is there is not made again.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.bundle import SHIPPED
from vpoet.evaluate.adherence import prompts
from vpoet.evaluate.distances import nearest
from vpoet.generate.model import Model, Request, load
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video

RUN = Path("runs/copies")
SETS = {"often": (20, 12), "once": (800, 11), "never": (100, 13)}
"""Clips and seed of each set; the model that ships was trained on clips of seeds 1 and 2."""
TRAINED = ("often", "once")
JUDGED, SAMPLED = 100, 20
"""Clips of a set at most that are scored, and captions that are sampled from."""
SAMPLING = Sampling(guidance=1.5, temperature=0.4)


def copies(_: float) -> dict[str, Any]:
    """Bits of clips seen 20 times, once and never, and how near their captions' samples come to training clips."""
    for name, (clips, seed) in SETS.items():
        raw, tokens = RUN / "raw" / name, RUN / "tokens" / name
        _vpoet("ingest", "world:platformer", "--clips", clips, "--seed", seed, "--out", raw)
        _vpoet("encode", raw, "--tokenizer", SHIPPED / "video_tokenizer", "--out", tokens)
    if not (RUN / "bundle").is_dir():
        _vpoet("pretrain", "train/configs/copies.yaml", "--resume")
        _vpoet("export", RUN / "pretrain", "--out", RUN / "bundle")
    model = load(RUN / "bundle", "cpu")
    return {name: _judged(model, name) for name in SETS}


def _judged(model: Model, name: str) -> dict[str, Any]:
    clips = prompts(RUN / "raw" / name, JUDGED)
    scores = [model.score(Video(clip.real, clip.fps), clip.text) for clip in clips]
    line: dict[str, Any] = {"clips": len(clips)}
    line["bits"] = round(float(np.mean([score.per_token.bits for score in scores])), 3)
    clips = clips[:SAMPLED]
    documents = [model.document(Request(prompt=clip.text)) for clip in clips]
    decoded = model.decode(documents, range(len(clips)), SAMPLING)
    drawn = [model.bundle.video.decode(result.document.codes()) for result in decoded]
    return line | _near(drawn, [(name, clip.key) for clip in clips])


def _near(drawn: list[Frames], of: list[tuple[str, str]]) -> dict[str, float]:
    """``of``: set and key of the clip whose caption each was sampled from."""
    found = [nearest(drawn, RUN / "raw" / name) for name in TRAINED]
    distances = np.stack([distance for distance, _ in found])
    closest = [(TRAINED[which], found[which][1][i]) for i, which in enumerate(distances.argmin(0))]
    own = np.mean([one == other for one, other in zip(closest, of, strict=True)])
    return {"nearest": round(float(np.median(distances.min(0))), 1), "own": round(float(own), 3)}


def _vpoet(*words: Any) -> None:
    subprocess.run([Path(sys.executable).with_name("vpoet"), *map(str, words)], check=True)
