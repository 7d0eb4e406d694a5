"""What selecting is worth: ``dirtied``, clips of which half are spoilt, against what `vpoet select` leaves of them.

`CLIPS` clips of the platformer; every second one is spoilt in one of five ways, its caption as it was (`SPOILT`). From
that set, and from its selection (`WHERE`, `DEDUPE`), models are trained by train/configs/dirtied.yaml, `STEPS` steps
each, for each of `SEEDS`; every pair of models is asked for the same `PROMPTS` captions of new clips. ``true``: percent
of prompts of which all that they state comes true, over all seeds, with its 95% interval (Wilson), and ``by_seed``;
``kept``: how many sound and spoilt clips the selection has. Everything lies in runs/dirtied; what is there is not made
again.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Frames
from vpoet.bundle import SHIPPED
from vpoet.data.folder import read_samples
from vpoet.data.shards import MANIFEST, ShardWriter
from vpoet.evaluate.adherence import prompts, shares
from vpoet.evaluate.intervals import wilson
from vpoet.generate.model import Request, load
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video

RUN = Path("runs/dirtied")
CLIPS, PROMPTS, STEPS, SEEDS = 4000, 500, 4000, (0, 1, 2)
WHERE = "cuts == 0 and letterbox < 0.05 and sharpness > 10 and motion > 0"
DEDUPE = 0.92
SAMPLING = Sampling(guidance=1.5, temperature=0.4)
_RAW_SEED, _PROMPT_SEED = 31, 32
_SHOWN_OFTEN = 8
"""Clips of which all copies are."""


def _joined(frames: Frames, other: Frames, _: Frames) -> Frames:
    return np.concatenate([frames[: len(frames) // 2], other[len(frames) // 2 :]])


def _blurred(frames: Frames, _: Frames, __: Frames) -> Frames:
    small = Video(frames, 8).resize(frames.shape[1] // 8, frames.shape[2] // 8)
    return small.resize(*frames.shape[1:3]).frames


def _barred(frames: Frames, _: Frames, __: Frames) -> Frames:
    made, bar = frames.copy(), frames.shape[1] // 5
    made[:, :bar] = made[:, -bar:] = 0
    return made


def _still(frames: Frames, _: Frames, __: Frames) -> Frames:
    return frames[:1].repeat(len(frames), 0)


def _copied(_: Frames, __: Frames, often: Frames) -> Frames:
    return often


SPOILT: dict[str, Callable[[Frames, Frames, Frames], Frames]] = {
    "joined": _joined,
    "blurred": _blurred,
    "barred": _barred,
    "still": _still,
    "copied": _copied,
}
"""A clip, the one before it, and one of a few that are shown often, to what stands in its place."""


def dirtied(_: float) -> dict[str, Any]:
    """Percent of prompts that come true."""
    clean, raw = RUN / "raw/clean", {name: RUN / "raw" / name for name in ("dirtied", "selected")}
    _vpoet("ingest", "world:platformer", "--clips", CLIPS, "--seed", _RAW_SEED, "--out", clean)
    if not (raw["dirtied"] / MANIFEST).exists():
        _spoil(clean, raw["dirtied"])
    _vpoet("measure", raw["dirtied"])
    _vpoet("select", raw["dirtied"], "--where", WHERE, "--dedupe", DEDUPE, "--out", raw["selected"])
    asked = RUN / "raw/asked"
    _vpoet("ingest", "world:platformer", "--clips", PROMPTS, "--seed", _PROMPT_SEED, "--out", asked)
    kept = Counter(sample.json["spoilt"] for sample in read_samples(raw["selected"]))
    line: dict[str, Any] = {"clips": CLIPS, "steps": STEPS, "kept": dict(kept)}
    for name, folder in raw.items():
        tokens = RUN / "tokens" / name
        _vpoet("encode", folder, "--tokenizer", SHIPPED / "video_tokenizer", "--out", tokens)
        marks = [_came_true(name, tokens, seed, asked) for seed in SEEDS]
        right, count = sum(map(sum, marks)), sum(map(len, marks))
        low, high = wilson(right, count)
        line[name] = {
            "true": round(100 * right / count, 1),
            "interval": [round(100 * low, 1), round(100 * high, 1)],
            "by_seed": [round(100 * sum(some) / len(some), 1) for some in marks],
        }
    return line


def _spoil(clean: Path, out: Path) -> None:
    before: Frames | None = None
    often: list[tuple[Frames, dict[str, Any]]] = []
    with ShardWriter(out, kind="raw") as writer:
        for at, sample in enumerate(read_samples(clean)):
            frames, about, parts = Video.read(sample.video).frames, sample.json, sample.parts
            kind = "sound"
            if len(often) < _SHOWN_OFTEN:
                often.append((frames, about))
            elif at % 2 and before is not None:
                kind = list(SPOILT)[at // 2 % len(SPOILT)]
                copied, its = often[at % _SHOWN_OFTEN]
                made = SPOILT[kind](frames, before, copied)
                about = its if kind == "copied" else about
                parts = {"mp4": Video(made, about["fps"]).encode(".mp4")}
            writer.write(f"{at:05d}-{kind}", {**parts, "json": about | {"spoilt": kind}})
            before = frames
    writer.manifest().save(out)


def _came_true(name: str, tokens: Path, seed: int, asked: Path) -> list[bool]:
    """Of each prompt, whether all of it did."""
    run = RUN / f"{name}-{seed}"
    done = run / "true.json"
    if not done.exists():
        changes = [f"run={run}/pretrain", f"data.sources=[{{path: {tokens}}}]", f"seed={seed}", f"steps={STEPS}"]
        _vpoet("pretrain", "train/configs/dirtied.yaml", *changes, "--resume")
        if not (run / "bundle").is_dir():
            _vpoet("export", run / "pretrain", "--out", run / "bundle")
        model, clips = load(run / "bundle", "cpu"), prompts(asked, PROMPTS)
        world = clips[0].world(*clips[0].real.shape[1:3], float(clips[0].fps))
        marks = []
        for first in range(0, len(clips), 16):
            some = clips[first : first + 16]
            wanted = [Request(prompt=clip.text, seed=seed * PROMPTS + first + at) for at, clip in enumerate(some)]
            for clip, video in zip(some, model.sample_batch(wanted, SAMPLING), strict=True):
                found = shares([clip.stated], [world.see(video.frames)])
                marks.append(bool(found["jointly"]["right"]))
        done.write_text(json.dumps(marks))
    told: list[bool] = json.loads(done.read_text())
    return told


def _vpoet(*words: Any) -> None:
    subprocess.run([Path(sys.executable).with_name("vpoet"), *map(str, words)], check=True)
