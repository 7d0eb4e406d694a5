"""Shards: tar files of samples in webdataset's layout, with a manifest beside them.

A sample is a few files that share a key: ``KEY.json`` and its payloads (``KEY.mp4``, ``KEY.png``, ``KEY.codes.npy``). A
tar has no checksum of its data and a cut one looks whole up to the cut, so the json carries each payload's SHA-256, and
reading checks it. A damaged sample is skipped and counted in `Problems`; it never stops a run.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast, get_args

import numpy as np

from vpoet.data.fields import KEY, captions, parse_json, printable, words
from vpoet.data.npy import codes_to_npy
from vpoet.data.tar import Grouped, read_groups
from vpoet.errors import DataError
from vpoet.files import HashedFile, aside_of, inside, open_file, put_in_place, read_json, write_atomic, writing
from vpoet.sequence.actions import ActionSpace

Kind = Literal["raw", "tokens"]
MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest and of the layout it describes."""
PICTURE_PARTS = ("mp4", "png", "jpg", "webp")
"""The extensions that a raw sample's payload may have."""
NAMED = 20
"""How many names a reason keeps."""


@dataclass
class Problems:
    """What was skipped and why: a count for each reason, and the first few names."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    """By reason, at most `NAMED` of them."""

    def add(self, reason: str, name: str) -> None:
        self.update(Problems({printable(reason): 1}, {printable(reason): [printable(name)]}))

    def update(self, other: "Problems") -> None:
        for reason, count in other.counts.items():
            self.counts[reason] = self.counts.get(reason, 0) + count
            listed = self.names.setdefault(reason, [])
            listed.extend(other.names[reason][: NAMED - len(listed)])

    def to_dict(self) -> dict[str, Any]:
        return {"counts": dict(self.counts), "names": {reason: list(names) for reason, names in self.names.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Problems":
        """The inverse of `to_dict`; ValueError, KeyError, TypeError or AttributeError for anything else."""
        counts, names = dict(values["counts"]), {reason: list(some) for reason, some in values["names"].items()}
        if counts.keys() != names.keys() or not all(_is_count(count) for count in counts.values()):
            raise ValueError("not a count and names for each reason")
        if not all(isinstance(name, str) for some in names.values() for name in some):
            raise ValueError("names that are no text")
        return cls(counts, names)

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
    number: int = 0
    """Its place in its shard, unsound samples counted."""

    @property
    def video(self) -> bytes:
        """The payload that is a video or an image; of segments, the first."""
        for extension in (*PICTURE_PARTS, *self.parts):
            if extension in self.parts and extension.rpartition(".")[2] in PICTURE_PARTS:
                return self.parts[extension]
        raise DataError(f"sample {self.key}: no video or image in it, only {', '.join(self.parts) or 'json'}")

    @property
    def captions(self) -> list[str]:
        """The wordings of its caption; there may be none."""
        return captions(self.json)

    @property
    def words(self) -> list[str]:
        """All that it says: its caption, its captions in time, the texts that it interleaves."""
        return words(self.json)


@dataclass(frozen=True)
class ShardInfo:
    name: str
    samples: int
    bytes: int
    sha256: str
    """Of the whole tar file, hex."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ShardInfo":
        """What `asdict` gave; ValueError, KeyError or TypeError for anything else, and for the name of no shard."""
        info = cls(**values)
        if not (_is_count(info.samples) and _is_count(info.bytes)):
            raise ValueError(f"{info.name!r}: samples and bytes are counts, not {info.samples!r} and {info.bytes!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", info.sha256):
            raise ValueError(f"{info.name!r}: not a SHA-256: {info.sha256!r}")
        # NAME.json may lie beside NAME.tar, and must not be the manifest
        if inside(Path(), info.name).suffix != ".tar" or Path(info.name).with_suffix(".json").name == MANIFEST:
            raise ValueError(f"{info.name!r} is not the name of a shard")
        return info


@dataclass
class Manifest:
    """The list of a folder's shards, ``manifest.json``. A folder without one is not a finished set."""

    kind: Kind
    shards: list[ShardInfo]
    tokenizer: str | None = None
    """Content hash of the tokenizer that made the codes; None for raw shards."""
    actions: ActionSpace | None = None
    """What can be done in the recordings among its samples; None if there are none."""

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)

    @classmethod
    def load(cls, folder: str | Path) -> "Manifest":
        """DataError: there is none, it is damaged, or it names what is not a shard of this folder."""
        path = Path(folder) / MANIFEST
        try:
            values = read_json(path)
            if values["format"] != FORMAT:
                raise DataError(f"{path}: format {values['format']}, this vpoet reads {FORMAT}: make the shards again")
            shards = [ShardInfo.from_dict(shard) for shard in values["shards"]]
            if len({shard.name for shard in shards}) < len(shards):
                raise ValueError("a shard is listed twice")
            kind, tokenizer = values["kind"], values["tokenizer"]
            if kind not in get_args(Kind) or not isinstance(tokenizer, str | None):
                raise ValueError(f"kind {kind!r} of tokenizer {tokenizer!r}")
            actions = None if values.get("actions") is None else ActionSpace.of(values["actions"])
            return cls(cast(Kind, kind), shards, tokenizer, actions)
        except FileNotFoundError:
            raise DataError(f"{path}: not there; a shard folder is made by `vpoet ingest` or `vpoet encode`") from None
        except (OSError, KeyError, TypeError, ValueError) as error:
            told = printable(str(error) if isinstance(error, ValueError) else repr(error))
            raise DataError(f"{path}: not a manifest of shards: {told}; make the shards again") from None

    def save(self, folder: str | Path) -> None:
        values = {"format": FORMAT, "samples": self.samples, "bytes": self.bytes, **asdict(self)}
        values |= {"actions": self.actions.told()} if self.actions else {}
        values = {name: value for name, value in values.items() if name != "actions" or value}
        write_atomic(Path(folder) / MANIFEST, json.dumps(values, indent=1, ensure_ascii=False).encode())


class ShardFile:
    """One shard in the making, aside until it is whole. An exception inside, or a full disk, leaves no shard."""

    def __init__(self, path: str | Path) -> None:
        from webdataset.writer import TarWriter  # which imports torch, and nothing else here does

        self.path = Path(path)
        self.samples = 0
        self.info: ShardInfo | None = None
        """Set once the shard is in place."""
        self._fresh = aside_of(self.path)
        self._keys: set[str] = set()
        with writing(self.path):
            self._file = HashedFile(self._fresh.open("wb"))
        # Fixed owner, mode and time: the same samples give the same bytes, and so the same checksum.
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, encoder=False, mtime=0)

    def write(self, key: str, parts: dict[str, Any]) -> None:
        """``parts``: the ``json`` dictionary and payloads by extension; an array (of codes) under an ``.npy`` one."""
        if not KEY.fullmatch(key) or key in self._keys:
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
        with writing(self.path):
            self._tar.write({"__key__": key, "json": text.encode(), **payloads})
        self.samples += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        try:
            with writing(self.path):
                if kind is None:
                    self._tar.close()
                    self._file.close()
                    put_in_place(self._fresh, self.path)
                    self.info = ShardInfo(self.path.name, self.samples, self._file.size, self._file.hash.hexdigest())
        finally:
            for part in (self._tar, self._file):
                with suppress(OSError):  # of a disk that is still full
                    part.close()
            self._fresh.unlink(missing_ok=True)


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
    path: str | Path, *, required: tuple[str, ...] = ("json",), problems: Problems | None = None, samples: int = 0
) -> Iterator[Sample]:
    """The sound samples of a shard, in order; ``required`` names extensions every sample must have.

    A sample with a part missing, broken json or a wrong checksum, and the rest of a tar that breaks off (before the
    ``samples`` of its manifest), are skipped and noted in ``problems``. A file that is not there is a DataError.
    """
    path, found, reasons = Path(path), 0, set[str]()
    problems = Problems() if problems is None else problems

    def note(reason: str, name: str) -> None:
        reasons.add(reason)
        problems.add(reason, f"{path}: {name}")

    try:
        stream = open_file(path)
    except OSError as error:
        raise DataError(f"{path}: shard cannot be opened: {error.strerror}") from None
    with stream:
        for found, group in enumerate(read_groups(stream, note), 1):
            reason, sample = _check(group, required)
            if sample is None:
                problems.add(reason, f"{path}: {group.key}")
            else:
                yield replace(sample, number=found - 1)
        if found < samples and "broken tar" not in reasons:
            note("broken tar", "cut short")


def _check(group: Grouped, required: tuple[str, ...]) -> tuple[str, Sample | None]:
    """("", the sample), or why it is none."""
    parts = group.parts
    if group.twice:
        return f"{group.twice[0]} comes twice", None
    text = parts.pop("json", None)
    if text is None:
        return "missing json", None
    try:
        fields = parse_json(text)
    except DataError:
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
    return "", Sample(group.key, parts, fields)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
