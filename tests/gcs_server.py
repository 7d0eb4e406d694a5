"""Google Cloud Storage on this machine, for tests: the part of its JSON API that reading by gcsfs speaks.

    with Storage() as storage: storage.buckets["clips"] = {"a/b.tar": data} ... storage.url

An object's metadata, its bytes or a range of them, a listing. gcsfs takes it for Google's where STORAGE_EMULATOR_HOST
is its `url`.
"""

import json
import re
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Storage:
    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {}
        self.refused: dict[str, int] = {}
        """Buckets that say no to everything, and by which status: 401 or 403."""
        self.asked: list[tuple[str, str]] = []
        """(name of the object, Range) of each download."""
        storage = self

        class Handler(_Handler):
            pass

        Handler.storage = storage
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Storage":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    storage: Storage

    def log_message(self, *words: Any) -> None:
        pass

    def _answer(self, status: int, body: Any, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        with suppress(ConnectionError):  # gcsfs hangs up where it asks for two things and one is enough
            self.end_headers()
            self.wfile.write(data)

    def _refuse(self, status: int, why: str) -> None:
        self._answer(status, {"error": {"code": status, "message": why}})

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        found = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o(?:/([^/]+))?", parts.path)
        if not found:
            self._refuse(400, f"not of the part that is here: {self.path}")
            return
        bucket, name = found[2], unquote(found[3] or "")
        if status := self.storage.refused.get(bucket):
            self._refuse(status, f"Anonymous caller does not have storage.objects.get access to {bucket}.")
        elif bucket not in self.storage.buckets:
            self._refuse(404, "The specified bucket does not exist.")
        elif not name:
            asked = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._answer(200, self._listing(bucket, asked.get("prefix", ""), asked.get("delimiter", "")))
        elif name not in self.storage.buckets[bucket]:
            self._refuse(404, f"No such object: {bucket}/{name}")
        elif found[1]:
            self._download(name, self.storage.buckets[bucket][name])
        else:
            self._answer(200, self._about(bucket, name))

    def _about(self, bucket: str, name: str) -> dict[str, str]:
        size = str(len(self.storage.buckets[bucket][name]))  # text, as Google tells 64 bits
        return {"kind": "storage#object", "bucket": bucket, "name": name, "size": size, "generation": "1"}

    def _listing(self, bucket: str, prefix: str, delimiter: str) -> dict[str, Any]:
        items, folders = [], set()
        for name in sorted(self.storage.buckets[bucket]):
            if name.startswith(prefix):
                head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
                if cut:
                    folders.add(prefix + head + cut)
                else:
                    items.append(self._about(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}

    def _download(self, name: str, data: bytes) -> None:
        asked = self.headers.get("Range", "")
        self.storage.asked.append((name, asked))
        if found := re.fullmatch(r"bytes=(\d+)-(\d+)", asked):
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            self._answer(206, data[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(data)}")
        else:
            self._answer(200, data)
