"""A server of `vpoet serve`, asked from another program; nothing but Python's own library is needed for it."""

import contextlib
import io
import json
import os
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field, fields
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from vpoet.arrays import Codes, Frames
from vpoet.errors import BackendError, DataError, OutputError, PromptError
from vpoet.files import fingerprint
from vpoet.generate.clip_file import Film
from vpoet.generate.kept_codes import record_of, recorded_prompt
from vpoet.generate.prompt_file import files_of
from vpoet.generate.request import AUTO, ControlClip, Request
from vpoet.media.video import check_file
from vpoet.outputs import expect_apart
from vpoet.serve.served import CLIPS, fields_served

PATIENCE = 600
"""Seconds without a word from the server."""
AHEAD = 8
"""Clips that are asked for before the first of them is made: so many are decoded together."""
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
            with contextlib.suppress(ValueError, KeyError, TypeError):
                said = json.loads(said)["error"]
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

    def clips(self) -> list[dict[str, Any]]:
        """What was made there, the latest first."""
        found: list[dict[str, Any]] = self._json("GET", "/api/clips")["clips"]
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
        for each in fields(request):
            value = getattr(request, each.name)
            if value is None or value == each.default or (each.name in ("story", "control") and not value):
                continue
            if each.name not in fields_served():
                raise PromptError(f"{each.name}: no server does this yet; sample it here, without --server")
            if each.name == "edit":
                value = self._edited(Path(value), asked)
            elif each.name in CLIPS:
                value = self.upload(Path(value))
            elif each.name == "story":
                value = [f"{frame}: {text}" for frame, text in value]
            elif each.name == "control":
                value = [self._control(one) for one in value]
            elif each.name == "outpaint":
                value = ",".join(map(str, value))
            asked[each.name] = value
        body = json.dumps(asked).encode()
        return str(self._json("POST", "/api/jobs", body)["jobs"][0]["id"])

    def _control(self, control: ControlClip) -> str:
        """As it is written there. The errors are those of `upload`."""
        clip = AUTO if control.clip == AUTO else self.upload(Path(str(control.clip)))
        return f"{control.kind}={clip}:{np.format_float_positional(control.strength, trim='-')}"

    def _edited(self, path: Path, asked: dict[str, Any]) -> str:
        """Send a clip to edit: its codes, if the record beside it tells those of the model there; what it shows is told
        by that, too. The errors are those of `upload`."""
        check_file(path)
        models = self.models()
        model = next((each for each in models if each["name"] == asked.get("model")), models[0])
        if asked.get("was") is None and (prompt := recorded_prompt(path)) is not None:
            asked["was"] = prompt
        if (record := record_of(path, model["tokenizer"])) is None:
            return self.upload(path)
        return str(self._json("POST", "/api/uploads", json.dumps(record).encode())["id"])

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
                self.forsake(job)
        raise BackendError(f"{self.address}: the server has gone; ask again")

    def fetch(self, request: Request, clip: Mapping[str, Any], file: Path) -> None:
        """Write a clip that is made to a file, with the record beside it, just as if it had been made here."""
        record = dict(clip["record"])
        for name in (each for each in CLIPS if record.get(each)):
            record[name] = {"file": str(getattr(request, name)), **record[name]}
        for told, control in zip(record.get("control", ()), request.control, strict=True):
            if told["clip"] != AUTO:
                told["clip"] = {"file": str(control.clip), **told["clip"]}
        if request.edit is not None:  # what was sent may have been its codes
            record["edit"]["sha256"] = fingerprint(Path(str(request.edit)))["sha256"]
            record["was"] = request.was
        with Film(file, clip["fps"]) as film:
            arrays = self._arrays(clip)
            film.add(arrays["frames"])
            film.finish(record, arrays["codes_0"] if clip["whole"] else None)

    def forsake(self, job: str) -> None:
        """Cancel it, if there is still a server that knows it."""
        with contextlib.suppress(BackendError, PromptError):
            self.cancel(job)

    def frames(self, clip: Mapping[str, Any]) -> Frames:
        """uint8 [T, H, W, 3]. DataError: what came is no such clip."""
        frames: Frames = self._arrays(clip)["frames"]
        return frames

    def codes(self, clip: Mapping[str, Any]) -> Codes:
        """int32 [t, h, w], of a clip of one document: those that an edit of it works on."""
        codes: Codes = self._arrays(clip)["codes_0"]
        return codes

    def _arrays(self, clip: Mapping[str, Any]) -> dict[str, Any]:
        with self._ask("GET", f"/api/clips/{clip['id']}.npz") as answer:
            data = answer.read()
        try:
            found = dict(np.load(io.BytesIO(data), allow_pickle=False))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.address}: the clip that came is damaged: {error}") from None
        return found


@dataclass(slots=True)
class Fetched:
    """What came of many requests."""

    written: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Requests that could not be served: where each stands, and why."""
    warnings: list[str] = field(default_factory=list)
    """What the server said of those that could be."""
    tokens: int = 0


def _tell(on_part: Callable[[float], None], done: int, event: dict[str, Any]) -> None:
    on_part(done + event.get("part", 0.0))


def _needs(request: Request, files: Items[Path]) -> bool:
    """Whether it is made from one of these: a step of a chain, which is asked for when the one before it is there."""
    return any(file in files for file in files_of(request))


def fetch_all(
    remote: Remote, wanted: Items[tuple[str, Request, Path]], asked: Mapping[str, Any], on_part: Callable[[float], None]
) -> Fetched:
    """Ask a server for many clips, (where it was asked, request, its file) each, a few at once; ``asked`` are fields of
    the sampling, and the model. ``on_part`` is told how many clips are made. BackendError: the server has gone."""
    found, waiting = Fetched(), deque[tuple[str, Request, Path, str]]()
    todo = deque(wanted)
    try:
        while todo or waiting:
            while todo and len(waiting) < AHEAD and not _needs(todo[0][1], [file for _, _, file, _ in waiting]):
                where, request, file = todo.popleft()
                try:
                    expect_apart(file, files_of(request))
                    waiting.append((where, request, file, remote.ask(request, **asked)))
                except (PromptError, DataError, OutputError) as error:
                    found.problems.append(f"{where}: {error}")
            if not waiting:
                continue
            where, request, file, job = waiting.popleft()
            done = len(found.written) + len(found.problems)
            try:
                clip = remote.wait(job, partial(_tell, on_part, done))
                remote.fetch(request, clip, file)
                found.written.append(file)
                found.warnings += [said for said in clip["warnings"] if said not in found.warnings]
                found.tokens += int(clip["record"]["tokens"])
            except PromptError as error:
                found.problems.append(f"{where}: {error}")
            on_part(len(found.written) + len(found.problems))
    finally:
        for *_, job in waiting:
            remote.forsake(job)
    return found
