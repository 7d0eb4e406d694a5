"""A hub on this machine, for tests: the part of Hugging Face's HTTP API that pushing and pulling models speaks.

    with Hub(folder) as hub: ... hub.url ...

Repositories live in memory. What goes wrong on the way is asked of it: `Hub.halt_after`, `Hub.corrupt`.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".safetensors", ".model", ".png", ".mp4", ".gif")
"""Kept as large files, by their SHA-256, as the hub's .gitattributes has it."""
TOKEN = "hf_of_the_owner"


class Hub:
    """``files[repo]``: commit -> {path: bytes}, in the order of commits; the newest is main."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.sent: list[tuple[str, int]] = []
        """(SHA-256, first byte) of each large file that was asked for."""
        self.taken: list[str] = []
        """SHA-256 of each large file that was sent to it."""
        self.halt_after: int | None = None
        """Send so many bytes of a large file, then nothing more until `go_on`."""
        self.halted, self.go_on = threading.Event(), threading.Event()
        self.corrupt: set[str] = set()
        """Names of files that are sent with a byte changed."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.store = f"http://localhost:{self._server.server_port}"
        """Where large files come from: to clients another host, which gets no token."""

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def newest(self, repo: str) -> dict[str, bytes]:
        commits = list(self.files[repo].values())
        return commits[-1] if commits else {}

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        commits = self.files.setdefault(repo, {})
        whole = self.newest(repo) | files
        told = json.dumps([len(commits), *sorted((name, _sha256(data)) for name, data in whole.items())])
        name = hashlib.sha1(told.encode()).hexdigest()
        commits[name] = whole
        return name


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *words: Any) -> None:
        pass

    def _answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while length := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(length))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _no_such(self, what: str) -> None:
        self._answer(
            404 if what != "Repo" or self._is_owner() else 401, {"error": what}, X_Error_Code=f"{what}NotFound"
        )

    def do_POST(self) -> None:
        path, body, hub = unquote(urlsplit(self.path).path), self._body(), self.hub
        if path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif not self._is_owner():
            self._answer(403, {"error": "no"}, X_Error_Message="You don't have the rights to do that")
        elif path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            there = repo in hub.files
            hub.files.setdefault(repo, {})
            if asked.get("visibility") == "private":
                hub.private.add(repo)
            self._answer(409 if there else 200, {"url": f"{hub.url}/{repo}"})
        elif found := re.fullmatch(r"/api/models/(.+)/preupload/.+", path):
            repo = found[1]
            there = hub.newest(repo)
            modes = []
            for file in json.loads(body)["files"]:
                name, mode = file["path"], "lfs" if file["path"].endswith(LARGE) else "regular"
                known = (_sha256 if mode == "lfs" else _git)(there[name]) if name in there else None
                modes.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": known})
            self._answer(200, {"files": modes})
        elif path.endswith(".git/info/lfs/objects/batch"):
            wanted = [{key: file[key] for key in ("oid", "size")} for file in json.loads(body)["objects"]]
            for file in wanted:
                if file["oid"] not in hub.blobs:
                    file["actions"] = {"upload": {"href": f"{hub.url}/blobs/{file['oid']}"}}
            self._answer(200, {"transfer": "basic", "objects": wanted})
        elif found := re.fullmatch(r"/api/models/(.+)/commit/.+", path):
            added = {}
            for line in body.splitlines():
                value = json.loads(line)["value"]
                if "content" in value:
                    added[value["path"]] = base64.b64decode(value["content"])
                elif "oid" in value:
                    added[value["path"]] = hub.blobs[value["oid"]]
            commit = hub.commit(found[1], added)
            self._answer(200, {"commitUrl": f"{hub.url}/{found[1]}/commit/{commit}", "commitOid": commit})
        else:
            self._answer(404)

    def _validate(self, text: str) -> None:
        head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        try:
            wrong = [] if head and isinstance(yaml.safe_load(head[1]), dict) else ["no YAML at the top"]
        except yaml.YAMLError as error:
            wrong = [str(error)]
        self._answer(400 if wrong else 200, {"errors": [{"message": each} for each in wrong], "warnings": []})

    def do_PUT(self) -> None:
        data, oid = self._body(), self.path.rpartition("/")[2]
        right = _sha256(data) == oid
        if right:
            self.hub.blobs[oid] = data
            self.hub.taken.append(oid)
        self._answer(200 if right else 400)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, hub = unquote(urlsplit(self.path).path), self.hub
        if found := re.fullmatch(r"/cdn/(\w+)/(.+)", path):
            assert "Authorization" not in self.headers, "a token went to another host"
            self._send_large(found[1], found[2])
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path)
        found = found or re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)/(.+)", path)
        if not found:
            self._answer(404)
            return
        repo, what, revision = found[1], found[2], found[3] or "main"
        if repo not in hub.files or (repo in hub.private and not self._is_owner()):
            self._no_such("Repo")
            return
        commits = hub.files[repo]
        commit = list(commits)[-1] if revision == "main" and commits else revision
        if commit not in commits:
            self._no_such("Revision")
        elif what == "tree":
            self._answer(200, [self._listed(name, data) for name, data in commits[commit].items()])
        elif what == "resolve":
            self._resolve(commit, found[4], commits[commit])
        else:
            self._answer(200, {"id": repo, "sha": commit})

    def _listed(self, name: str, data: bytes) -> dict[str, Any]:
        listed = {"type": "file", "path": name, "size": len(data), "oid": _git(data)}
        if name.endswith(LARGE):
            listed["lfs"] = {"oid": _sha256(data), "size": len(data), "pointerSize": 134}
            listed["oid"] = _git(b"version https://git-lfs.github.com/spec/v1\n" + _sha256(data).encode())
        return listed

    def _resolve(self, commit: str, name: str, files: dict[str, bytes]) -> None:
        if name not in files:
            self._no_such("Entry")
            return
        data, about = files[name], {"X_Repo_Commit": commit}
        if name.endswith(LARGE):
            oid = _sha256(data)
            self.hub.blobs[oid] = data
            about |= {"X_Linked_ETag": f'"{oid}"', "X_Linked_Size": str(len(data))}
            self._answer(302, Location=f"{self.hub.store}/cdn/{oid}/{name}", **about)
        else:
            self._answer(200, self._spoiled(name, data), ETag=f'"{_git(data)}"', **about)

    def _spoiled(self, name: str, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if name in self.hub.corrupt else data

    def _send_large(self, oid: str, name: str) -> None:
        hub, data = self.hub, self._spoiled(name, self.hub.blobs[oid])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        if self.command != "HEAD":
            hub.sent.append((oid, first))
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(data) - first))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if hub.halt_after is not None and len(data) - first > hub.halt_after:
            self.wfile.write(data[first : first + hub.halt_after])
            self.wfile.flush()
            hub.halted.set()
            hub.go_on.wait()
            self.close_connection = True
            return
        self.wfile.write(data[first:])
