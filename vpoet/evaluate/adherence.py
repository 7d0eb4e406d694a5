"""Prompt adherence: the share of clips that show what their prompt says, with intervals.

The judge is the world that drew the prompts, so the truth is known.

Only what a prompt states is counted: a sentence without a sky leaves the sky open.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.data.folder import read_samples
from vpoet.data.sources import named_values
from vpoet.errors import DataError
from vpoet.evaluate.intervals import wilson
from vpoet.evaluate.tables import markdown
from vpoet.media.video import Video
from vpoet.worlds.world import FAULTS, World

HEADS = {FAULTS: "no faults"}


@dataclass(frozen=True, eq=False)
class Prompt:
    """A sentence, what it states, and the real clip that it was written for."""

    world: type[World]
    key: str
    text: str
    stated: dict[str, str]
    """Names of `World.judged`, with their values."""
    real: Frames
    fps: float


def prompts(folder: Path, count: int, without: frozenset[str] = frozenset()) -> list[Prompt]:
    """The first ``count`` clips of a folder of a world's raw shards as prompts, phrasings in turn.

    Sentences in ``without`` are passed over. DataError: clips that no world drew, or none left.
    """
    found: list[Prompt] = []
    for sample in read_samples(folder):
        world, texts = worlds.drawn_by(sample.json), sample.json.get("caption")
        if world is None or not isinstance(texts, list):
            made = "prompts come from `vpoet ingest world:NAME`"
            raise DataError(f"{folder}: {sample.key} is no clip of a world; {made}")
        phrasing = len(found) % world.phrasings
        try:
            text, stated = texts[phrasing], world.stated(sample.json, phrasing)
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{folder}: {sample.key} is not as {world.name} writes it ({error!r})") from None
        if text not in without:
            video = Video.read(sample.video)
            found.append(Prompt(world, sample.key, text, stated, video.frames, video.fps))
        if len(found) == count:
            return found
    if not found:
        raise DataError(f"{folder}: no clip whose caption could be a prompt")
    return found


def captions(folder: Path) -> frozenset[str]:
    """All captions of a folder of raw shards."""
    return frozenset(caption for sample in read_samples(folder) for caption in sample.captions)


def world_of(asked: Sequence[Prompt]) -> type[World]:
    """The world that drew all of these prompts' clips; DataError for several."""
    first = asked[0].world
    for prompt in asked:
        if prompt.world is not first:
            raise DataError(f"prompts of the worlds {first.name} and {prompt.world.name}: judge one at a time")
    return first


def stating(asked: Sequence[Prompt], given: str) -> list[int]:
    """The positions of the prompts that state all of ``given``, ``NAME=VALUE,NAME=VALUE`` by names of `World.judged`.

    DataError: ``given`` is nothing of that form, or fewer than two prompts state it.
    """
    wanted = named_values("--apart", given)
    found = [i for i, prompt in enumerate(asked) if wanted.items() <= prompt.stated.items()]
    if len(found) < 2:
        raise DataError(
            f"--apart {given}: {len(found)} prompts of {len(asked)} state it, of the two that are needed; "
            f"the names are {', '.join(asked[0].world.judged)}"
        )
    return found


def wrong(stated: Mapping[str, str], seen: Mapping[str, str]) -> dict[str, str]:
    """What is seen in place of what was stated, by attribute; empty if all is right."""
    return {name: seen[name] for name, value in stated.items() if seen[name] != value}


def shares(asked: Sequence[Mapping[str, str]], seen: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """For each of `World.judged`, and ``jointly``: right, count, share and interval, over the prompts that state it."""
    mistakes = [wrong(one, other) for one, other in zip(asked, seen, strict=True)]
    tallies = {name: [name not in m for s, m in zip(asked, mistakes, strict=True) if name in s] for name in seen[0]}
    tallies["jointly"] = [not m for m in mistakes]
    result: dict[str, dict[str, Any]] = {}
    for name, marks in tallies.items():
        right, count = sum(marks), len(marks)
        share = right / count if count else math.nan
        result[name] = {"right": right, "count": count, "share": share, "interval": wilson(right, count)}
    return result


def table(columns: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Of `shares` by what they are of: a row each, in percent, the interval behind."""
    names, rows = list(next(iter(columns.values()))), []
    for what, result in columns.items():
        cells = []
        for name in names:
            low, high = result[name]["interval"]
            count = result[name]["count"]
            cells.append(f"{100 * result[name]['share']:.1f} ({100 * low:.1f} to {100 * high:.1f})" if count else "-")
        rows.append([what, *cells])
    return markdown(["", *(HEADS.get(name, name) for name in names)], rows)
