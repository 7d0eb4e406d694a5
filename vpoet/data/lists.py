"""Lists of files with what is known of them: .csv, .jsonl and .parquet, as others write them.

A row that cannot be used is one bad row: it is told, and the rows after it are read. Text is UTF-8, or what a byte
order mark says.
"""

import codecs
import csv
import hashlib
import io
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vpoet.data import recordings, segments
from vpoet.data.fields import check_caption, parse_json, plain, printable
from vpoet.data.remote import PIPE, address, join, shown
from vpoet.errors import BackendError, DataError

LISTS = (".csv", ".jsonl", ".parquet")
FILE_COLUMNS = ("path", "file")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


@dataclass(frozen=True)
class Row:
    """One row: a file and its fields, or fields with `segments` and no file, or why it is none."""

    name: str
    path: Path | None = None
    url: str = ""
    """Where it lies, if that is elsewhere."""
    fields: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_list(path: Path, columns: Mapping[str, str] | None = None, *, url: str = "") -> Iterator[Row]:
    """All rows of a list, one by one, the bad ones among them; DataError if it cannot be read or, at its end, if not
    one row can be used.

    ``columns``: the list's name of a column by ours (``{"path": "url", "caption": "text"}``). ``url``: where the list
    came from; its rows then name files there, and none of this machine.
    """
    told = shown(url) if url else str(path)
    records = (_parquet_records if path.suffix.lower() == ".parquet" else _text_records)(path, told)
    if columns:
        records = _renamed(records, columns, told)
    count, usable, problem = 0, False, ""
    for count, record in enumerate(records, start=1):
        row = _row(path, count, record, url)
        usable, problem = usable or not row.problem, problem or row.problem
        yield row
    if not count:
        raise DataError(f"{told}: an empty list")
    if not usable:
        raise DataError(
            f"{told}: not a readable list, none of its {count} rows can be used: entry 1: {problem}; "
            "a list has a column `path` or `file`, and `caption`; others are named by --columns path=NAME,caption=NAME"
        )


def _renamed(records: Iterable[object], columns: Mapping[str, str], told: str) -> Iterator[object]:
    """Records with their columns called as ours are. DataError, at the end: no record has one of them."""
    there: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            there |= dict.fromkeys(record)
            ours = {name: record.get(theirs) for name, theirs in columns.items()}
            yield {name: value for name, value in record.items() if name not in (*columns, *columns.values())} | ours
        else:
            yield record
    for name in columns.values():
        if name not in there:
            listed = ", ".join(printable(str(each)) for each in list(there)[:20]) or "no column"
            raise DataError(f"{told}: no column {name!r}; it has {listed}")


def _text_records(path: Path, told: str) -> Iterator[object]:
    """Those of a .csv or .jsonl, line by line."""
    is_csv = path.suffix.lower() == ".csv"
    try:
        with path.open("rb") as file:
            encoding, errors = _encoding(file.read(4))
            file.seek(0)
            csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size + 1))
            with io.TextIOWrapper(file, encoding, errors, newline="" if is_csv else "\n") as lines:
                yield from _csv_records(lines, told) if is_csv else _json_records(lines)
    except OSError as error:
        raise DataError(f"{told}: not a readable list: {error.strerror}") from None


def _parquet_records(path: Path, told: str) -> Iterator[object]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise BackendError(f'{told}: a .parquet is read by pyarrow: pip install "vpoet[parquet]"') from None
    try:
        with path.open("rb") as file:
            table = parquet.ParquetFile(file)
            _check_columns(table.schema_arrow.names, told)
            for batch in table.iter_batches(4096):
                for record in batch.to_pylist():
                    try:
                        yield {name: plain(value) for name, value in record.items()}
                    except DataError as error:
                        yield error
    except (ArrowException, OSError) as error:
        raise DataError(f"{told}: not a readable list: {printable(str(error))}") from None


def row_name(folder: Path, name: str) -> str:
    """How shards tell the file that a list in ``folder`` names.

    A relative path is told as the list has it. An absolute one would tell of this machine: from the list's folder if
    the file lies below it, else as HASH/NAME, 12 hex digits of the SHA-256 of the folder that it lies in.
    """
    path, base = (Path(os.path.abspath(each)) for each in (name, folder))  # noqa: PTH100 (it takes .. out, and no link)
    if Path(name).is_absolute() and path.is_relative_to(base):
        name = path.relative_to(base).as_posix()
    elif Path(name).is_absolute():
        name = f"{hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]}/{path.name}"
    return printable(name)


def _row(path: Path, number: int, record: object, url: str = "") -> Row:
    listed = printable(Path(urlsplit(url).path).name if url else path.name)
    try:
        if isinstance(record, DataError):
            raise record
        if not isinstance(record, dict):
            raise DataError("not an object with a `path` or `file`")
        check_caption(record.get("caption"))
        name = record.get("path") or record.get("file")
        if isinstance(record.get("segments"), list) and not name and not url:
            if record.get("actions") is not None:
                raise DataError("segments and actions: a sample of segments has no steps; leave one of the two out")
            told = segments.from_list(record["segments"], path.parent, lambda file: row_name(path.parent, file))
            return Row(f"{listed}, entry {number}", fields=record | {"segments": told})
        if not name:
            raise DataError("names no file in a column `path` or `file`")
        if not isinstance(name, str) or "\0" in name:
            raise DataError(f"{printable(str(name))!r} is not the name of a file")
        if name.startswith(PIPE):
            raise DataError("a list names files, and no commands")
        if url:  # nothing of this machine, whatever it says
            record = {key: each for key, each in record.items() if not (key in recordings.NAMES and _is_file(each))}
        record = recordings.from_list(record, path.parent)
    except DataError as error:
        return Row(f"{listed}, entry {number}", problem=str(error))
    # A csv row longer than its header keeps the rest under None, a shorter one holds None: neither is a field.
    fields = {key: record[key] for key in record if key not in (None, *FILE_COLUMNS) and record[key] is not None}
    if url and not address(name):
        return Row(printable(name), url=join(url.rpartition("/")[0], name.lstrip("/")), fields=fields)
    if address(name):
        return Row(shown(name), url=name, fields=fields)
    return Row(row_name(path.parent, name), path.parent / name, fields=fields)


def _is_file(cell: object) -> bool:
    return isinstance(cell, str) and Path(cell).suffix in (".json", ".npy")


def decode(data: bytes) -> str:
    """As text; bytes of what should be UTF-8 and is not become lone surrogates, so that a row of them can be told."""
    return data.decode(*_encoding(data))


def _encoding(beginning: bytes) -> tuple[str, str]:
    """What a text that begins so is coded in, and what becomes of bytes that are not."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace"
    return "utf-8", "surrogateescape"


def is_text(value: str) -> bool:
    """Whether a part of what `decode` gave was UTF-8."""
    return value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value)


def _json_records(lines: Iterable[str]) -> Iterator[object]:
    for line in lines:
        if not line.strip():
            continue
        try:
            yield parse_json(line) if is_text(line) else DataError("not UTF-8")
        except DataError as error:
            yield error


def _check_columns(names: Iterable[str], told: str) -> None:
    """DataError: a column stands twice, and which of the two is meant cannot be known. Of spreadsheets' columns without
    a name there may be many."""
    twice = [name for name, count in Counter(names).items() if name and count > 1]
    if twice:
        raise DataError(f"{told}: the column {printable(twice[0])!r} stands twice: rename one of the two, or remove it")


def _csv_records(lines: Iterable[str], told: str) -> Iterator[object]:
    header: list[str] | None = None
    for record in _csv_rows(iter(lines)):
        if isinstance(record, DataError):
            yield record
        elif header is None:
            header = [printable(name.strip()) for name in record]  # a blank behind a comma names no other column
            _check_columns(header, told)
        elif not all(map(is_text, record)):
            yield DataError("not UTF-8")
        else:
            cells = dict(zip(header, record, strict=False))
            yield dict.fromkeys(header[len(record) :]) | cells


def _csv_rows(lines: Iterator[str]) -> Iterator[list[str] | DataError]:
    """The cells of each row. One that goes over several lines must be quoted to the letter: a quote that is never
    closed would take all rows after it along; its first line is then a bad row, and the next one is read."""
    again: deque[str] = deque()
    taken: list[str] = []

    def following() -> Iterator[str]:
        """The next lines, each noted as it is taken."""
        while (line := again.popleft() if again else next(lines, None)) is not None:
            taken.append(line)
            yield line

    while True:
        taken.clear()
        try:
            row = next(csv.reader(following()), None)
            if row is None:
                return
            if len(taken) > 1:
                next(csv.reader(taken, strict=True))
        except csv.Error as error:
            yield DataError(f"broken quotes ({error})")
            again.extendleft(reversed(taken[1:]))
        else:
            if row:
                yield row
