"""What curation measured of clips, as training reads it: for conditions (`vpoet.sequence.conditions`)."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vpoet.data.folder import read_samples
from vpoet.sequence.conditions import Condition, Learnt


def measures_of(told: Mapping[str, Any]) -> Mapping[str, float]:
    """The measures in a clip's json that are numbers; `vpoet select` writes them."""
    found = told.get("measures")
    numbers = found.items() if isinstance(found, dict) else ()
    return {
        name: float(value)
        for name, value in numbers
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def learnt(conditions: Mapping[str, Condition], folders: Iterable[str]) -> dict[str, Learnt]:
    """Conditions as a model knows them that was trained on these folders of token shards: with the buckets that clips
    were in, where all folders are on this machine."""
    folders = list(folders)
    met: dict[str, set[int]] = {name: set() for name in conditions}
    here = all(Path(folder).is_dir() for folder in folders)
    for folder in folders if here and conditions else ():
        for sample in read_samples(folder):
            measures = measures_of(sample.json)
            for name, condition in conditions.items():
                if condition.measure in measures:
                    met[name].add(condition.bucket(measures[condition.measure]))
    return {
        name: Learnt(measure=condition.measure, edges=condition.edges, met=sorted(met[name]))
        for name, condition in conditions.items()
    }


def joined(before: Mapping[str, Learnt], since: Mapping[str, Learnt]) -> dict[str, Learnt]:
    """What a model knows that was trained further: the buckets of both trainings, where they mean the same."""
    found = dict(before)
    for name, now in since.items():
        was = before.get(name)
        if was is not None and (was.measure, was.edges) == (now.measure, now.edges):
            met = sorted({*was.met, *now.met}) if was.met and now.met else []
            now = Learnt(measure=now.measure, edges=now.edges, met=met)
        found[name] = now
    return found
