"""What paintings cost `vpoet encode`, and what they are for, on clips of the world that the model that ships knows.

``encode`` and ``bytes``: processor time and size of the shards, times those without paintings, in the same run and in
turns. ``changed``: of the codes of shown cells, the share that change when the hidden pixels do, cut out of the whole
clip and as paintings have them. ``bits``: a token of the model that ships, given the caption alone (t2v), of the hidden
cells given those, and of as many cells in the same places in t2v.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.data.painting import draw_mask, scaled, shown_codes
from vpoet.data.shards import read_shard
from vpoet.generate.model import load
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.tasks import PAINTED, TABLE

CLIPS, SEED = 64, 17
"""The model that ships was trained on clips of seeds 1 and 2."""
UNSEEN = ["who=zombie,ground=snow", "who=robot,action=climb", "creature=bee,ground=stone"]
"""Which it was not trained on."""
ROUNDS = 3
EXTRAS: dict[str, dict[str, Any]] = {
    "plain": {},
    "keyframes": {"keyframes": True},
    "paintings_1": {"paintings": 1},
    "paintings_2": {"paintings": 2},
}


def painting(_: float) -> dict[str, Any]:
    """Cost and size of paintings, whether what they show knows what they hide, and how well it is filled in."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        cli.program("ingest")(["world:platformer"], raw, clips=CLIPS, seed=SEED, unseen=UNSEEN)
        seconds: dict[str, list[float]] = {name: [] for name in EXTRAS}
        sizes: dict[str, int] = {}
        for turn in range(ROUNDS):
            for name, extras in EXTRAS.items():
                out = Path(folder) / f"{name}-{turn}"
                began = time.process_time()
                cli.program("encode")(raw / "train", SHIPPED / "video_tokenizer", out, **extras)
                seconds[name].append(time.process_time() - began)
                sizes[name] = sum(path.stat().st_size for path in out.glob("*.tar"))
        samples = [sample for path in (raw / "train").glob("*.tar") for sample in read_shard(path)]
        clips = [(Video.read(sample.video).frames, sample.json["caption"][0]) for sample in samples]
    return {
        "encode": {name: round(min(taken) / min(seconds["plain"]), 2) for name, taken in seconds.items()},
        "bytes": {name: round(size / sizes["plain"], 2) for name, size in sizes.items()},
        "bytes_per_clip": round(sizes["plain"] / len(clips)),
        **_shown(clips),
    }


def _shown(clips: list[tuple[np.ndarray, str]]) -> dict[str, Any]:
    model = load(SHIPPED, "cpu", "fp32")
    encoder = model.bundle.video
    changed: dict[str, dict[str, list[float]]] = {task: {"whole": [], "painting": []} for task in PAINTED}
    bits: dict[str, list[float]] = {f"{task}{how}": [] for task in PAINTED for how in ("", "_of_whole", "_in_t2v")} | {
        "t2v": []
    }
    for i, (frames, caption) in enumerate(clips):
        whole, (_, height, width) = encoder.encode(frames), frames.shape[:3]
        text = np.array(model.bundle.text.encode(caption), np.int32)
        sample = Sample(text, whole, model.bundle.config.fps)
        (plain,) = model.likelihoods([TABLE["t2v"].document(sample)])
        bits["t2v"] += list(plain.cells.ravel() / np.log(2))
        for task in PAINTED:
            mask = draw_mask(task, whole.shape, encoder.stride, np.random.default_rng((SEED, i)))
            shown, hidden = shown_codes(*scaled(frames, mask, height, width), encoder)
            other = np.where(mask[..., None], clips[i - 1][0], frames)
            again, _ = shown_codes(*scaled(other, mask, height, width), encoder)
            changed[task]["whole"] += list((encoder.encode(other) != whole)[~hidden])
            changed[task]["painting"] += list((again != shown)[~hidden])
            for how, given in (("", shown), ("_of_whole", None)):
                (score,) = model.likelihoods([TABLE[task].document(sample, hidden=hidden, shown=given)])
                bits[f"{task}{how}"] += list(score.cells[hidden] / np.log(2))
            bits[f"{task}_in_t2v"] += list(plain.cells[hidden] / np.log(2))
    return {
        "changed": {
            task: {how: round(float(np.mean(found)), 3) for how, found in ways.items()}
            for task, ways in changed.items()
        },
        "bits": {name: round(float(np.mean(found)), 2) for name, found in bits.items()},
    }
