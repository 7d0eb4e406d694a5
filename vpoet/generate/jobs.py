"""Many requests at once: from what was asked on a command line to clips that are to be made, and what took the time."""

import time
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vpoet.data.fields import printable
from vpoet.errors import VpoetError
from vpoet.generate.clip_file import is_made
from vpoet.generate.fields import those_of
from vpoet.generate.model import Model
from vpoet.generate.plan import Decoded
from vpoet.generate.prompt_file import files_of, read_prompts, read_texts, record
from vpoet.generate.request import Request
from vpoet.generate.rollout import Rollout
from vpoet.generate.sampling import Sampling
from vpoet.outputs import expect_apart


@dataclass(slots=True)
class Job:
    """A clip that is to be made."""

    rollout: Rollout
    file: Path
    record: dict[str, Any]
    """What lies beside the clip, with the nats and tokens of what was decoded for it so far."""

    def count(self, decoded: Decoded) -> None:
        self.record["nats"] = self.record.get("nats", 0.0) + float(decoded.nats.sum())
        self.record["tokens"] = self.record.get("tokens", 0) + len(decoded.nats)


@dataclass(slots=True)
class Jobs:
    """What there is to do of several requests."""

    todo: list[Job] = field(default_factory=list)
    """The longest first, and alike beside alike: in a batch, none waits long for the end of another."""
    done: int = 0
    """Clips that are there, made just so."""
    unlike: list[str] = field(default_factory=list)
    """What is given that is unlike the training data, for people."""
    problems: list[str] = field(default_factory=list)
    """Requests that cannot be served: where each stands, and why."""


class Stopwatch:
    """What took the time: seconds since a start, split at each call.

    watch = Stopwatch(start)
    watch("load")      # what passed until now was for loading
    """

    def __init__(self, start: float) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._mark = start

    def __call__(self, on: str) -> None:
        now = time.perf_counter()
        self.seconds[on] += now - self._mark
        self._mark = now


def requests_of(
    prompts: Items[str], batch: Path | None, asked: Mapping[str, Any], count: int
) -> tuple[list[tuple[str, Request]], list[str]]:
    """The requests of prompts and of a prompt file (one without a prompt, if there is neither), ``count`` seeds of
    each, with where it was asked; and what is wrong with the lines of the file that are none.

    ``asked`` is what all have in common, as it is written on a command line; the errors are those of `read_texts` and
    `read_prompts`.
    """
    common = read_texts(those_of(Request, asked))
    found = [(f"--prompt '{printable(text)}'", Request(prompt=text, **common)) for text in prompts]
    problems: list[str] = []
    if batch:
        more, problems = read_prompts(batch, common)
        found += more
    elif not found:
        found = [("no --prompt", Request(**common))]
    return [(where, replace(each, seed=each.seed + i)) for where, each in found for i in range(count)], problems


def prepare(model: Model, requests: Items[tuple[str, Request]], files: Items[Path], sampling: Sampling) -> Jobs:
    """The requests, each for its file, that are not made yet."""
    jobs = Jobs()
    for (where, request), file in zip(requests, files, strict=True):
        try:
            expect_apart(file, files_of(request))
            made = record(request, sampling, model) | model.rounding
            if is_made(file, made):
                jobs.done += 1
            else:
                rollout = model.rollout(request)
                jobs.unlike += [said for said in model.unfamiliar(request) if said not in jobs.unlike]
                jobs.todo.append(Job(rollout, file, made))
        except VpoetError as error:
            jobs.problems.append(f"{where}: {error}")
    jobs.todo.sort(key=lambda job: job.rollout.size, reverse=True)
    return jobs
