"""Shards: tar files of samples in webdataset's layout, with a manifest beside them.

A sample is a few files that share a key: ``KEY.json`` and its payloads (``KEY.mp4``, ``KEY.png``, ``KEY.codes.npy``). A
tar has no checksum of its data and a cut one looks whole up to the cut, so the json carries each payload's SHA-256, and
reading checks it. A damaged sample is skipped and counted in `Problems`; it never stops a run.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import numpy.typing as npt
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from vpoet.errors import DataError

Kind = Literal["raw", "tokens"]
MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest and of the layout it describes."""
PICTURE_PARTS = ("mp4", "png", "jpg", "webp")
"""The extensions that a raw sample's payload may have."""
TAR_END = 1024
"""Bytes, all zero."""
NAMED = 20
"""How many names a reason keeps."""


@dataclass
class Problems:
    """What was skipped and why: a count for each reason, and the first few names."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    """By reason, at most `NAMED` of them."""

    def add(self, reason: str, name: str) -> None:
        self.update(Problems({reason: 1}, {reason: [name]}))

    def update(self, other: "Problems") -> None:
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            listed = self.names.setdefault(reason, [])
            listed.extend(other.names[reason][: NAMED - len(listed)])

    def to_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "names": {reason: list(names) for reason, names in self.names.items()}}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __str__(self) -> str:
        return "; ".join(
            f"{count} {reason} ({', '.join(self.names[reason][:3])}{', ...' if count > 3 else ''})"
            for reason, count in sorted(self.counts.items(), key=lambda item: -item[1])
        )


@dataclass(frozen=True)
class Sample:
    key: str
    parts: dict[str, bytes]
    """Payload by extension, json left out: ``{"mp4": ...}``."""
    json: dict[str, Any]

    @property
    def video(self) -> bytes:
        """The payload that is a video or an image."""
        for extension in PICTURE_PARTS:
            if extension in self.parts:
                return self.parts[extension]
        raise DataError(f"sample {self.key}: no video or image in it, only {', '.join(self.parts) or 'json'}")


@dataclass(frozen=True)
class ShardInfo:
    name: str
    samples: int
    bytes: int
    sha256: str
    """Of the whole tar file, hex."""


@dataclass
class Manifest:
    """The list of a folder's shards, ``manifest.json``. A folder without one is not a finished set."""

    kind: Kind
    shards: list[ShardInfo]
    tokenizer: str | None = None
    """Content hash of the tokenizer that made the codes; None for raw shards."""

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        path = Path(folder) / MANIFEST
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise DataError(f"{path}: format {values['format']}, this vpoet reads {FORMAT}: make the shards again")
            shards = [ShardInfo(**shard) for shard in values["shards"]]
            return cls(kind=values["kind"], shards=shards, tokenizer=values["tokenizer"])
        except FileNotFoundError:
            raise DataError(f"{path}: not there; a shard folder is made by `vpoet ingest` or `vpoet encode`") from None
        except (OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise DataError(f"{path}: not a manifest of shards: {error!r}; make the shards again") from None

    def save(self, folder: str | Path) -> None:
        values = {"format": FORMAT, "samples": self.samples, "bytes": self.bytes, **asdict(self)}
        write_atomic(Path(folder) / MANIFEST, json.dumps(values, indent=1, ensure_ascii=False).encode())


class ShardFile:
    """One shard in the making: ``NAME.tmp`` until it is whole, then renamed. An exception inside leaves no shard."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.samples = 0
        self.info: ShardInfo | None = None
        """Set once the shard is in place."""
        self._temporary = self.path.with_name(self.path.name + ".tmp")
        self._keys: set[str] = set()
        self._file = _HashedFile(self._temporary.open("wb"))
        # Fixed owner, mode and time: the same samples give the same bytes, and so the same checksum.
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, encoder=False, mtime=0)

    def write(self, key: str, parts: dict[str, Any]) -> None:
        """``parts``: the ``json`` dictionary and payloads by extension; an array (of codes) under an ``.npy`` one."""
        if not re.fullmatch(r"[\w-]{1,90}", key, re.ASCII) or key in self._keys:
            raise DataError(f"{self.path}: key {key!r} is taken, or not 1 to 90 letters, digits, '_' and '-'")
        self._keys.add(key)
        payloads = {
            extension: codes_to_npy(part) if isinstance(part, np.ndarray) else bytes(part)
            for extension, part in parts.items()
            if extension != "json"
        }
        fields = dict(parts["json"])
        fields["sha256"] = {extension: _sha256(payload) for extension, payload in payloads.items()}
        text = json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False)
        self._tar.write({"__key__": key, "json": text.encode(), **payloads})
        self.samples += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._tar.close()
        self._file.close()
        if kind is not None:
            self._temporary.unlink()
            return
        self._temporary.replace(self.path)
        sync_folder(self.path.parent)
        self.info = ShardInfo(self.path.name, self.samples, self._file.size, self._file.hash.hexdigest())


class ShardWriter:
    """Samples into shards of ``samples_per_shard``, named by ``worker`` so that many writers share a folder.

    Use it as a context; ``shards`` then lists what was written, for whoever writes the manifest
    (``Manifest("raw", writer.shards).save(folder)``). After an exception, full shards stay and the open one goes.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kind: Kind,
        samples_per_shard: int = 512,
        tokenizer: str | None = None,
        worker: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.kind = kind
        self.tokenizer = tokenizer
        self.shards: list[ShardInfo] = []
        self._per_shard = samples_per_shard
        self._worker = worker
        self._open: ShardFile | None = None
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, key: str, parts: dict[str, Any]) -> None:
        """See `ShardFile.write`."""
        if self._open is None:
            self._open = ShardFile(self.folder / f"{self.kind}-{self._worker:05d}-{len(self.shards):05d}.tar")
        self._open.write(key, parts)
        if self._open.samples == self._per_shard:
            self._finish(None)

    def manifest(self) -> Manifest:
        """Of this writer's own finished shards."""
        return Manifest(self.kind, list(self.shards), self.tokenizer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._finish(kind)

    def _finish(self, kind: type[BaseException] | None) -> None:
        if self._open is None:
            return
        shard, self._open = self._open, None
        shard.__exit__(kind)
        if shard.info is not None:
            self.shards.append(shard.info)


def read_shard(
    path: str | Path, *, required: tuple[str, ...] = ("json",), problems: Problems | None = None
) -> Iterator[Sample]:
    """The sound samples of a shard, in order; ``required`` names extensions every sample must have.

    A sample with a part missing, broken json or a wrong checksum, and the rest of a tar that breaks off, are skipped
    and noted in ``problems``. A file that is not there is a DataError.
    """
    path = Path(path)
    problems = Problems() if problems is None else problems

    errors: list[str] = []

    def broken(error: Exception) -> bool:
        errors.append(type(error).__name__)
        return False

    try:
        stream = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: shard cannot be opened: {error.strerror}") from None
    with stream:
        # A tar ends in two blocks of zeros. Cut between two members it has no other mark of being cut.
        stream.seek(max(0, stream.seek(0, io.SEEK_END) - TAR_END))
        whole = stream.read() == bytes(TAR_END)
        stream.seek(0)
        files = tar_file_expander([{"url": str(path), "stream": stream}], handler=broken)
        for grouped in group_by_keys(files, handler=broken):
            key = grouped.pop("__key__")
            parts = {name: data for name, data in grouped.items() if not name.startswith("__")}
            reason, sample = _check(key, parts, required)
            if sample is None:
                problems.add(reason, f"{path}: {key}")
            else:
                yield sample
        if errors or not whole:
            problems.add("broken tar", f"{path}: {errors[0] if errors else 'cut short'}")


def _check(key: str, parts: dict[str, bytes], required: tuple[str, ...]) -> tuple[str, Sample | None]:
    """("", the sample), or why it is none."""
    text = parts.pop("json", None)
    if text is None:
        return "missing json", None
    try:
        fields = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError):
        return "broken json", None
    if not isinstance(fields, dict):
        return "broken json", None
    sums = fields.get("sha256")
    sums = sums if isinstance(sums, dict) else {}
    for extension in sorted({*required, *sums} - {"json"}):
        if extension not in parts:
            return f"missing {extension}", None
    for extension, payload in parts.items():
        if extension in sums and _sha256(payload) != sums[extension]:
            return "wrong checksum", None
    return "", Sample(key, parts, fields)


def codes_to_npy(codes: npt.NDArray[Any]) -> bytes:
    """Codes, integers ``[t, h, w]`` of 0 and above, as the bytes of a .npy file: uint16 where they fit, else uint32."""
    if codes.ndim != 3 or codes.dtype.kind not in "iu" or (codes.size and codes.min() < 0):
        raise DataError(f"codes are integers [t, h, w] of 0 and above, not {codes.dtype} {codes.shape}")
    buffer = io.BytesIO()
    small = codes.max(initial=0) < 2**16
    np.save(buffer, np.ascontiguousarray(codes, np.uint16 if small else np.uint32), allow_pickle=False)
    return buffer.getvalue()


def npy_to_codes(data: bytes) -> npt.NDArray[np.int32]:
    """The inverse of `codes_to_npy`: ``int32 [t, h, w]``. DataError for anything else in a .npy."""
    try:
        codes = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"not a .npy of codes: {error}") from None
    if not isinstance(codes, np.ndarray) or codes.ndim != 3 or codes.dtype not in (np.uint16, np.uint32):
        raise DataError(f"codes are uint16 or uint32 [t, h, w], not {codes.dtype} {codes.shape}")
    if codes.max(initial=0) >= 2**31:
        raise DataError(f"code {codes.max()} does not fit int32")
    return codes.astype(np.int32)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file that is either whole and on the disk, or not there."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


class _HashedFile:
    """Hashes and counts what is written through it; on the disk once closed."""

    def __init__(self, file: BinaryIO) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._file = file

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: what is written next must not overtake a rename in it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
