"""The codes of a sample, in the record beside its file: an edit of it works on them, and loses nothing.

Encoded from its pixels again, a clip has other codes than those that were drawn: it went through the decoder, and its
file through H.264. The record tells the file's hash, so that the codes of a file that was changed are not taken for it.
"""

import base64
import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vpoet.arrays import Ints
from vpoet.data.npy import codes_to_npy, npy_to_codes
from vpoet.errors import DataError, VpoetWarning
from vpoet.media.video import FASTEST, check_file

if TYPE_CHECKING:
    from vpoet.tokenizer.contract import Tokenizer


@dataclass(frozen=True, eq=False, slots=True)
class Source:
    """A clip to edit, as its codes."""

    codes: Ints
    """[t, h, w]"""
    fps: float
    """0 for an image."""
    prompt: str | None = None
    """What it was sampled with."""


def beside(file: Path) -> Path:
    """Where the record of a clip lies."""
    return file.with_name(f"{file.name}.json")


def to_record(file: Path, codes: Ints, fps: float) -> dict[str, Any]:
    """What the record of a written clip says of its codes."""
    return {"npy": base64.b64encode(codes_to_npy(codes)).decode(), "fps": fps, "sha256": _hash(file)}


def read_record(record: Mapping[str, Any]) -> Source:
    """The codes that a record tells, and the prompt. KeyError, TypeError, ValueError, DataError: it does not."""
    told, prompt = record["codes"], record.get("prompt")
    codes = npy_to_codes(base64.b64decode(told["npy"], validate=True))
    return Source(codes, float(told["fps"]), prompt if isinstance(prompt, str) else None)


def fits(source: Source, tokenizer: "Tokenizer") -> bool:
    """Whether codes can be some of this tokenizer."""
    return bool(source.codes.size and source.codes.max() < tokenizer.codebook_size and 0 <= source.fps <= FASTEST)


def record_of(file: Path, decoder: str) -> dict[str, Any] | None:
    """What a record beside a clip's file says of its codes and prompt, for programs elsewhere; None: it says nothing,
    or that of another file, or of another tokenizer than that with the hash ``decoder``."""
    record = _record(file)
    codes = record.get("codes")
    if not isinstance(codes, dict) or codes.get("sha256") != _hash(file) or record.get("decoder") != decoder:
        return None
    return {name: record[name] for name in ("codes", "decoder", "prompt") if name in record}


def recorded(file: str | Path, tokenizer: "Tokenizer") -> Source | None:
    """The codes that the record beside a clip's file tells, if it does.

    VpoetWarning: it does, but of another tokenizer, or the file was changed since. DataError: there is no file.
    """
    check_file(file)
    record = _record(Path(file))
    told = record.get("codes")
    if not isinstance(told, dict):
        return None
    why = ""
    try:
        source = replace(read_record(record), prompt=None)
        if told["sha256"] != _hash(Path(file)):
            why = "the file was changed since"
        elif record.get("decoder") != tokenizer.hash:
            why = "another video tokenizer made them"
        elif not fits(source, tokenizer):
            why = "they are none of this tokenizer"
    except (KeyError, TypeError, ValueError, DataError):
        why = "they cannot be read"
    if why:
        warnings.warn(
            f"{file}: the codes in the record beside it are not used: {why}; it is encoded anew",
            VpoetWarning,
            stacklevel=2,
        )
        return None
    return source


def recorded_prompt(file: str | Path) -> str | None:
    """What a clip's file was sampled with, if the record beside it tells, and the file is what it was."""
    record = _record(Path(file))
    prompt, told = record.get("prompt"), record.get("codes")
    if isinstance(told, dict) and told.get("sha256") != _hash(Path(file)):
        return None
    return prompt if isinstance(prompt, str) else None


def _record(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(beside(file).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
