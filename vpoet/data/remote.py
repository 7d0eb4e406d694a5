"""Files that lie elsewhere: ``http(s)://`` (Python's own client), ``s3://`` and ``gs://`` (fsspec), and
``pipe:COMMAND``, whose output is the file, as webdataset has it.

A server that is away, or gives nothing for `STALL` seconds, may be there later (`Unreached`); a file that is not there,
and one that may not be read, are a DataError at once. Credentials are those that fsspec finds for itself, in the
environment or its own files.
"""

import logging
import os
import re
import select
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

from vpoet.data.fields import printable
from vpoet.errors import BackendError, DataError
from vpoet.files import HashedFile, aside

PIPE = "pipe:"
SCHEMES = ("http://", "https://", "s3://", "gs://", PIPE)
STALL = 30.0
"""Seconds without a byte after which a server counts as away; a slower one than `SLOWEST` does, too."""
SLOWEST = 100
"""Bytes a second."""
PIECE = 1 << 20
TRIES = 3
UNREACHED = "cannot be reached"
_REFUSED = ("AccessDenied", "NoCredentialsError", "PartialCredentialsError", "InvalidAccessKeyId", "Forbidden")
_REMEDIES = {
    "s3": (
        ", or no such bucket; `aws s3 ls` shows what there is",
        " (AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, say who asks)",
    ),
    "gs": (
        ", or no such bucket; `gcloud storage ls` shows what there is",
        " (`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS=KEY.json, says who asks)",
    ),
}
"""What is told of a file that isn't there, and of one that may not be read."""


class Unreached(Exception):
    """What did not come, and may come later."""


class _OtherFile(Unreached):
    """It came whole, and is not the one that was asked for."""


class Retry(Protocol):
    """Told before each further try."""

    def __call__(self, why: str, seconds: float, /) -> None:
        """``seconds``: how long it has been tried. It may raise to give up."""


def address(name: str | Path) -> str:
    """The URL that a name is, or "" for a file of this machine. A `Path` has one of the two slashes left."""
    text = re.sub(r"^(https?|s3|gs):/(?=[^/])", r"\1://", str(name))
    return text if text.startswith(SCHEMES) else ""


def shown(url: str) -> str:
    """A URL as shards and reports tell it: without its query and the user's name and password, which may be secret."""
    if url.startswith(PIPE):
        return printable(url)
    parts = urlsplit(url)
    return printable(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")))


def join(folder: str, name: str) -> str:
    """The file ``name`` of a folder elsewhere; of a pipe, ``{}`` in the command stands for the name."""
    if folder.startswith(PIPE):
        if "{}" not in folder:
            raise DataError(f"{shown(folder)}: a pipe to a folder of shards has {{}} where a file's name belongs")
        return folder.replace("{}", name)
    parts = urlsplit(folder)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def fetch(url: str, path: Path, *, sha256: str | None = None, retry: Retry | None = None) -> None:
    """Bring a file here, whole or not at all; ``sha256``: what it has to be, hex.

    ``retry`` is asked before each further try, without end; without it there are `TRIES`. DataError: it is not there,
    may not be read, is something else than asked for, or did not come; BackendError: a package is missing.
    """
    began, wait, tries = time.monotonic(), 0.5, 0
    while True:
        tries += 1
        try:
            with aside(path) as fresh:
                _copy(url, fresh, sha256)
            return
        except Unreached as error:
            if tries >= TRIES and (retry is None or isinstance(error, _OtherFile)):
                raise DataError(f"{shown(url)}: {UNREACHED}: {error}") from None
            if retry is not None:
                retry(str(error), time.monotonic() - began)
            time.sleep(wait)
            wait = min(2 * wait, STALL)


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """The file, here as long as the context lasts; its name ends like the URL's path. The errors are `fetch`'s."""
    with tempfile.TemporaryDirectory(prefix="vpoet-") as folder:
        suffix = "" if url.startswith(PIPE) else Path(urlsplit(url).path).suffix[:20]
        path = Path(folder) / f"file{suffix if suffix.isprintable() else ''}"
        fetch(url, path)
        yield path


def _copy(url: str, path: Path, sha256: str | None) -> None:
    began = time.monotonic()
    with closing(_open(url)) as stream, path.open("wb") as raw, closing(HashedFile(raw)) as file:
        while piece := _read(url, stream):
            file.write(piece)
            passed = time.monotonic() - began
            if passed > STALL and file.size < SLOWEST * passed:
                raise Unreached(f"{file.size} bytes in {passed:.0f} s")
        stream.finish()
        digest = file.hash.hexdigest()
    if sha256 is not None and digest != sha256:
        raise _OtherFile(f"its SHA-256 is {digest[:12]}..., and {sha256[:12]}... was asked for")


class _Stream(Protocol):
    def read(self) -> bytes:
        """Some bytes; none at the end."""

    def finish(self) -> None:
        """It has been read: Unreached if that was not all."""

    def close(self) -> None: ...


def _read(url: str, stream: _Stream) -> bytes:
    try:
        return stream.read()
    except Exception as error:
        _raise(url, error)


def _open(url: str) -> _Stream:
    try:
        if url.startswith(PIPE):
            return _Pipe(url.removeprefix(PIPE))
        return _Http(url) if url.startswith(("http://", "https://")) else _Bucket(url)
    except Exception as error:
        _raise(url, error)


def _raise(url: str, error: Exception) -> NoReturn:
    """What went wrong, as Unreached where it may mend by itself."""
    if isinstance(error, Unreached | DataError | BackendError):
        raise error
    if isinstance(error, ImportError):
        raise BackendError(f'{shown(url)}: reading it needs a package ({error}): pip install "vpoet[remote]"') from None
    code = getattr(error, "code", None)
    status = code if isinstance(code, int) else None  # of urllib's errors, and of gcsfs's
    listing, credentials = _REMEDIES.get(url.partition(":")[0], ("", ""))
    named = f"{type(error).__name__}: {error}"
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise DataError(f"{shown(url)}: no such file{listing}") from None
    if isinstance(error, PermissionError) or status in (401, 403) or any(word in named for word in _REFUSED):
        told = f"no right to read it, or no credentials: {printable(str(error))}{credentials}"
        raise DataError(f"{shown(url)}: {told}") from None
    if isinstance(error, ValueError) or (status is not None and 400 <= status < 500 and status not in (408, 429)):
        raise DataError(f"{shown(url)}: {printable(named)}") from None
    raise Unreached(printable(named)) from None


class _Http:
    def __init__(self, url: str) -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "vpoet"})
        self._answer: Any = urllib.request.urlopen(request, timeout=STALL)
        self._left = self._answer.length
        """Bytes, where the server tells."""

    def read(self) -> bytes:
        piece: bytes = self._answer.read1(PIECE)
        self._left = None if self._left is None else self._left - len(piece)
        return piece

    def finish(self) -> None:
        if self._left:
            raise Unreached(f"it broke off, {self._left} bytes before its end")

    def close(self) -> None:
        self._answer.close()


_clients: dict[tuple[int, str], Any] = {}
"""The client of each kind of bucket that opened a file, by process and scheme: making one takes some tenths of a second
of a processor, a file of a few hundred kB with it about a hundredth."""


class _Bucket:
    """A file of a bucket, by fsspec."""

    def __init__(self, url: str) -> None:
        scheme = url.partition(":")[0]
        here = os.getpid(), scheme
        self._file: Any
        if (kept := _clients.get(here)) is not None:
            try:
                self._file = self._opened(kept, url)
                return
            except Exception:
                # credentials run out, and there may be newer ones in the environment or a file: a new client finds them
                _clients.pop(here, None)
        client = _client(scheme)
        self._file = self._opened(client, url)
        _clients[here] = client

    @staticmethod
    def _opened(client: Any, url: str) -> Any:
        return client.open(url, "rb", block_size=4 * PIECE, cache_type="readahead")

    def read(self) -> bytes:
        piece: bytes = self._file.read(4 * PIECE)
        return piece

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def _client(scheme: str) -> Any:
    import fsspec

    # no listings kept either: a folder may hold more when it is asked again
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme == "s3":
        patience = {"connect_timeout": STALL, "read_timeout": STALL, "retries": {"max_attempts": 1}}
        options["config_kwargs"] = patience
    else:
        import aiohttp

        # what goes wrong is raised, and need not be told with a traceback, too
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())
        options["requests_timeout"] = aiohttp.ClientTimeout(total=None, sock_connect=STALL, sock_read=STALL)
    return fsspec.filesystem(scheme, **options)


class _Pipe:
    """What a shell command prints."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, start_new_session=True)
        assert self._process.stdout is not None
        self._out = self._process.stdout

    def read(self) -> bytes:
        if not select.select([self._out], [], [], STALL)[0]:
            raise Unreached(f"the command printed nothing for {STALL:.0f} s")
        return os.read(self._out.fileno(), PIECE)

    def finish(self) -> None:
        if status := self._process.wait():
            raise Unreached(f"the command ended with status {status}")

    def close(self) -> None:
        self._out.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        self._process.wait()
