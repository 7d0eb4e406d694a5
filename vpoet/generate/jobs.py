"""Many requests at once: from what was asked on a command line to clips that are to be made, and what took the time."""

import time
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vpoet.arrays import Ints
from vpoet.data.fields import printable
from vpoet.errors import PromptError, VpoetError
from vpoet.generate.clip_file import is_made
from vpoet.generate.fields import those_of
from vpoet.generate.model import Model
from vpoet.generate.plan import Decoded
from vpoet.generate.prompt_file import after, files_of, names_before, read_prompts, read_texts, record
from vpoet.generate.request import Request
from vpoet.generate.rollout import Rollout
from vpoet.generate.sampling import Sampling
from vpoet.generate.tiling import Tiling
from vpoet.outputs import expect_apart


@dataclass(slots=True)
class Job:
    """A clip that is to be made."""

    rollout: Rollout | Tiling
    file: Path
    record: dict[str, Any]
    """What lies beside the clip, with the nats and tokens of what was decoded for it so far."""

    codes: Ints | None = None
    """What was decoded for it, where that is the clip."""

    def count(self, decoded: Decoded) -> None:
        if self.rollout.whole:
            self.codes = decoded.document.codes()
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

    def add(self, later: "Jobs") -> list[Job]:
        """What there is to do of a later round, now among the rest."""
        self.todo += later.todo
        self.done += later.done
        self.unlike += later.unlike
        self.problems += later.problems
        return later.todo


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
    each, with where it was asked; and what is wrong with the lines of the file that are none. The steps of a chain
    follow one another.

    ``asked`` is what all have in common, as it is written on a command line. PromptError: one begins with the clip of a
    step before it, and there is none; the other errors are those of `read_texts` and `read_prompts`.
    """
    common = read_texts(those_of(Request, asked))
    found = [(f"--prompt '{printable(text)}'", Request(prompt=text, **common)) for text in prompts]
    problems: list[str] = []
    if batch:
        more, problems = read_prompts(batch, common)
        found += more
    elif not found:
        found = [("no --prompt", Request(**common))]
    chains: list[list[tuple[str, Request]]] = []
    for where, each in found:
        if names := names_before(each):
            if not chains:
                raise PromptError(f"{where}: {names[0]} is -, the clip of the request before it, and there is none")
            chains[-1].append((where, each))
        else:
            chains.append([(where, each)])
    several = [
        (where, replace(each, seed=each.seed + i)) for chain in chains for i in range(count) for where, each in chain
    ]
    return several, problems


def linked(requests: Items[tuple[str, Request]], files: Items[Path]) -> list[tuple[str, Request]]:
    """The requests of `requests_of`, each for its file: the clip of the step before is the file of the one before."""
    return [(where, after(request, files[i - 1])) for i, (where, request) in enumerate(requests)]


def rounds(requests: Items[tuple[str, Request]], share: int, of: int) -> list[list[int]]:
    """Which requests of `requests_of` can be made together, round by round: a step of a chain when the one before it is
    done. ``share`` of so many (``of``) processes has whole chains."""
    found: list[list[int]] = []
    depth, chain = 0, -1
    for i, (_, request) in enumerate(requests):
        later = bool(names_before(request))
        depth, chain = (depth + 1 if later else 0), chain + (not later)
        if chain % of == share:
            found += [[] for _ in range(depth + 1 - len(found))]
            found[depth].append(i)
    return found


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
                jobs.todo.append(Job(rollout, file, made | ({"shows": rollout.was} if rollout.was else {})))
        except VpoetError as error:
            jobs.problems.append(f"{where}: {error}")
    jobs.todo.sort(key=lambda job: job.rollout.size, reverse=True)
    return jobs
