"""A server of `vpoet serve`, asked from another program; nothing but Python's own library is needed for it."""

import io
import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import BackendError, DataError, PromptError
from vpoet.generate.request import Request
from vpoet.media.video import check_file
from vpoet.serve.asked import CLIPS

PATIENCE = 600
"""Seconds without a word from the server."""
Told = Callable[[dict[str, Any]], None]
"""Told each event of a request (`vpoet.serve.api`)."""


class Remote:
    """A server by its address, whose token is in it (``?token=``) or in the environment (VPOET_TOKEN)."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise BackendError(f"{address}: a server's address is as http://127.0.0.1:8137")
        self.address = f"{parts.scheme}://{parts.netloc}"
        self._token = next(iter(parse_qs(parts.query).get("token", [])), os.environ.get("VPOET_TOKEN", ""))
        self._sent: dict[Path, str] = {}

    def _ask(self, method: str, path: str, body: bytes | None = None) -> Any:
        request = urllib.request.Request(f"{self.address}{path}", body, method=method)
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            said = error.read(10_000).decode("utf-8", "replace").strip()
            try:
                said = json.loads(said)["error"]
            except (ValueError, KeyError, TypeError):
                pass
            kind = PromptError if error.code in (400, 404) else BackendError
            raise kind(f"{self.address}: {said}") from None
        except (OSError, HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise BackendError(f"{self.address}: no server answers there: {why}") from None

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        with self._ask(method, path, body) as answer:
            return json.load(answer)

    def models(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json("GET", "/api/models")["models"]
        return found

    def upload(self, path: Path) -> str:
        """Send a file, once; its id. DataError: it cannot be read, here or there."""
        if path not in self._sent:
            check_file(path)
            self._sent[path] = str(self._json("POST", "/api/uploads", path.read_bytes())["id"])
        return self._sent[path]

    def ask(self, request: Request, **more: Any) -> str:
        """Ask for a clip, with fields of the sampling and the name of a model; the id of the job."""
        asked = {name: value for name, value in more.items() if value is not None}
        for field in fields(request):
            value = getattr(request, field.name)
            if value == field.default or (field.name == "story" and not value):
                continue
            if field.name in CLIPS:
                value = self.upload(Path(value))
            elif field.name == "story":
                value = [f"{frame}: {text}" for frame, text in value]
            elif field.name == "outpaint":
                value = ",".join(map(str, value))
            asked[field.name] = value
        body = json.dumps(asked).encode()
        return str(self._json("POST", "/api/jobs", body)["jobs"][0]["id"])

    def events(self, job: str) -> Iterator[dict[str, Any]]:
        """What happens to a job, to its end."""
        with self._ask("GET", f"/api/jobs/{job}/events") as lines:
            for line in lines:
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

    def cancel(self, job: str) -> None:
        self._json("DELETE", f"/api/jobs/{job}")

    def wait(self, job: str, on_event: Told = lambda event: None) -> dict[str, Any]:
        """The clip, as the server tells of it, once it is made. PromptError: it cannot be; BackendError: the server has
        gone, or somebody cancelled it. Whoever stops waiting cancels it."""
        over = False
        try:
            for event in self.events(job):
                on_event(event)
                over = event["event"] in ("done", "failed", "cancelled")
                if event["event"] == "done":
                    clip: dict[str, Any] = event["clip"]
                    return clip
                if over:
                    raise PromptError(f"{self.address}: {event.get('error', 'it was cancelled there')}")
        finally:
            if not over:
                self._forsake(job)
        raise BackendError(f"{self.address}: the server has gone; ask again")

    def _forsake(self, job: str) -> None:
        try:
            self.cancel(job)
        except (BackendError, PromptError):
            pass

    def frames(self, clip: Mapping[str, Any]) -> Frames:
        """uint8 [T, H, W, 3]. DataError: what came is no such clip."""
        with self._ask("GET", f"/api/clips/{clip['id']}.npz") as answer:
            data = answer.read()
        try:
            frames: Frames = np.load(io.BytesIO(data), allow_pickle=False)["frames"]
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.address}: the clip that came is damaged: {error}") from None
        return frames
