"""The pages and what they talk to: applications of starlette, and a server for one on a port of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from vpoet.errors import BackendError
from vpoet.serve.api import routes
from vpoet.serve.guard import LOOPBACK, Guard
from vpoet.serve.messages import LONGEST
from vpoet.serve.play import House
from vpoet.serve.studio import Studio

PAGE = Path(__file__).parent / "page"
_HTML, _JS = "text/html; charset=utf-8", "text/javascript; charset=utf-8"
KINDS = {
    "studio.html": _HTML, "studio.js": _JS, "clips.js": _JS, "wishes.js": _JS, "brush.js": _JS,
    "border.js": _JS, "play.html": _HTML, "play.js": _JS,
    "page.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
}  # fmt: skip
"""All that the pages are made of: no name that is asked for becomes a path."""
PLAY = ("play.js", "page.css", "icon.svg")
STUDIO = ("studio.js", "clips.js", "wishes.js", "brush.js", "border.js", "page.css", "icon.svg")
SILENT = 20.0
"""Seconds after which a connection that asks nothing is closed."""


def play_page(house: House, port: int) -> ASGIApp:
    """The page of play at ``/`` and its socket at ``/play``, for who asks this machine's ``port``."""
    files = {"/": "play.html", **{f"/{name}": name for name in PLAY}}
    return Guard(Starlette(routes=[*_parts(files), WebSocketRoute("/play", house.welcome)]), port)


def studio_page(studio: Studio, house: House | None, plays: str, door: dict[str, Any]) -> ASGIApp:
    """The page of everything at ``/`` and its API; that of play, of the model called ``plays``, at ``/play.html``.
    ``door`` is what `Guard` is told."""
    files = {"/": "studio.html", **{f"/{name}": name for name in STUDIO}}
    more: list[BaseRoute] = []
    if house is not None:
        files |= {"/play.html": "play.html", "/play.js": "play.js"}
        more = [WebSocketRoute("/play", house.welcome)]

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        started = asyncio.Event()
        task = asyncio.create_task(studio.run(started))
        await started.wait()
        yield
        task.cancel()
        await asyncio.wait([task])

    return Guard(Starlette(routes=[*_parts(files), *routes(studio, plays), *more], lifespan=running), **door)


def _parts(files: dict[str, str]) -> Iterable[Route]:
    parts = {address: ((PAGE / name).read_bytes(), KINDS[name]) for address, name in files.items()}

    async def part(request: Request) -> Response:
        content, kind = parts[request.url.path]
        return Response(content, media_type=kind)

    return [Route(address, part) for address in parts]


def listen(port: int, host: str = LOOPBACK) -> socket.socket:
    """A socket at ``port`` of an address, 0 for any that is free. BackendError: it is taken, or not for us."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # who comes before the server is up waits for it
    except (OSError, UnicodeError) as error:
        found.close()
        told = getattr(error, "strerror", None) or error
        raise BackendError(f"port {port} of {host}: {told}; choose another with --port, or 0 for any") from None
    return found


class _Patient(H11Protocol):
    """Connections that begin no question for too long, or stop in the midst of its head, are closed."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._before: Any = None
        self.loop.call_later(SILENT, self._look)

    def _look(self) -> None:
        if self not in self.connections:  # closed, or a websocket by now, which looks for itself
            return
        if self.cycle is self._before and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
            return
        self._before = self.cycle
        self.loop.call_later(SILENT, self._look)


def server(app: ASGIApp, at: socket.socket) -> uvicorn.Server:
    """A server of a page, to be `run` with ``sockets=[at]``; a message, a queue and what a page may hold are bounded
    by it."""
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, http=_Patient, ws="websockets-sansio", ws_max_size=LONGEST,
        ws_max_queue=8, limit_concurrency=512, timeout_keep_alive=5, server_header=False, timeout_graceful_shutdown=2,
        ws_per_message_deflate=False, proxy_headers=False, lifespan="on",
    )  # fmt: skip
    return uvicorn.Server(config)
