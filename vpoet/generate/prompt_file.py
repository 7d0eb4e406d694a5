"""Prompt files, and the record that a sample leaves beside itself."""

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vpoet.errors import DataError, PromptError
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import check_file
from vpoet.outputs import expect_file

_FILES = ("image", "last", "video", "mask")
_TYPES: dict[str, type] = {
    **{field.name: int for field in dataclasses.fields(Request)},
    **dict.fromkeys(("prompt", "task", "outpaint", *_FILES), str),
    "via_image": bool,
    "story": list,
}
_SUFFIXES = (".mp4", ".gif", ".webp", ".png")


def read_prompts(path: str | Path, defaults: Mapping[str, Any]) -> tuple[list[tuple[str, Request]], list[str]]:
    """The requests of a prompt file, each with where it stands, and what is wrong with the lines that are none.

    A line is a prompt, or a JSON object with fields of `Request`; those left out come from ``defaults``. ``outpaint``
    and each of the list ``story`` are texts, as on the command line. Files are named relative to the prompt file. Empty
    lines and lines that begin with # are skipped. DataError: the file cannot be read, or has no other lines.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not readable as text: {error}") from None
    requests, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            fields = _fields(line.strip(), path.parent)
            requests.append((f"{path}:{number}", Request(**{**defaults, **fields})))
        except PromptError as error:
            problems.append(f"{path}:{number}: {error}")
    if not requests and not problems:
        raise DataError(f"{path}: no prompt in it; write one on each line")
    return requests, problems


def _fields(line: str, folder: Path) -> dict[str, Any]:
    if not line.startswith("{"):
        return {"prompt": line}
    try:
        fields: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"not valid JSON: {error}") from None
    for name, value in fields.items():
        if name not in _TYPES:
            near = difflib.get_close_matches(name, _TYPES, n=1, cutoff=0)[0]
            raise PromptError(f"unknown field {name!r}; did you mean {near!r}?")
        if type(value) is not _TYPES[name]:
            raise PromptError(f"{name} = {value!r}: it must be of type {_TYPES[name].__name__}")
    return read_texts(fields) | {name: folder / fields[name] for name in _FILES if name in fields}


def read_texts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a request with ``outpaint`` and ``story`` as they are written, "8,0,8,0" and "17: a robot jumps", as
    `Request` has them. PromptError: they say something else."""
    found = dict(fields)
    if found.get("outpaint") is not None:
        text = str(found["outpaint"])
        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*){3}", text):
            raise PromptError(
                f"outpaint = {text!r}: write left, top, right and bottom in pixels, for instance 16,0,16,0"
            )
        found["outpaint"] = tuple(int(part) for part in text.split(","))
    if found.get("story"):
        changes = [re.fullmatch(r"\s*(\d+)\s*:\s*(.*)", str(text), re.DOTALL) for text in found["story"]]
        for text, change in zip(found["story"], changes, strict=True):
            if change is None:
                raise PromptError(f"a story's change of prompt is FRAME: TEXT, as in '17: a robot jumps', not {text!r}")
        found["story"] = tuple((int(change[1]), change[2]) for change in changes if change)
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


def record(request: Request, sampling: Sampling, model: Model) -> dict[str, Any]:
    """All that decides how a sample comes out, in JSON's own types: ``model`` is the hash of the bundle's weights,
    ``decoder`` that of its video tokenizer, and ``precision`` what the weights are, never auto."""
    made: dict[str, Any] = {"model": model.bundle.hash, "decoder": model.bundle.video.hash}
    made |= {"precision": model.precision, **dataclasses.asdict(sampling)}
    for field in dataclasses.fields(request):
        value = getattr(request, field.name)
        if isinstance(value, str | Path) and field.name in _FILES:
            try:
                check_file(value)
                with Path(value).open("rb") as file:
                    value = {"file": str(value), "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            except (OSError, DataError) as error:
                why = str(error).removeprefix(f"{value}: ")
                raise DataError(f"{value}: {field.name} not readable: {why}") from None
        made[field.name] = value
    plain: dict[str, Any] = json.loads(json.dumps(made))
    return plain
