"""Tar files in webdataset's layout, whoever made them: files in a row whose names begin alike are a sample.

    a/b.json  a/b.mp4  c.json  c.Left.PNG    ->    a/b: json, mp4;  c: json, left.png

Names are keys and never become paths.
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_META = re.compile(r"__[^/]*__($|/)")
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""How .tar.gz, .tar.bz2 and .tar.xz begin, whatever they are called."""
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""What tars of samples are called."""
TAR_END = 1024
"""Bytes, all zero."""


class Grouped(NamedTuple):
    """The files of one sample."""

    key: str
    parts: dict[str, bytes]
    """By extension, in small letters."""
    twice: list[str]
    """Extensions that came again."""


def read_groups(stream: BinaryIO, note: Callable[[str, str], None]) -> Iterator[Grouped]:
    """The samples of a tar, in order; ``note(reason, name)`` hears of what is left out. Damage ends it, noted so."""
    group: Grouped | None = None
    for name, data in _files(stream, note):
        match = _NAME.fullmatch(name)
        if match is None:
            note("not named KEY.EXTENSION", name)
            continue
        key, extension = match[1], match[2].lower()
        if group is None or key != group.key:
            if group is not None:
                yield group
            group = Grouped(key, {}, [])
        if extension in group.parts:
            group.twice.append(extension)
        group.parts[extension] = data
    if group is not None:
        yield group


def _files(stream: BinaryIO, note: Callable[[str, str], None]) -> Iterator[tuple[str, bytes]]:
    # A tar ends in two blocks of zeros. Cut between two members it has no other mark of being cut.
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - TAR_END))
    end = stream.read()
    stream.seek(0)
    packed = stream.read(6).startswith(_PACKED)
    stream.seek(0)
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined] # it would keep them all
                if member.isdir() or _META.match(member.name):
                    continue
                if not member.isreg() or member.issparse():  # a sparse file's bytes may be any number, and are none
                    note("a link, a device or a file with holes", member.name)
                    continue
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()
        if packed:
            # a block of zeros stands behind the last member; where the end is missing, less than a block is read there
            assert tar.fileobj is not None
            if tar.fileobj.tell() < tar.offset + tarfile.BLOCKSIZE:
                note("broken tar", "cut short")
            return
        stream.seek(tar.offset)
        if end != bytes(TAR_END):
            note("broken tar", "cut short")
        elif any(block.strip(b"\0") for block in iter(lambda: stream.read(1 << 20), b"")):
            note("broken tar", "more behind its end; tar --concatenate joins tars, cat does not")
    except Exception as error:  # whatever the damage looks like to tarfile and what unpacks for it
        note("broken tar", type(error).__name__)
