"""Prompt files, and the record that a sample leaves beside itself."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import Field, replace
from pathlib import Path
from typing import Any, get_origin

from vpoet.data.lists import decode, is_text
from vpoet.errors import DataError, PromptError
from vpoet.generate.fields import about, declared, unknown, written
from vpoet.generate.model import Model
from vpoet.generate.request import AUTO, Request, read_controls
from vpoet.generate.sampling import Sampling
from vpoet.media.video import check_file
from vpoet.outputs import expect_file
from vpoet.sequence.conditions import TABLE as CONDITIONS

BEFORE = Path("-")
"""In the place of a file: the clip of the step before, in a chain of requests."""
_SUFFIXES = (".mp4", ".gif", ".webp", ".png")


def read_prompts(path: str | Path, defaults: Mapping[str, Any]) -> tuple[list[tuple[str, Request]], list[str]]:
    """The requests of a prompt file, each with where it stands, and what is wrong with the lines that are none.

    A line is a prompt, or a JSON object with fields of `Request`; those left out come from ``defaults``. ``outpaint``
    and each of the list ``story`` are texts, as on the command line. Files are named relative to the prompt file. Empty
    lines and lines that begin with # are skipped. A line that is a JSON array of such objects is a chain: each of them
    but the first works on the clip of the one before, which it calls `BEFORE`, and is a request of its own. DataError:
    the file cannot be read, or has no other lines.
    """
    path = Path(path)
    try:
        lines = re.split("\r\n|\r|\n", decode(path.read_bytes()))  # and not at U+2028, which JSON may hold
    except OSError as error:
        raise DataError(f"{path}: not readable as text: {error}") from None
    requests, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            if not is_text(line):
                raise PromptError("not UTF-8")
            steps = _steps(line.strip(), path.parent)
            several = len(steps) > 1
            requests += [
                (f"{path}:{number}{f', step {i}' if several else ''}", Request(**{**defaults, **fields}))
                for i, fields in enumerate(steps, start=1)
            ]
        except PromptError as error:
            problems.append(f"{path}:{number}: {error}")
    if not requests and not problems:
        raise DataError(f"{path}: no prompt in it; write one on each line")
    return requests, problems


def _steps(line: str, folder: Path) -> list[dict[str, Any]]:
    """The fields of a line's request, or of those of a chain."""
    if not line.startswith(("{", "[")):
        return [{"prompt": line}]
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"not valid JSON: {error}") from None
    steps = found if isinstance(found, list) else [found]
    if not steps or not all(isinstance(step, dict) for step in steps):
        raise PromptError("a chain is an array of JSON objects, one for each of its steps")
    known = declared(Request)
    for number, step in enumerate(steps):
        clips = [value for name, value in step.items() if name in known and written(known[name]) is Path]
        told = step.get("control")
        clips += [str(control.clip) for control in read_controls(told if isinstance(told, list) else ())]
        if (str(BEFORE) in clips) != (number > 0):
            raise PromptError(
                f"step {number + 1} works on the clip before it: say which of edit, video, image, last and control it "
                f'is, by "{BEFORE}" for its file'
                if number
                else f'"{BEFORE}" is the clip before, and here is none'
            )
    return [_fields(step, folder) for step in steps]


def _fields(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    known = declared(Request)
    expect_types(fields, known)
    files = {name: text for name, text in fields.items() if written(known[name]) is Path}
    found = read_texts(fields) | {name: _placed(text, folder) for name, text in files.items()}
    if "control" in found:
        found["control"] = tuple(
            each if each.clip == AUTO else replace(each, clip=_placed(str(each.clip), folder))
            for each in found["control"]
        )
    return found


def _placed(text: str, folder: Path) -> Path:
    """A file that a prompt file names."""
    return BEFORE if text == str(BEFORE) else folder / text


def expect_types(fields: Mapping[str, Any], known: Mapping[str, Field[Any]]) -> None:
    """PromptError: a field is none of the ``known`` ones (`vpoet.generate.fields.declared`), or not of its type; files
    are named by texts."""
    for name, value in fields.items():
        if name not in known:
            raise PromptError(unknown(name, known, "field"))
        kind = written(known[name])
        kind = str if kind is Path else get_origin(kind) or kind
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise PromptError(f"{name} = {value!r}: it must be of type {kind.__name__}")


def read_texts(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a request as `Request` has them, from how they are written on a command line; an empty text or list is
    what it is by default. PromptError: one says something else."""
    found = dict(asked)
    for name, field in declared(Request).items():
        if name in found and (read := about(field).read):
            found[name] = read(found[name]) if found[name] not in (None, ()) else field.default
    return found


def output_files(out: Path, requests: Sequence[Request]) -> list[Path]:
    """Where each request's clip goes: ``out`` itself, or x-0.mp4, x-1.mp4, ... if there are several; or, if it is a
    folder, files named after prompt and seed. DataError, OutputError: one can't be written."""
    files = _named(out, requests)
    for file in files:
        expect_file(file)
    return files


def _named(out: Path, requests: Sequence[Request]) -> list[Path]:
    if not out.suffix or out.is_dir():
        files: list[Path] = []
        for request in requests:
            words = re.sub(r"\W+", "-", request.prompt.lower())[:40].strip("-") or "sample"
            stem, suffix = f"{words}-{request.seed}", ".png" if request.frames == 1 else ".mp4"
            again = sum(file.stem == stem or file.stem.startswith(f"{stem}.") for file in files)
            files.append(out / f"{stem}{f'.{again + 1}' if again else ''}{suffix}")
        return files
    if out.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{out}: cannot write {out.suffix}; use {', '.join(_SUFFIXES)}, or a folder")
    if len(requests) == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{i}{out.suffix}") for i in range(len(requests))]


def files_of(request: Request) -> list[str | Path]:
    """The files that a request names."""
    found = [getattr(request, field.name) for field in dataclasses.fields(request) if written(field) is Path]
    found += [control.clip for control in request.control if control.clip != AUTO]
    return [value for value in found if isinstance(value, str | Path)]


def names_before(request: Request) -> list[str]:
    """The fields of a request that are the clip of the step before, or are made of it."""
    found = [field.name for field in dataclasses.fields(request) if getattr(request, field.name) == BEFORE]
    return found + ["control"] * any(control.clip == BEFORE for control in request.control)


def after(request: Request, file: Path) -> Request:
    """The request with the file of the step before in its place."""
    named: dict[str, Any] = dict.fromkeys(names_before(request), file)
    if "control" in named:
        named["control"] = tuple(replace(c, clip=file) if c.clip == BEFORE else c for c in request.control)
    return replace(request, **named)


def record(request: Request, sampling: Sampling, model: Model) -> dict[str, Any]:
    """All that decides how a sample comes out, in JSON's own types: ``model`` is the hash of the bundle's weights,
    ``decoder`` that of its video tokenizer, and ``precision`` what the weights are, never auto."""
    made: dict[str, Any] = {"model": model.bundle.hash, "decoder": model.bundle.video.hash}
    made |= {"precision": model.precision, **dataclasses.asdict(sampling)}
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if value is None and field.name in CONDITIONS:
            continue  # so that records of the time before conditions still hold, as those before edits
        if request.edit is None and field.name in ("edit", "was", "strength"):
            continue
        if field.name == "control":
            told = [(each, each.clip if each.clip == AUTO else _file(each.clip, each.kind)) for each in value]
            value = [{"kind": each.kind, "clip": clip, "strength": each.strength} for each, clip in told]
            if not value:
                continue  # likewise
        elif isinstance(value, str | Path) and written(field) is Path:
            value = _file(value, field.name)
        made[field.name] = value
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain


def _file(path: Any, what: str) -> dict[str, str]:
    """A file by its name and content. DataError: it cannot be read."""
    try:
        check_file(path)
        with Path(path).open("rb") as file:
            return {"file": str(path), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    except (OSError, DataError) as error:
        why = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: {what} not readable: {why}") from None
