"""What a chain samples at its end: prompts of the user, or captions of the clips."""

import json
from itertools import islice
from pathlib import Path

from vpoet.data.folder import read_samples
from vpoet.data.shards import MANIFEST
from vpoet.evaluate.page.demo import PROMPTS
from vpoet.files import write_atomic

COUNT = 4
"""Clips that are sampled if the user says nothing."""
SEARCHED = 2000
"""Clips of a side, from the first on, whose captions are looked at."""


def write(out: Path, asked: list[str]) -> None:
    """Write the file of prompts, a JSON object a line. Without any asked for: captions of clips, half of them held out
    as far as there are such; where there are too few different ones, with further seeds."""
    prompts = asked or _captions(out)
    seeds = -(-COUNT // len(prompts)) if len(prompts) < COUNT and not asked else 1
    if len(prompts) == 1 and seeds == 1:
        seeds = 2  # a single clip would have another name than the first of several
    rows = [{"prompt": prompt, "seed": seed} for seed in range(seeds) for prompt in prompts]
    write_atomic(out / PROMPTS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _captions(out: Path) -> list[str]:
    """At most `COUNT` different ones."""
    held, learnt = _of(out / "raw" / "heldout"), _of(out / "raw" / "train") or _of(out / "raw")
    chosen = dict.fromkeys(_evenly(held, COUNT // 2))
    rest = [caption for caption in learnt if caption not in chosen]
    chosen |= dict.fromkeys(_evenly(rest, COUNT - len(chosen)))
    return list(chosen)


def _of(folder: Path) -> list[str]:
    if not (folder / MANIFEST).is_file():
        return []
    found: dict[str, None] = {}
    for sample in islice(read_samples(folder), SEARCHED):
        found |= dict.fromkeys(" ".join(caption.split()) for caption in sample.captions[:1])
    return list(found)


def _evenly(captions: list[str], count: int) -> list[str]:
    return [captions[at * len(captions) // count] for at in range(count)] if len(captions) > count else captions
