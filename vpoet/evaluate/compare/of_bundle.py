"""A bundle in place of clips: samples are made of its prompts, kept, and compared like any others.

    OUT/samples/NAME.mp4           a sample, lossless, so that what is compared is what was made
    OUT/samples/NAME.mp4.json      how it was made

A sample that is there and was made just so is not made again: after a kill the next run makes what is missing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vpoet.data.fields import plain_key
from vpoet.errors import PromptError
from vpoet.evaluate.compare.clips import Clip, gather
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.generate.clip_file import Film
from vpoet.generate.jobs import Job, prepare, requests_of
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import output_files
from vpoet.generate.rollout import roll
from vpoet.generate.sampling import Sampling
from vpoet.processes import Processes

Watched = Callable[[Sequence[Sequence[Job]]], Iterable[Sequence[Job]]]


def asked_by(
    real: Sequence[Clip], prompts: Path | None, seed: int, protocol: Protocol, model: Model, folder: Path
) -> list[tuple[str, Request, Path]]:
    """What is to be made: where it was asked for, the request, and its file.

    A sample for each real clip, by that clip's prompt and under its name, number i with seed ``seed + i``; or those of
    a prompt file. All are long enough for the protocol. DataError, PromptError: the file holds a line that is none.
    """
    frames = protocol.span if protocol.span > model.bundle.config.frames else None
    if prompts is None:
        found = []
        for i, clip in enumerate(real):
            request = Request(prompt=clip.prompt, seed=seed + i, frames=frames)
            found.append((clip.name, request, folder / f"{plain_key(clip.name)}.mp4"))
        return found
    requests, problems = requests_of([], prompts, {}, 1)
    if problems:
        raise PromptError("\n".join(problems))
    asked = [(where, replace(each, frames=each.frames or frames, seed=each.seed + seed)) for where, each in requests]
    files = output_files(folder, [request for _, request in asked])
    return [(where, request, file) for (where, request), file in zip(asked, files, strict=True)]


def make(
    model: Model,
    asked: Sequence[tuple[str, Request, Path]],
    batch_size: int,
    everyone: Processes,
    watched: Watched = lambda groups: groups,
) -> list[Clip]:
    """The samples, in the order in which they were asked for; those that are missing are made, shared out to the
    processes. PromptError: one cannot be made."""
    mine = asked[everyone.rank :: everyone.world]
    sampling: Sampling = model.sampling()
    jobs = prepare(model, [(where, request) for where, request, _ in mine], [file for *_, file in mine], sampling)
    if problems := [problem for some in everyone.gather(jobs.problems) for problem in some]:
        raise PromptError("\n".join(problems))
    for group in watched([jobs.todo[at : at + batch_size] for at in range(0, len(jobs.todo), batch_size)]):
        with ExitStack() as stack:
            films = [stack.enter_context(Film(job.file, job.rollout.fps, lossless=True)) for job in group]
            for i, decoded, pieces in roll(model, [job.rollout for job in group], sampling):
                group[i].count(decoded)
                for frames in pieces:
                    films[i].add(frames)
                if group[i].rollout.document is None:
                    films[i].finish(group[i].record)
    everyone.gather(None)  # all files are there
    (folder,) = {file.parent for *_, file in asked}
    made = {clip.name: clip for clip in gather(folder)}
    # under the name of the real clip whose prompt it has, where there is one: pairs have one name
    names = {file.stem: where for where, _, file in asked if plain_key(where) == file.stem}
    return [replace(made[file.stem], name=names.get(file.stem, file.stem)) for *_, file in asked]
