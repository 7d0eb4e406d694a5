"""Whether results can be written where they were asked for: known before the work that makes them."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from vpoet.errors import OutputError

ASIDE = 24
"""Bytes that the name of a file in the making has beyond that of the file."""


def expect_file(path: Path | None, suffixes: Sequence[str] = ()) -> None:
    """OutputError: no file can be written there, or its suffix, in small letters or capitals, is none of ``suffixes``.

    None is for no file. Folders on the way to it that are not there can be made later: none is made here.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        shown = path.suffix or "a file without a suffix"
        raise OutputError(f"{path}: cannot write {shown}; use {', '.join(suffixes)}")
    _check_place(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")


def expect_folder(path: Path) -> None:
    """OutputError: no folder can be made there, or files cannot be written into the one that is there."""
    _check_place(path)
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError(f"{path}: is no folder, and the results are one; choose another name")


def expect_apart(out: Path | None, others: Iterable[object]) -> None:
    """OutputError: the file would take the place of one of the others, which it is made of, or made with.

    None is for no file; others that are no paths (a clip in memory) are in no danger.
    """
    for other in others:
        if out is not None and isinstance(other, str | Path) and _is_same(out, other):
            raise OutputError(f"{out}: would be written over {other}, which this command needs; choose another name")


def _is_same(one: str | Path, other: str | Path) -> bool:
    try:
        return os.path.realpath(one) == os.path.realpath(other) or Path(one).samefile(other)
    except (OSError, ValueError):  # one is not there, or cannot be
        return False


def _check_place(path: Path) -> None:
    try:
        str(path).encode()
        if path.name:
            path.with_name(path.name + "x" * ASIDE).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except UnicodeEncodeError:
        raise OutputError(f"{path}: its name is not UTF-8; choose another") from None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    there = path if path.is_dir() else path.parent
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise OutputError(f"{path}: cannot be written, as {there} is no folder")
    try:
        with tempfile.TemporaryFile(dir=there):  # permissions alone do not tell: there are /proc and read-only disks
            pass
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror} in {there}") from None
