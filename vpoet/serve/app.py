"""The page and what it talks to: an application of starlette, and a server for it on a port of this machine."""

import socket
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from vpoet.errors import BackendError
from vpoet.serve.guard import LOOPBACK, Guard
from vpoet.serve.messages import LONGEST
from vpoet.serve.play import House

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("play.html", "text/html; charset=utf-8"),
    "/play.js": ("play.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All that the page is made of, by address: no name that is asked for becomes a path."""


def application(house: House, port: int) -> ASGIApp:
    """The page of play at ``/`` and its socket at ``/play``, for who asks this machine's ``port``."""
    parts = {address: ((PAGE / name).read_bytes(), kind) for address, (name, kind) in FILES.items()}

    async def part(request: Request) -> Response:
        content, kind = parts[request.url.path]
        return Response(content, media_type=kind)

    routes = [*(Route(address, part) for address in parts), WebSocketRoute("/play", house.welcome)]
    return Guard(Starlette(routes=routes), port)


def listen(port: int) -> socket.socket:
    """A socket on loopback at ``port``, 0 for any that is free. BackendError: it is taken, or not for us."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
        found.listen()  # who comes before the server is up waits for it
    except OSError as error:
        found.close()
        raise BackendError(f"port {port}: {error.strerror}; choose another with --port, or 0 for any") from None
    return found


def server(house: House, at: socket.socket) -> uvicorn.Server:
    """A server of the page, to be `run` with ``sockets=[at]``; a message, a queue and what a page may hold are bounded
    by it."""
    config = uvicorn.Config(
        application(house, at.getsockname()[1]), log_level="warning", access_log=False, ws="websockets-sansio",
        ws_max_size=LONGEST, ws_max_queue=8, limit_concurrency=64, timeout_keep_alive=5, server_header=False,
        timeout_graceful_shutdown=2, ws_per_message_deflate=False, proxy_headers=False, lifespan="off",
    )  # fmt: skip
    return uvicorn.Server(config)
