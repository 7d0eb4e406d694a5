"""Files that people sent: kept by their content's hash, under names of our own, the oldest let go for new ones."""

import hashlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from vpoet.errors import DataError
from vpoet.files import make_folder, write_atomic
from vpoet.generate.kept_codes import Source
from vpoet.media.video import Video
from vpoet.serve import reader
from vpoet.serve.reader import Reading

LARGEST = 64 << 20
"""Bytes of a file."""
MOST, MOST_FILES = 2 << 30, 4096
"""Of all together, with what is shown of them; and how many."""
ARRIVING = 256 << 20
"""Bytes of all files that are on their way, in memory."""
SLOWEST = 60
"""Seconds for a file to arrive."""
_ABOUT, _DATA, _PREVIEW = ".json", ".bin", ".webp"


class Uploads:
    """A folder of files by id, the beginning of their sha256."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        self._known: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob(f"*{_ABOUT}"), key=lambda path: path.stat().st_mtime):
            try:
                about = json.loads(path.read_text())
                ours = about["id"] == path.stem and about["bytes"] >= 0 and about["kind"]
            except (OSError, ValueError, LookupError, TypeError, RecursionError):  # damaged, or none of ours
                continue
            if ours and self._path(path.stem, _DATA).is_file():
                self._known[path.stem] = about
        self._readers = anyio.CapacityLimiter(2)
        self._arriving = 0
        self._keeping = threading.Lock()

    def _path(self, name: str, suffix: str) -> Path:
        return self._folder / f"{name}{suffix}"

    def about(self, name: str) -> dict[str, Any] | None:
        """What `reader.look` said of a file, with its ``id`` and the ``bytes`` that it takes; None: it is not here."""
        return self._known.get(name)

    def preview(self, name: str) -> bytes:
        """What is shown of it, a .webp. The errors are those of `read`."""
        return self._held(name, _PREVIEW)

    async def add(self, pieces: AsyncIterator[bytes]) -> dict[str, Any]:
        """Keep a file. DataError: it is empty, too large, too slow, or nothing that can be read; or too many files
        arrive at once."""
        data = bytearray()
        try:
            with anyio.move_on_after(SLOWEST) as clock:
                async for piece in pieces:
                    data += piece
                    self._arriving += len(piece)
                    if len(data) > LARGEST:
                        raise DataError(f"a file may have {LARGEST >> 20} MB at most")
                    if self._arriving > ARRIVING:
                        raise DataError("too many files arrive at once; send it again, later")
            if clock.cancelled_caught:
                raise DataError(f"the file did not arrive within {SLOWEST} seconds")
            if not data:
                raise DataError("the file is empty")
            name = hashlib.sha256(data).hexdigest()[:32]
            if (about := self._known.get(name)) is None:
                about = await run_sync(self._keep, name, bytes(data), limiter=self._readers)
            return about
        finally:
            self._arriving -= len(data)

    def _keep(self, name: str, data: bytes) -> dict[str, Any]:
        told = reader.look(data)
        preview = told.pop("bytes")
        write_atomic(self._path(name, _DATA), data)
        write_atomic(self._path(name, _PREVIEW), preview)
        about = {"id": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data) + len(preview), **told}
        write_atomic(self._path(name, _ABOUT), json.dumps(about))
        with self._keeping:
            self._known[name] = about
            held = sum(each["bytes"] for each in self._known.values())
            while len(self._known) > 1 and (held > MOST or len(self._known) > MOST_FILES):
                oldest = next(iter(self._known))
                held -= self._known.pop(oldest)["bytes"]
                for suffix in (_ABOUT, _DATA, _PREVIEW):
                    self._path(oldest, suffix).unlink(missing_ok=True)
        return about

    async def read(self, name: str, reading: Reading) -> Video:
        """Its frames. DataError: it has been let go, or cannot be read so."""
        return await run_sync(reader.read, self._held(name, _DATA), reading, limiter=self._readers)

    async def read_codes(self, name: str) -> Source:
        """The codes of a record. The errors are those of `read`."""
        return await run_sync(reader.read_codes, self._held(name, _DATA), limiter=self._readers)

    def _held(self, name: str, suffix: str) -> bytes:
        try:
            if name in self._known:
                return self._path(name, suffix).read_bytes()
        except FileNotFoundError:  # it has just been let go
            pass
        raise DataError("a file that was sent is here no more: send it again")
