"""What to ingest: files, folders, lists and worlds as one list of items, and which of them are held out."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vpoet import worlds
from vpoet.data import segments
from vpoet.data.fields import printable
from vpoet.data.lists import LISTS, Row, read_list
from vpoet.data.remote import PIPE, address, fetched, shown
from vpoet.data.spool import Some, Spool
from vpoet.data.tar import TARS
from vpoet.errors import DataError
from vpoet.media.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES

MADE = (worlds.WORLD, worlds.ENV)
"""How the sources begin whose clips are made, not read."""
SEEDS_APART = 1_000_000
"""Clip i of a world with seed s has the seed ``s * SEEDS_APART + i``: sets of different seeds share no clip."""


@dataclass(frozen=True)
class Item:
    """One source: a file, one clip of a world or environment, or a row of a list that interleaves several files."""

    name: str
    """As the shards tell it, and no path of this machine: relative to its list or folder; `lists.row_name`."""
    path: str
    """Where it lies; ``world:NAME`` or ``env:NAME``; empty for several files."""
    fields: dict[str, Any] = field(default_factory=dict)
    """What is known of it: a list's further columns, or the attributes of a world's clip."""
    seed: int = 0
    problem: str = ""
    """Why it can give no clip: a list's bad row."""

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar of samples, as webdataset has them."""
        return bool(self.path) and (self.name.lower().endswith(TARS) or self.path.startswith(PIPE))

    @property
    def files(self) -> list[str]:
        """What it is made of."""
        return [self.path] if self.path else segments.files(self.fields.get("segments", []))


def gather(
    sources: Sequence[str], *, clips: int | None = None, seed: int = 0, columns: Mapping[str, str] | None = None
) -> Spool[Item]:
    """All items of the sources, in order: files, folders (recursively, by name), .csv, .jsonl and .parquet lists, tars
    of samples, what lies elsewhere (`vpoet.data.remote`), ``world:NAME``, ``env:NAME``; ``x-{000..127}.tar`` is 128 of
    them.

    ``clips`` and ``seed`` are for worlds and environments, ``columns`` for lists (`read_list`). DataError if a source
    isn't there, is of no known kind, or is a broken list.
    """
    items = Spool(Item)
    if any(source.startswith(MADE) for source in sources) != (clips is not None):
        raise DataError("--clips says how many clips of a world:NAME or env:NAME to make: give both or neither")
    for source in (name for given in sources for name in _expanded(given)):
        path, url = Path(source), address(source)
        if source.startswith(MADE):
            attributes = _attributes(source)
            if seed < 0:
                raise DataError(f"--seed is 0 or more, not {seed}")
            if not 1 <= (clips or 0) <= SEEDS_APART:
                raise DataError(f"--clips is 1 to {SEEDS_APART}, not {clips}")
            seeds = range(seed * SEEDS_APART, seed * SEEDS_APART + (clips or 0))
            items.extend(Item(f"{source}/{number}", source, attributes(number), number) for number in seeds)
        elif path.is_dir():
            known = VIDEO_SUFFIXES | IMAGE_SUFFIXES
            files = sorted(file for file in path.rglob("*") if file.is_file())
            inside = [file for file in files if file.suffix.lower() in known]
            inside = inside or [file for file in files if file.name.lower().endswith(TARS)]
            if not inside:
                raise DataError(f"{source}: no video, image or .tar in this folder")
            items.extend(Item(printable(file.relative_to(path).as_posix()), _file(file)) for file in inside)
        elif url and Path(urlsplit(url).path).suffix.lower() in LISTS and not url.startswith(PIPE):
            with fetched(url) as fresh:
                items.extend(_listed(read_list(fresh, columns, url=url)))
        elif url:
            items.extend([Item(shown(url), url)])
        elif not path.exists():
            raise DataError(f"{source}: no such file or folder")
        elif path.suffix.lower() in LISTS:
            items.extend(_listed(read_list(path, columns)))
        else:
            items.extend([Item(printable(path.name), _file(path))])
    return items


def _expanded(source: str) -> list[str]:
    """A name with a brace range as the names that it stands for, as webdataset has it."""
    if not re.search(r"\{[^{}]*(\.\.|,)[^{}]*\}", source) or Path(source).exists():
        return [source]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(source))
    except ValueError as error:
        raise DataError(f"{source}: not a range in braces, as in x-{{000..127}}.tar: {error}") from None


def _listed(rows: Iterable[Row]) -> Iterator[Item]:
    for row in rows:
        yield Item(row.name, row.url or (_file(row.path) if row.path else ""), row.fields, problem=row.problem)


def _attributes(source: str) -> Callable[[int], dict[str, str]]:
    """What happens in a clip, by its number; of an environment nothing is known before it is played."""
    if source.startswith(worlds.WORLD):
        return worlds.find(source.removeprefix(worlds.WORLD)).attributes
    return lambda seed: {}


def _file(path: Path) -> str:
    """Where a file lies, which its name must not turn into a world."""
    return f"./{path}" if str(path).startswith(MADE) else str(path)


def divide(
    items: Sequence[Item], *, holdout: float = 0.0, by: str | None = None, unseen: Sequence[str] = ()
) -> dict[str, Sequence[Item]]:
    """Items by the sub-folder they go to: ``""`` for all of them, or ``train`` and ``heldout``. A source goes whole.

    ``holdout`` is the share to hold out, chosen by a hash of each source's name, so that it doesn't depend on the other
    sources. ``by`` is ``COLUMN=VALUE,VALUE``: the sources with one of these values are held out. ``unseen`` are
    combinations, each ``COLUMN=VALUE,COLUMN=VALUE``: sources with all values of one of them go to ``unseen``, before
    the rest is divided, so that a model can be asked for what it was never shown together.
    """
    sides: dict[str, Sequence[Item]] = {}
    if unseen:
        combinations = [_combination(given, items) for given in unseen]
        known = ({column: str(value) for column, value in item.fields.items()} for item in items)
        hidden = [any(wanted.items() <= fields.items() for wanted in combinations) for fields in known]
        sides["unseen"], items = _split(items, hidden)
    if by is not None:
        column, _, listed = by.partition("=")
        values = {value.strip() for value in listed.split(",") if value.strip()}
        if holdout or not column or not values:
            raise DataError(f"--split-by is COLUMN=VALUE,VALUE and goes without --holdout, not {by!r}")
        if not any(column in item.fields for item in items):
            raise DataError(f"--split-by {by}: no source has a column {column!r}")
        held = [str(item.fields.get(column)) in values for item in items]
    elif holdout:
        if not 0 < holdout < 1:
            raise DataError(f"--holdout is a share between 0 and 1, not {holdout}")
        held = [int(hashlib.sha256(item.name.encode()).hexdigest()[:13], 16) / 16**13 < holdout for item in items]
    elif not unseen:
        return {"": items}
    else:
        held = [False] * len(items)
    heldout, sides["train"] = _split(items, held)
    if holdout or by is not None:
        sides["heldout"] = heldout
    for side, members in sides.items():
        if not members:
            raise DataError(f"no source of {len(items)} went to {side}: change --holdout, --split-by or --unseen")
    return sides


def _split(items: Sequence[Item], out: Sequence[bool]) -> tuple[Some[Item], Some[Item]]:
    """Those that are out, and the others."""
    return Some(items, (at for at, gone in enumerate(out) if gone)), Some(
        items, (at for at, gone in enumerate(out) if not gone)
    )


def _combination(given: str, items: Sequence[Item]) -> dict[str, str]:
    """The columns and values of one ``--unseen``; DataError names a column or value that no source has."""
    wanted = named_values("--unseen", given)
    for column, value in wanted.items():
        values = {str(item.fields[column]) for item in items if column in item.fields}
        if value not in values:
            there = f"it has {', '.join(sorted(values)[:12])}" if values else "there is no such column"
            raise DataError(f"--unseen {given}: no source has {column} = {value!r}; {there}")
    return wanted


def named_values(option: str, given: str) -> dict[str, str]:
    """``given`` to an option, ``NAME=VALUE,NAME=VALUE``, as names with their values; DataError otherwise."""
    values = dict(part.strip().split("=", 1) for part in given.split(",") if "=" in part)
    if len(values) != len(given.split(",")):
        raise DataError(f"{option} is NAME=VALUE,NAME=VALUE, for instance who=zombie,ground=snow, not {given!r}")
    return values
