"""A folder of shards, wherever it lies: one on a server is read through a bounded cache on this machine.

    s3://bucket/tokens/train              CACHE/0123456789abcdef/
        manifest.json         ------>         manifest.json      looked at anew when a run starts
        raw-00000-00000.tar   ------>         raw-00000-00000.tar     if it is the very file that the manifest lists

The oldest shards go when there are more than `MOST` bytes; those used in the last `GRACE` seconds stay, so that
processes can share a cache. A server that is away is waited for, and that is told. What will be read next may be
brought in the background.
"""

import hashlib
import time
import warnings
from contextlib import suppress
from pathlib import Path

from vpoet.data.errands import Errands
from vpoet.data.remote import Retry, Unreached, address, fetch, join, shown
from vpoet.data.shards import MANIFEST, Manifest, ShardInfo
from vpoet.errors import DataError, VpoetWarning
from vpoet.files import cache_folder

GIGABYTE = 10**9
MOST = 50.0
"""GB that the cache takes by default."""
GRACE = 60.0
AHEAD = 0.01
"""Share of the cache above which a shard isn't brought ahead: all lanes of all processes have one that waits there."""
TOLD = 5.0
"""Seconds after which it is told that a server is waited for; again after twice as long."""


class Shelf:
    """The shards of ``folder``, a path or a URL, of which ``cache_gb`` GB are kept in ``cache``."""

    def __init__(self, folder: str | Path, *, cache: str | Path = "", cache_gb: float = MOST) -> None:
        self.url = address(folder)
        self.name = shown(self.url) if self.url else str(folder)
        """For messages."""
        key = hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self._cache = cache_folder() / "shards" if self.url and not cache else Path(cache)
        self.folder = self._cache / key if self.url else Path(folder)
        """Where the shards lie that are here."""
        self._most = cache_gb * GIGABYTE
        self.waiting = ""
        """What it is waiting for right now."""
        self._errands = Errands()

    def manifest(self) -> Manifest:
        """DataError: there is none, or it cannot be had."""
        if self.url:
            fetch(join(self.url, MANIFEST), self.folder / MANIFEST)
        return Manifest.load(self.folder)

    def find(self) -> Manifest | None:
        """The manifest, or None where a folder of this machine has none (yet)."""
        return self.manifest() if self.url or (self.folder / MANIFEST).is_file() else None

    def path(self, shard: ShardInfo) -> Path:
        """Where the shard lies on this machine; it is brought here if need be, however long that takes."""
        path = self.folder / shard.name
        if not self.url:
            return path
        self._errands.take(shard.name)
        if self._has(shard):
            with suppress(OSError):
                path.touch()
            return path
        told = TOLD

        def retry(why: str, seconds: float) -> None:
            nonlocal told
            self.waiting = f"{join(self.name, shard.name)} ({why})"
            if seconds >= told:
                told = 2 * seconds
                warnings.warn(f"waiting for {self.waiting} for {seconds:.0f} s", VpoetWarning, stacklevel=4)

        try:
            self._bring(shard, retry)
        finally:
            self.waiting = ""
        return path

    def ahead(self, shard: ShardInfo) -> None:
        """Bring a shard here in the background, if it is small against the cache: `path` will be asked for it soon."""
        if self.url and shard.bytes <= AHEAD * self._most and not self._has(shard):
            self._errands.add(shard.name, lambda: self._bring(shard, _not_again))

    def _has(self, shard: ShardInfo) -> bool:
        path = self.folder / shard.name
        return path.is_file() and path.stat().st_size == shard.bytes

    def _bring(self, shard: ShardInfo, retry: Retry) -> None:
        self._make_room(shard.bytes)
        fetch(join(self.url, shard.name), self.folder / shard.name, sha256=shard.sha256, retry=retry)

    def _make_room(self, size: int) -> None:
        """Remove the shards that were not used for longest, of all folders in the cache."""
        if size > self._most:
            told = f"a shard of {size / GIGABYTE:.3g} GB, and the cache takes {self._most / GIGABYTE:g} GB"
            raise DataError(f"{self.name}: {told}: give it more")
        found = []
        for path in self._cache.glob("*/*.tar"):
            with suppress(OSError):  # another process removed it
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        held = sum(each for _, each, _ in found)
        for used, each, path in sorted(found):
            if held + size <= self._most or used > time.time() - GRACE:
                break
            path.unlink(missing_ok=True)
            held -= each


def _not_again(why: str, seconds: float) -> None:
    raise Unreached(why)
