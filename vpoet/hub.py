"""A hub of models: huggingface.co, or whatever speaks its language where HF_ENDPOINT points. By huggingface_hub.

    hf://user/name             the newest commit of a repository
    hf://user/name@revision    of a branch, a tag or a commit

What is fetched lies in huggingface_hub's own cache (HF_HUB_CACHE), where its tools find it. Each file is held against
the hash that the hub states: SHA-256 of a large one, git's own of a small one. With HF_HUB_OFFLINE the cache alone is
read. Tokens are huggingface_hub's business: `hf auth login`, or HF_TOKEN.
"""

import fcntl
import hashlib
import importlib
import io
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import vpoet
from vpoet.errors import BackendError, ConfigError, HashMismatch, HubError, OutputError, VpoetError
from vpoet.files import CHUNK, open_file

_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[^@]+)(?:@(?P<revision>.+))?", re.DOTALL)
"""A `Path` has made one slash of the two."""
_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_HASH = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")
_PATIENCE = 5
"""So many breaks of the line in a row, with no byte between them, end a download."""


@dataclass(frozen=True)
class Address:
    """A repository, and which state of it; ConfigError if its name can be none."""

    repo: str
    revision: str | None = None
    """Branch, tag or commit; None: the main branch."""

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise ConfigError(f"{self.repo!r} is no repository of a hub; it is user/name, or hf://user/name@revision")

    def __str__(self) -> str:
        return f"hf://{self.repo}" + (f"@{self.revision}" if self.revision else "")


def is_address(path: str | Path) -> bool:
    return str(path).startswith("hf:/")


def address(text: str | Path) -> Address:
    """``hf://user/name@revision``, also without its head. ConfigError if it is none."""
    whole = str(text) if is_address(text) else f"hf://{text}"
    found = _ADDRESS.fullmatch(whole)
    if not found:
        raise ConfigError(f"{str(text)!r} is no address of a hub; it is hf://user/name or hf://user/name@revision")
    return Address(found["repo"], found["revision"])


def repository(text: str) -> Address:
    """Where to push to. ConfigError: no repository's name, or one with a revision."""
    found = address(text)
    if found.revision:
        raise ConfigError(f"{text}: a push makes the newest commit of the main branch; leave out @{found.revision}")
    return found


def local(path: str | Path, parts: Collection[str]) -> Path:
    """The folder where ``path`` lies: of an address, those files of ``parts`` that it has, fetched; else itself."""
    return fetch(address(path), parts) if is_address(path) else Path(path)


def fetch(wanted: Address, parts: Collection[str]) -> Path:
    """The folder of huggingface_hub's cache with those files of ``parts`` that the repository has, each as the hub's
    hash says.

    A large file that was begun goes on at the byte where it stopped. HashMismatch: what came is not what the hub says
    it is; it is not kept. HubError: no such repository or revision, no rights, nothing there and no line to the hub.
    """
    hub = _library()
    parts = sorted(parts)
    with _asking(str(wanted), hub):
        commit, stated = ("", {}) if hub.is_offline_mode() else _fetch_large(hub, wanted, parts)
        folder = Path(hub.snapshot_download(wanted.repo, revision=wanted.revision, allow_patterns=parts, **_US))
    found = [name for name in parts if (folder / name).is_file()]
    if not found:
        raise HubError(f"{wanted}: has none of {', '.join(parts)}; `vpoet push` makes repositories that can be pulled")
    for name in found:
        path = folder / name
        # without a line to the hub: a file of the cache is a link to one that is named by its hash
        known = stated if folder.name == commit else {}
        _check(path, known.get(name, path.resolve().name), f"{wanted}: {name}")
    return folder


def send(repo: Address, files: Mapping[str, Path | bytes], message: str, private: bool) -> tuple[str, str]:
    """Put files into a repository, which is made unless it is there, as one commit: its hash, and the page to look at.

    Large files that the hub has already are not sent again, so a push that was stopped goes on with the next one. At
    the end the hub's hash of each is held against ours: HashMismatch. HubError as `fetch`.
    """
    hub = _library()
    with _asking(str(repo), hub):
        hub_api = hub.HfApi(**_US)
        page = hub_api.create_repo(repo.repo, private=private or None, exist_ok=True)
        added = [hub.CommitOperationAdd(name, data) for name, data in files.items()]
        commit = hub_api.create_commit(repo.repo, added, commit_message=message).oid
        there = _stated(hub_api.list_repo_tree(repo.repo, recursive=True, revision=commit))
    for name, data in files.items():
        if told := _difference(data, there[name]) if name in there else "it is not there":
            raise HashMismatch(f"{repo}: {name} did not arrive as it was sent: {told}; push it again")
    return str(commit), str(page)


_US = {"library_name": "vpoet", "library_version": vpoet.__version__}


def _library() -> Any:
    try:
        for module in ("constants", "errors", "utils"):
            importlib.import_module(f"huggingface_hub.{module}")
        return importlib.import_module("huggingface_hub")
    except ImportError:
        raise BackendError(
            "a hub is reached by huggingface_hub, which is not installed: pip install 'vpoet[hub]'"
        ) from None


@contextmanager
def _asking(what: str, hub: Any) -> Iterator[None]:
    """Whatever a hub answers, or does not, is a HubError."""
    errors, where = hub.errors, hub.constants.ENDPOINT
    who = "`hf auth login`, or HF_TOKEN, says who you are"
    try:
        yield
    except VpoetError:
        raise
    except errors.GatedRepoError:
        raise HubError(f"{what}: its owner lets in whom they choose: ask at {where}; {who}") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"{what}: no such repository at {where}, or a private one of others; {who}") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{what}: the repository has no such branch, tag or commit") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        if hub.is_offline_mode():
            told = "HF_HUB_OFFLINE is set, and it does not lie whole in the cache: unset it, and pull it once"
        else:
            told = f"{where} can't be reached, and it does not lie whole in the cache ({_words(error)})"
        raise HubError(f"{what}: {told}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        told = f"you may not do that ({status}); {who}" if status in (401, 403) else f"answered: {_words(error)}"
        raise HubError(f"{what}: {where}: {told}") from None
    except errors.HTTPError as error:  # the line, not the hub
        raise HubError(f"{what}: {where} can't be reached ({_words(error)}); what has come is kept") from None
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of this machine, not of the hub
            where = error.filename or hub.constants.HF_HUB_CACHE
            raise OutputError(f"{what}: {where}: {error.strerror}; HF_HUB_CACHE names another place") from None
        told = f"{_words(error)}: {_words(error.__cause__)}" if error.__cause__ else _words(error)
        raise HubError(f"{what}: {where}: {told}; try it again") from None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _stated(listed: Iterable[Any]) -> dict[str, str]:
    """The hash of each file that a hub lists: SHA-256 of large ones (64 digits), git's own of the others (40)."""
    files = [file for file in listed if hasattr(file, "blob_id")]  # the others are folders
    return {file.path: str(file.lfs.sha256 if file.lfs else file.blob_id) for file in files}


def _fetch_large(hub: Any, wanted: Address, parts: Collection[str]) -> tuple[str, dict[str, str]]:
    """Bring the large files into the cache under the names where `snapshot_download` looks for them: its own downloads
    begin at the first byte again when they are stopped. The commit, and `_stated` of its files; nothing without a line.
    """
    hub_api = hub.HfApi(**_US)
    try:
        commit = hub_api.repo_info(wanted.repo, revision=wanted.revision).sha
        listed = list(hub_api.list_repo_tree(wanted.repo, recursive=True, revision=commit))
    except hub.errors.HfHubHTTPError:
        raise
    except hub.errors.HTTPError:  # what lies in the cache may do
        return "", {}
    blobs = Path(hub.constants.HF_HUB_CACHE) / f"models--{wanted.repo.replace('/', '--')}" / "blobs"
    for file in listed:
        if file.path in parts and file.lfs is not None and re.fullmatch(r"[0-9a-f]{64}", file.lfs.sha256):
            url = hub.hf_hub_url(wanted.repo, file.path, revision=commit)
            _download(hub, url, blobs / file.lfs.sha256, file.lfs.size, f"{wanted}: {file.path}")
    return str(commit), _stated(listed)


def _download(hub: Any, url: str, blob: Path, size: int, what: str) -> None:
    """A file whose name is its SHA-256; what comes of it is kept beside it until it is whole.

    Another process that is at it is waited for.
    """
    if blob.exists():
        return
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.vpoet.incomplete")
    with part.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if blob.exists():  # by another, and this is that file
            return
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        if file.tell() > size:
            digest = _emptied(file)
        with hub.utils.tqdm(total=size, initial=file.tell(), unit="B", unit_scale=True, desc=what[-60:]) as bar:
            tries = 0
            while file.tell() < size:
                before = file.tell()
                try:
                    digest = _go_on(hub, url, file, digest, bar.update)
                except hub.errors.HTTPError as error:
                    tries = 0 if file.tell() > before else tries + 1
                    if isinstance(error, hub.errors.HfHubHTTPError) or tries >= _PATIENCE:
                        raise
                if file.tell() == before and not tries:
                    break  # it ended too early: as wrong as another content
        if digest.hexdigest() != blob.name or file.tell() != size:
            found = digest.hexdigest()
            _emptied(file)
            raise HashMismatch(
                f"{what}: the hub says SHA-256 {blob.name[:16]}..., what it sent has {found[:16]}...; it is not kept. "
                "Pull it again; if that gives the same, the repository is damaged"
            )
        file.flush()
        os.fsync(file.fileno())
        part.replace(blob)


def _go_on(hub: Any, url: str, file: BinaryIO, digest: Any, told: Callable[[int], object]) -> Any:
    """Append what the file lacks, from the hub; the hash of all there is then."""
    headers = hub.utils.build_hf_headers(**_US) | {"Accept-Encoding": "identity"}
    have = file.tell()
    if have:
        headers["Range"] = f"bytes={have}-"
    patience = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
    with hub.get_session().stream("GET", url, headers=headers, timeout=patience, follow_redirects=True) as answer:
        hub.utils.hf_raise_for_status(answer)
        if have and answer.status_code != 206:  # it gives all of it
            digest = _emptied(file)
            told(-have)
        for piece in answer.iter_bytes():
            file.write(piece)
            file.flush()
            digest.update(piece)
            told(len(piece))
    return digest


def _emptied(file: BinaryIO) -> Any:
    file.truncate(0)
    file.seek(0)
    return hashlib.sha256()


def _check(path: Path, wanted: str, what: str) -> None:
    """HashMismatch if a file of the cache has not the hash ``wanted``; it is then removed from there."""
    if wrong := _difference(path, wanted):
        for each in {path.resolve(), path}:
            with suppress(OSError):
                each.unlink()
        raise HashMismatch(f"{what} is not the hub's: {wrong}; it is not kept. Pull it again")


def _difference(data: Path | bytes, wanted: str) -> str:
    """What is wrong about a file, by the hash that the hub states; "" for nothing, and for what is no such hash."""
    if not _HASH.fullmatch(wanted):
        return ""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    digest = hashlib.sha256() if len(wanted) == 64 else hashlib.sha1(b"blob %d\0" % size)
    with io.BytesIO(data) if isinstance(data, bytes) else open_file(data) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    name = "SHA-256" if len(wanted) == 64 else "git hash"
    return "" if digest.hexdigest() == wanted else f"{name} {digest.hexdigest()[:16]}..., not {wanted[:16]}..."
