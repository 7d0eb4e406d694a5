"""What the page's server lets in, told over real sockets."""

import http.client
import json
from collections.abc import Callable

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from vpoet.errors import BackendError
from vpoet.serve.app import KINDS, PAGE, PLAY, STUDIO, listen
from vpoet.serve.worlds import Worlds


def asked(port: int, path: str, **headers: str) -> http.client.HTTPResponse:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    line.putrequest("GET", path, skip_host=True)
    for name, value in ({"Host": f"127.0.0.1:{port}"} | headers).items():
        line.putheader(name, value)
    line.endheaders()
    return line.getresponse()


@pytest.mark.parametrize("parts", [("served", "play.html", *PLAY), ("studio_port", "studio.html", *STUDIO)])
def test_a_page_is_small_whole_and_of_its_own_files(parts: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    port, first, *rest = request.getfixturevalue(parts[0]), *parts[1:]
    size = 0
    for path, name in (("/", first), *((f"/{name}", name) for name in rest)):
        answer = asked(port, path)
        body = answer.read()
        size += len(body)
        assert (answer.status, answer.headers["content-type"]) == (200, KINDS[name])
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        if path != "/icon.svg":
            assert b"https://" not in body
            assert b"//cdn" not in body
    assert size < 150_000
    assert {path.name for path in PAGE.iterdir()} == set(KINDS)


@pytest.mark.parametrize(
    "path", ["/play", "/../../etc/passwd", "/%2e%2e/app.py", "/page/play.js", "//etc/passwd", "/play.js/..%2f", "/x"]
)
def test_no_other_address_is_a_file(served: int, path: str) -> None:
    assert asked(served, path).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:80"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_who_comes_from_elsewhere_is_refused(served: int, headers: dict[str, str]) -> None:
    answer = asked(served, "/", **headers)
    assert answer.status == 403
    assert b"<html" not in answer.read()


def test_a_page_of_elsewhere_gets_no_socket(served: int) -> None:
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{served + 1}", f"https://127.0.0.1:{served}"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"ws://127.0.0.1:{served}/play", origin=origin)  # type: ignore[arg-type]
    with connect(f"ws://127.0.0.1:{served}/play", origin=f"http://127.0.0.1:{served}") as socket:  # type: ignore[arg-type]
        assert json.loads(socket.recv(20))["say"] == "hello"


def test_a_port_that_is_taken_is_told(open_worlds: Callable[..., Worlds]) -> None:
    with listen(0) as at, pytest.raises(BackendError, match="choose another with --port"):
        listen(at.getsockname()[1])
