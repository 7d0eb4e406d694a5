"""Who may ask: pages of this server alone, and, beyond this machine, who knows its token.

A server on loopback can be reached by every page that a browser here has open. A page of elsewhere says where it is
from (Origin), and a name of elsewhere that leads here says so, too (Host; DNS rebinding): neither is answered.

With a token, programs bring it along (``Authorization: Bearer TOKEN``), and a browser once in the address
(``/?token=TOKEN``): it gets a cookie for it that no script and no other site can use.
"""

import contextlib
import hmac
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "")
_COOKIE = "vpoet"
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def new_token() -> str:
    return secrets.token_urlsafe(24)


def names_of(host: str) -> set[str]:
    """How a server that listens at ``host`` is called: loopback's names, the address, and where it is every address
    this machine's name, too."""
    names = {LOOPBACK, "localhost", host} - set(EVERYWHERE)
    if host in EVERYWHERE:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        with contextlib.suppress(OSError):
            names |= set(socket.gethostbyname_ex(socket.gethostname())[2])
    return names


class Guard:
    """Answers whom it knows by ``port`` and, if there is one, ``token``, and adds headers that keep the page to
    itself."""

    def __init__(self, app: ASGIApp, port: int, host: str = LOOPBACK, token: str = "") -> None:
        self._app, self._token = app, token
        self._hosts = {f"{name}:{port}" for name in names_of(host)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        # a browser names its page to every socket; what names none is no browser
        known = len(hosts) == 1 and hosts[0].lower() in self._hosts and set(origins) <= {f"http://{hosts[0]}"}
        refusal: Response | None = None
        if not known:
            refusal = PlainTextResponse("this page is for those who were given its address\n", 403)
        elif not self._admits(headers):
            refusal = self._welcome(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await refusal(scope, receive, _with_headers(send))

    def _admits(self, headers: Headers) -> bool:
        if not self._token:
            return True
        given = [line.removeprefix("Bearer ") for line in headers.getlist("authorization")]
        with contextlib.suppress(CookieError):
            cookies = SimpleCookie(headers.get("cookie", ""))
            given += [cookie.value for name, cookie in cookies.items() if name == _COOKIE]
        return any(self._is_token(each) for each in given)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _welcome(self, scope: Scope) -> Response:
        """A cookie, for who brings the token in the address."""
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if scope["type"] != "http" or scope["method"] != "GET" or not any(map(self._is_token, given)):
            return PlainTextResponse("this page needs its token: open the address that `vpoet serve` told\n", 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(_COOKIE, self._token, httponly=True, samesite="strict", max_age=30 * 24 * 3600)
        return answer


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *message["headers"],
                *((name.encode(), value.encode()) for name, value in _HEADERS.items()),
            ]
        await send(message)

    return sending
