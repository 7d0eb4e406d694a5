"""Does a clip show what its prompt says? Shares and their intervals, with the world's truth for a judge.

Only what a prompt states is counted: a sentence without a sky leaves the sky open.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpoet.arrays import Frames
from vpoet.data.shards import Manifest, Problems, read_shard
from vpoet.data.sources import named_values
from vpoet.errors import DataError
from vpoet.evaluate.intervals import wilson
from vpoet.evaluate.tables import markdown
from vpoet.media.video import Video
from vpoet.worlds.platformer.consistency import faults
from vpoet.worlds.platformer.sight import SEEN, Witness

JUDGED = (*SEEN, "faults")
"""What a prompt is held against: what the clip shows, and that the world could have drawn it."""
HEADS = {"faults": "no faults"}

PHRASINGS = 3
"""Of a truth's captions, those whose every statement can be checked; the first says nothing of the sky."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A sentence, what it states, and the real clip that it was written for."""

    key: str
    text: str
    stated: dict[str, str]
    """Names of `JUDGED`, with their values."""
    real: Frames
    fps: float


def prompts(folder: Path, count: int, without: frozenset[str] = frozenset()) -> list[Prompt]:
    """The first ``count`` clips of a folder of the platformer world's raw shards as prompts, phrasings in turn.

    Sentences in ``without`` are passed over. DataError: clips of another world, or none left.
    """
    found: list[Prompt] = []
    for shard in Manifest.load(folder).shards:
        for sample in read_shard(folder / shard.name, problems=Problems()):
            truth, texts = sample.json.get("truth"), sample.json.get("caption")
            if not isinstance(truth, dict) or not set(SEEN[:-1]) <= set(truth) or not isinstance(texts, list):
                raise DataError(
                    f"{folder}: {sample.key} has no truth; prompts come from `vpoet ingest world:platformer`"
                )
            phrasing = len(found) % PHRASINGS
            if texts[phrasing] not in without:
                video = Video.read(sample.video)
                found.append(Prompt(sample.key, texts[phrasing], stated(truth, phrasing), video.frames, video.fps))
            if len(found) == count:
                return found
    if not found:
        raise DataError(f"{folder}: no clip whose caption could be a prompt")
    return found


def captions(folder: Path) -> frozenset[str]:
    """All captions of a folder of raw shards."""
    shards = [folder / shard.name for shard in Manifest.load(folder).shards]
    return frozenset(caption for shard in shards for sample in read_shard(shard) for caption in sample.json["caption"])


def stated(truth: Mapping[str, Any], phrasing: int) -> dict[str, str]:
    """What caption number ``phrasing`` (below `PHRASINGS`) of ``truth`` says, by the names of `JUDGED`.

    All captions tell of the creature if there is one: where none is told of, "" is asked for; and no faults, always.
    """
    values = {name: str(truth[name]) for name in SEEN if truth.get(name)}
    if phrasing == 0:
        del values["sky"]
    return values | {"creature": truth["creatures"][0]["name"] if truth["creatures"] else "", "faults": ""}


def judge(witness: Witness, frames: Frames) -> dict[str, str]:
    """What a clip uint8 [T, H, W, 3] shows, and its faults: `JUDGED`."""
    sight = witness.look(frames)
    return sight.shown | {"faults": ", ".join(faults(witness, sight, frames))}


def stating(asked: Sequence[Prompt], given: str) -> list[int]:
    """The positions of those prompts that state all of ``given``, a ``NAME=VALUE,NAME=VALUE`` by the names of `JUDGED`.

    DataError: ``given`` is nothing of that form, or fewer than two prompts state it.
    """
    wanted = named_values("--apart", given)
    found = [i for i, prompt in enumerate(asked) if wanted.items() <= prompt.stated.items()]
    if len(found) < 2:
        raise DataError(
            f"--apart {given}: {len(found)} prompts of {len(asked)} state it, of the two that are needed; "
            f"the names are {', '.join(SEEN)}"
        )
    return found


def wrong(stated: Mapping[str, str], seen: Mapping[str, str]) -> dict[str, str]:
    """What is seen in place of what was stated, by attribute; empty if all is right."""
    return {name: seen[name] for name, value in stated.items() if seen[name] != value}


def shares(asked: Sequence[Mapping[str, str]], seen: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """For each attribute, and ``jointly``: right, count, share and interval, over the prompts that state it."""
    mistakes = [wrong(one, other) for one, other in zip(asked, seen, strict=True)]
    tallies = {name: [name not in m for s, m in zip(asked, mistakes, strict=True) if name in s] for name in JUDGED}
    tallies["jointly"] = [not m for m in mistakes]
    result: dict[str, dict[str, Any]] = {}
    for name, marks in tallies.items():
        right, count = sum(marks), len(marks)
        share = right / count if count else math.nan
        result[name] = {"right": right, "count": count, "share": share, "interval": wilson(right, count)}
    return result


def table(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Of `shares` by what they are of: a row each, in percent, the interval behind."""
    names = (*JUDGED, "jointly")
    rows = []
    for what, result in columns.items():
        cells = []
        for name in names:
            low, high = result[name]["interval"]
            count = result[name]["count"]
            cells.append(f"{100 * result[name]['share']:.1f} ({100 * low:.1f} to {100 * high:.1f})" if count else "-")
        rows.append([what, *cells])
    return markdown(["", *(HEADS.get(name, name) for name in names)], rows)
