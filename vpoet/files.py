"""Files: written aside and put in place, brought to the disk, hashed, read as JSON, kept inside their folder, locked.

    .NAME.HOST-PID-N.tmp.SUFFIX --written, synced--> NAME.SUFFIX

A reader meets a file or folder whole or not at all, a kill or a full disk leaves nothing under a final name, and
what was left aside goes when the folder is next `locked`. Whatever a disk refuses is an `OutputError`.
"""

import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from vpoet.errors import DataError, OutputError, VpoetWarning

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
"""What a folder of a bundle or a tokenizer holds in any case."""
LOCK = ".lock"
CHUNK = 1 << 24
_HERE = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
"""This machine: others that share a folder have the same numbers for other processes."""
_ASIDE = re.compile(rf"\..*\.{_HERE}-(\d+)-\d+\.tmp(\.[^.]*)?", re.DOTALL)
_JOINING = 1.0
"""Seconds that the processes of one launcher wait for each other's first look at a lock."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_numbers = itertools.count()
_held: set[Path] = set()


def programs_folder() -> Path:
    """Where tokenizers/, train/ and sample/ lie: inside an installed wheel, else beside the package."""
    package = Path(__file__).parent
    installed = package / "programs"
    return installed if installed.is_dir() else package.parent


def cache_folder() -> Path:
    """``vpoet/`` in the user's cache folder (XDG_CACHE_HOME, or ~/.cache). OutputError: the user has no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vpoet"
    except RuntimeError:  # of a number without a name, as in containers
        raise OutputError("this user has no home folder; say in XDG_CACHE_HOME where things may be kept") from None


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Whatever the disk refuses inside is an OutputError that names ``path``."""
    try:
        yield
    except BrokenPipeError:  # of a print in between: the reader of our output has left
        raise
    except OSError as error:
        remedy = "make room there and run it again" if error.errno in _FULL else "choose another place"
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; {remedy}") from None


def make_folder(folder: str | Path) -> None:
    """Make a folder, and those on the way to it, unless it is there; OutputError if it can't be."""
    with writing(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)


def aside_of(path: Path) -> Path:
    """A name beside ``path`` that no other writer takes, and that `locked` knows as left over; of the same suffix, by
    which libraries know what to write."""
    # cut, as the name of the whole must not become too long for the disk
    return path.with_name(f".{path.stem[:40]}.{_HERE}-{os.getpid()}-{next(_numbers)}.tmp{path.suffix[:20]}")


@contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Where to write a file that gets the name ``path`` when the context ends, whole and on the disk.

    Folders on the way to it are made. An exception inside leaves what was there before. OutputError: the disk refuses.
    """
    path = Path(path)
    fresh = aside_of(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield fresh
            _sync(fresh)
            put_in_place(fresh, path)
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when the context ends, whole and on the disk.

    An exception inside leaves what was there before. OutputError: the disk refuses.
    """
    fresh = aside_of(folder)
    old = folder.with_name(f".{folder.name[:40]}.{os.getpid()}.old")
    try:
        with writing(folder):
            fresh.mkdir(parents=True)
            yield fresh
            for path in (*fresh.rglob("*"), fresh):
                _sync(path)
            if folder.exists():
                folder.replace(old)
            try:
                put_in_place(fresh, folder)
            except OSError:
                with suppress(OSError):
                    old.replace(folder)
                raise
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a file that is either whole and on the disk, or not there; text as UTF-8. OutputError: the disk refuses."""
    with aside(path) as fresh:
        fresh.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def appending(path: Path) -> Iterator[TextIO]:
    """A file of lines that is written on to; half a line that a full disk or a kill left at its end is ended first.

    OutputError: the disk refuses.
    """
    with writing(path), path.open("a+b") as whole:
        if whole.tell():
            whole.seek(-1, os.SEEK_END)
            if whole.read() != b"\n":
                whole.write(b"\n")
        with io.TextIOWrapper(whole, encoding="utf-8", write_through=True) as lines:
            yield lines


def put_in_place(fresh: Path, path: Path) -> None:
    """Give a file or folder that is on the disk its name, and bring that to the disk, too."""
    fresh.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk: what is written next must not overtake a rename in it."""
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class HashedFile:
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
        """Safe to call twice; OSError if the disk refuses."""
        if not self._file.closed:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            finally:
                self._file.close()


def open_file(path: Path) -> BinaryIO:
    """A file to read; OSError also for what is none: a pipe could be waited for without end."""
    if not path.is_file():
        path.stat()  # tells what is not there
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.open("rb")


def fingerprint(path: Path) -> dict[str, int | str]:
    """Bytes and SHA-256 of a file; OSError if it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with open_file(path) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def read_json(path: Path) -> Any:
    """A file of our own as JSON: OSError if it cannot be read, ValueError for everything else that it may hold."""
    try:
        with open_file(path) as file:
            return json.load(file)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def inside(folder: Path, name: object) -> Path:
    """The file of ``folder`` that a file names. DataError if that is no plain name: it could lead anywhere."""
    plain = isinstance(name, str) and name not in ("", ".", "..") and name.isprintable() and len(name) < 256
    if not plain or re.search(r"[/\\]", str(name)):
        raise DataError(f"{folder}: {str(name)[:80]!r} is not the name of a file in this folder")
    return folder / str(name)


@contextmanager
def locked(folder: str | Path, name: str = LOCK) -> Iterator[None]:
    """Keep all other processes out of a folder that this one writes; it is made if it isn't there.

    OutputError, at once, if another process is at it. The processes of one launcher's run (RANK, WORLD_SIZE) share the
    folder, each of its ranks once. A process may lock again what it has locked. The kernel frees the lock however the
    process ends. What killed writers left aside in the folder is removed.
    """
    folder = Path(folder)
    make_folder(folder)
    path = folder.resolve() / name
    if path in _held:
        yield
        return
    with ExitStack() as stack:
        run = _launch()
        stack.enter_context(_lock(path, folder, run))
        if run:
            rank = path.with_name(f"{name}-{int(os.environ['RANK'])}")
            stack.enter_context(_lock(rank, folder, ""))
        _held.add(path)
        stack.callback(_held.discard, path)
        yield


def sweep(folder: Path) -> None:
    """Remove what killed writers of this machine left aside in a folder."""
    with suppress(OSError):
        for path in folder.iterdir():
            found = _ASIDE.fullmatch(path.name)
            if found and not _lives(int(found[1])):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _launch() -> str:
    """What the processes of one launcher's run have in common; "" for a process of its own."""
    if os.environ.get("WORLD_SIZE", "") in ("", "0", "1") or "RANK" not in os.environ:
        return ""
    names = ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
    return " ".join(os.environ.get(name, "-") for name in names)


@contextmanager
def _lock(path: Path, folder: Path, run: str) -> Iterator[None]:
    handle = _take(path, folder, run)
    try:
        yield
    finally:
        with suppress(OSError):  # held by others of the run: the last one takes the file away
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        os.close(handle)


def _take(path: Path, folder: Path, run: str) -> int:
    """The handle that holds the lock: alone, or together with those that wrote the same ``run`` into it."""
    began = time.monotonic()
    while True:
        with writing(folder):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            alone = _try(handle, fcntl.LOCK_EX)
            if alone and _is(handle, path):
                about = {"pid": os.getpid(), "host": socket.gethostname(), "run": run}
                with writing(folder):
                    os.ftruncate(handle, 0)
                    os.pwrite(handle, json.dumps(about).encode(), 0)
                sweep(folder)
            # To share is to let go of the whole and take a part: another run may come between, so look who is in.
            mine = (alone and not run) or (bool(run) and _try(handle, fcntl.LOCK_SH) and _owner(handle)["run"] == run)
            if mine and _is(handle, path):
                kept, handle = handle, -1
                return kept
            owner = _owner(handle)
        finally:
            if handle >= 0:
                os.close(handle)
        gone = not path.exists()  # the holder ended meanwhile
        waiting = owner["run"] is None or (bool(run) and owner["run"] == run)
        if not (gone or alone or waiting) or time.monotonic() > began + _JOINING:
            raise OutputError(
                f"{folder}: process {owner['pid']} on {owner['host']} is writing there; wait for its end, or choose "
                "another folder"
            )
        time.sleep(0.02)


def _try(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        told = f"the file system has no locks ({error.strerror}): see to it that one process alone writes to a folder"
        warnings.warn(told, VpoetWarning, stacklevel=2)
    return True


def _is(handle: int, path: Path) -> bool:
    """Whether the lock that is held is still the one that others find."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        return False


def _owner(handle: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(handle, 4096, 0))
        return {key: found[key] for key in ("pid", "host", "run")}
    except (ValueError, KeyError, TypeError):  # it has the lock and has not written yet
        return {"pid": "?", "host": "?", "run": None}
