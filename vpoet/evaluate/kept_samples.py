"""Samples of many requests, kept in a file as they are made, so that an interrupted evaluation goes on where it was."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.arrays import Codes
from vpoet.files import appending
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import record
from vpoet.generate.sampling import Sampling
from vpoet.processes import Processes

Groups = Sequence[Sequence[int]]


def sample(
    model: Model,
    requests: Sequence[Request],
    sampling: Sampling,
    file: Path,
    batch_size: int,
    watched: Callable[[Groups], Iterable[Sequence[int]]] = lambda groups: groups,
    everyone: Processes = Processes(),
) -> list[Codes]:
    """The codes of a clip for each request, those that the file holds already among them; new ones are appended, batch
    by batch.

    ``watched`` passes the batches on and shows how many are done. Of several processes each samples its share, and all
    but the first append to files of their own beside ``file`` (samples-1.jsonl), which all of them read.
    """
    made = [json.dumps(record(request, sampling, model), sort_keys=True) for request in requests]
    codes: dict[str, Any] = {}
    for each in [file, *sorted(file.parent.glob(f"{file.stem}-*{file.suffix}"))]:
        codes |= _read(each)
    mine = made[everyone.rank :: everyone.world]  # whatever is there: others may be writing already
    todo = [i for i, key in enumerate(made) if key in mine and key not in codes]
    groups = [todo[start : start + batch_size] for start in range(0, len(todo), batch_size)]
    own = file.with_stem(f"{file.stem}-{everyone.rank}") if everyone.rank else file
    with appending(own) as lines:
        for group in watched(groups) if groups else groups:
            documents = [model.document(requests[i]) for i in group]
            decoded = model.decode(documents, [requests[i].seed for i in group], sampling)
            for i, result in zip(group, decoded, strict=True):
                codes[made[i]] = result.document.codes().tolist()
                lines.write(json.dumps({"made": made[i], "codes": codes[made[i]]}) + "\n")
            lines.flush()
    for share in everyone.gather({key: codes[key] for key in mine}):
        codes |= share
    return [np.array(codes[key], np.int32) for key in made]


def _read(file: Path) -> dict[str, Any]:
    """What each sample was made of, with its codes."""
    codes: dict[str, Any] = {}
    for line in file.read_text("utf-8", "replace").splitlines() if file.exists() else []:
        try:
            kept = json.loads(line)
            codes[kept["made"]] = kept["codes"]
        except (ValueError, TypeError, KeyError):  # cut short when its process ended
            continue
    return codes
