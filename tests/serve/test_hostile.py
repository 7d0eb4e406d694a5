"""Hundreds of requests that nobody should make: none is served, none does harm, and what others ask for goes on."""

import base64
import contextlib
import http.client
import itertools
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data.npy import codes_to_npy
from vpoet.errors import BackendError
from vpoet.generate.model import Model, Request
from vpoet.media.video import Video
from vpoet.serve.client import Remote

OUTSIDE = "nobody else's"
NAMES = (
    "../outside", "..%2foutside", "%2e%2e%2foutside", "....//outside", "/etc/passwd", "%2fetc%2fpasswd", "..\\outside",
    "outside%00", "%00", ".", "..", "~", "a" * 5000, "\u202e", "clips", "0" * 16, "*", "%3f", "%", "con", "|ls",
    "$(id)",
    "-rf", "%ff%fe", "..;", "outside.json", "{id}", "null", "0", "-1", "1e9",
)  # fmt: skip
PLACES = (
    ("GET", "/{}"), ("GET", "/api/uploads/{}"), ("GET", "/api/uploads/{}/preview"), ("GET", "/api/jobs/{}"),
    ("GET", "/api/jobs/{}/events"), ("DELETE", "/api/jobs/{}"), ("GET", "/api/clips/{}.mp4"),
    ("DELETE", "/api/clips/{}"),
    ("GET", "/api/clips/{}.npz"),
)  # fmt: skip
BODIES: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b'"x"', b"1", b"\xff\xfe", b"[" * 50_000, b'{"a":' * 20_000, b'{"prompt": 1}',
    b'{"prompt": ["x"]}', b'{"seed": -1}', b'{"seed": 1e400}', b'{"seed": 9' + b"9" * 300 + b"}", b'{"count": 0}',
    b'{"count": 17}', b'{"count": true}', b'{"count": 1e9}', b'{"frames": 0}', b'{"frames": -9}',
    b'{"frames": 1000000001}',
    b'{"frames": 9.0}', b'{"height": 0}', b'{"width": -16}', b'{"height": 1000000000, "width": 1000000000}',
    b'{"fps": 0}', b'{"fps": 1000000000}', b'{"temperature": NaN}', b'{"temperature": -1}', b'{"temperature": "hot"}',
    b'{"guidance": Infinity}', b'{"guidance": 1e300}', b'{"top_p": 0}', b'{"top_p": 2}', b'{"top_k": -1}',
    b'{"image": "/etc/passwd"}', b'{"image": "../outside"}', b'{"image": ["x"]}', b'{"image": {"file": "x"}}',
    b'{"video": "file:///etc/passwd"}', b'{"mask": "http://127.0.0.1/"}', b'{"last": ""}',
    b'{"outpaint": [1, 2, 3, 4]}',
    b'{"outpaint": "1,2,3"}', b'{"outpaint": "-1,0,0,0"}', b'{"story": "17: x"}', b'{"story": ["x"]}',
    b'{"story": [1]}',
    b'{"story": ["9: x", "5: y"]}', b'{"task": "backward"}', b'{"task": "__import__"}', b'{"via_image": 1}',
    b'{"model": "../small"}', b'{"model": 1}', b'{"device": "cuda"}', b'{"out": "/tmp/x"}', b'{"__class__": 1}',
    b'{"edit": "/etc/passwd"}', b'{"edit": "../clips/x"}', b'{"edit": ["x"]}', b'{"edit": ""}', b'{"was": "a robot"}',
    b'{"strength": 0.5}', b'{"frames": 20001, "height": 8, "width": 8}', b'{"prompt": "x", "\\ud800": 1}',
    b'{"control": ["edges=/etc/passwd"]}', b'{"control": ["edges=../outside:0.5"]}', b'{"control": "edges=auto"}',
    b'{"control": [1]}', b'{"control": ["edges=auto"]}', json.dumps({"control": ["edges=a" + " " * 150_000]}).encode(),
    json.dumps({"control": ["edges=auto"] * 20_000}).encode(), b'{"motion": 1}', b'{"quality": NaN}',
    b'{"upscale": 1}', b'{"upscale": true}', b'{"upscale": true, "image": "../outside"}',
    b'{"upscale": true, "height": 4096, "width": 4096}', b'{"window": 1}', b'{"overlap": 3}',
    b'{"given_frames": 5}', json.dumps({"prompt": "a" * 2001}).encode(),
    json.dumps({"prompt": "a robot", "story": ["9: x"] * 65}).encode(), b'{"prompt": "' + b"a" * 300_000 + b'"}',
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {"Host": "evil.example"}, {"Host": ""}, {"Host": "127.0.0.1"}, {"Host": "localhost:1"}, {"Host": "[::1]"},
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1"},
    {"Origin": "http://127.0.0.1.evil.example"}, {"Origin": "file://"},
)  # fmt: skip
RAW: tuple[bytes, ...] = (
    b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\x00" * 1000, b"A" * 100_000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /api/jobs HTTP/1.1\r\nHost: {}\r\nContent-Length: -1\r\n\r\n",
    b"POST /api/jobs HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    b"POST /api/jobs HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /api/jobs HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    b"GET /api/live HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: {}\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", b"CONNECT evil.example:80 HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)  # fmt: skip


def uploads() -> Iterator[bytes]:
    """Files that are none."""
    clip = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8), 8.0)
    mp4, png = clip.encode(".mp4"), Video(clip.frames[:1], 0).encode(".png")
    yield from (
        b"",
        b"#EXTM3U\nhttp://127.0.0.1/x.ts\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        mp4[: len(mp4) // 3],
    )
    yield b"ffconcat version 1.0\nfile /etc/passwd\n"
    for record in (
        b"{", b"{}", b'{"codes": 1}', b'{"codes": {"npy": "AAAA", "fps": 8}}',
        b'{"codes": {"npy": "%s", "fps": "nan"}}',
        b'{"codes": {"npy": "%s", "fps": 1e9}}', b'{"codes": {"npy": "%s", "fps": -1}}', b'{"codes":' * 10_000,
    ):  # fmt: skip
        yield record.replace(b"%s", base64.b64encode(codes_to_npy(np.zeros((1, 2, 3), np.int32))))
    codes = {"npy": base64.b64encode(codes_to_npy(np.zeros((1, 2, 3), np.int32))).decode(), "fps": 8}
    for more in ({"prompt": "a" * 2001}, {"decoder": "f" * 100_000}, {"decoder": [{}] * 10_000}):
        yield json.dumps({"codes": codes, **more}).encode()  # would stay in memory as long as the file
    bomb = bytearray(png)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2  # says that it has 3.6 billion pixels
    yield bytes(bomb)


def answer(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    line._validate_path = lambda url: None  # type: ignore[attr-defined]
    line._encode_request = lambda request: request.encode("utf-8")  # type: ignore[attr-defined]
    line.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": f"127.0.0.1:{port}", "Content-Length": str(len(body))} | (headers or {})).items():
        line.putheader(name, value)
    line.endheaders(body)
    try:
        found = line.getresponse()
        return found.status, found.read(1 << 20)
    except (http.client.HTTPException, ConnectionError):
        return 400, b""
    finally:
        line.close()


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    for name in ("outside", "outside.json", "outside.npz", "outside.bin", "outside.webp"):
        (tmp_path / name).write_text(OUTSIDE)
    return tmp_path


def test_nothing_hostile_is_served_and_nobody_is_harmed(
    outside: Path, studio_port: int, samplers: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vpoet.serve.uploads.SLOWEST", 2)
    remote = Remote(f"http://127.0.0.1:{studio_port}")
    before, count = everything(outside), 0
    half_open = [socket.create_connection(("127.0.0.1", studio_port)) for _ in range(40)]
    for i, line in enumerate(half_open):
        line.sendall((b"", b"GET / HT", b"POST /api/uploads HTTP/1.1\r\nContent-Le", b"GET / HTTP/1.1\r\nHost:")[i % 4])
    job = remote.ask(Request(prompt="a robot", seed=4, frames=33))

    for (method, place), name in itertools.product(PLACES, NAMES):
        status, said = answer(studio_port, method, place.format(name))
        assert status in (400, 404, 405), (method, place, name)
        assert OUTSIDE.encode() not in said
        assert b"root:" not in said
        count += 1
    for body in BODIES:
        status, said = answer(studio_port, "POST", "/api/jobs", body)
        assert status == 400, (body[:60], status, said[:200])
        assert b"Traceback" not in said
        count += 1
    for headers, (method, path) in itertools.product(
        HEADERS, (("GET", "/"), ("POST", "/api/jobs"), ("GET", "/api/clips"))
    ):
        assert answer(studio_port, method, path, b'{"prompt": "a robot"}' if method == "POST" else b"", headers)[0] in (
            400,
            403,
        )
        count += 1
    for raw in RAW:
        with socket.create_connection(("127.0.0.1", studio_port), timeout=300) as line:
            said = b""
            with contextlib.suppress(OSError):  # it may have been closed by then
                line.sendall(raw.replace(b"{}", f"127.0.0.1:{studio_port}".encode()))
                line.shutdown(socket.SHUT_WR)
                said = line.recv(4096)
        assert not said.startswith(b"HTTP/1.1 2"), raw[:80]
        count += 1
    for data in uploads():
        assert answer(studio_port, "POST", "/api/uploads", data)[0] == 400
        count += 1
    assert answer(studio_port, "POST", "/api/uploads", b"x", {"Content-Length": str(1 << 40)})[0] == 400
    for line in half_open:
        line.close()

    assert count > 350
    assert everything(outside) == {**everything(outside), **before}
    fresh = set(everything(outside)) - set(before)
    assert all(Path(path).parent.name == "clips" for path in fresh)
    clip = remote.wait(job)
    assert np.array_equal(remote.frames(clip), samplers["small"].sample("a robot", seed=4, frames=33).frames)


def test_a_flood_is_refused_before_memory_is_full(studio_port: int) -> None:
    remote = Remote(f"http://127.0.0.1:{studio_port}")
    first = remote.ask(Request(prompt="a robot", frames=2049))
    body = json.dumps({"prompt": "a robot", "frames": 65, "count": 16}).encode()
    answers = [answer(studio_port, "POST", "/api/jobs", body) for _ in range(18)]
    assert [status for status, _ in answers] == [201] * 16 + [429] * 2 or answers[15][0] == 429
    jobs = [job["id"] for status, said in answers if status == 201 for job in json.loads(said)["jobs"]]
    for job in [*reversed(jobs), first]:
        remote.cancel(job)
    assert remote.wait(remote.ask(Request(prompt="a robot")))["frames"] == 9


def test_what_arrives_at_once_is_bounded(studio_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vpoet.serve.uploads.ARRIVING", 100_000)
    png = Video(np.zeros((1, 8, 8, 3), np.uint8), 0).encode(".png")
    head = f"POST /api/uploads HTTP/1.1\r\nHost: 127.0.0.1:{studio_port}\r\nContent-Length: 200000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", studio_port), timeout=300) as line:
        line.sendall(head.encode() + b"x" * 99_990)
        while (found := answer(studio_port, "POST", "/api/uploads", png))[0] == 200:
            pass  # the other's bytes are on their way
        assert b"too many files arrive at once" in found[1]
    while answer(studio_port, "POST", "/api/uploads", png)[0] != 200:
        pass  # that it is gone is


def test_who_has_the_token_comes_in_and_nobody_else(
    make_studio: Callable[..., Any], serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpoet.serve.app import studio_page

    token = "t" * 20
    with serving(lambda port: studio_page(make_studio(), None, "", {"port": port, "token": token})) as port:
        for headers in (
            {}, {"Authorization": "Bearer "}, {"Authorization": f"Basic {token}"},
            {"Authorization": f"Bearer {token}x"},
            {"Cookie": "vpoet="}, {"Cookie": f"other={token}"}, {"Cookie": "vpoet=ttt; ;;=\xff"},
        ):  # fmt: skip
            for path in ("/", "/studio.js", "/api/models", "/?token=", "/?token=x", f"/api/live?token={token[1:]}"):
                assert answer(port, "GET", path, headers=headers)[0] == 401, (headers, path)
        with pytest.raises(BackendError, match="needs its token"):
            Remote(f"http://127.0.0.1:{port}").models()
        assert Remote(f"http://127.0.0.1:{port}/?token={token}").models()[0]["name"] == "small"
        monkeypatch.setenv("VPOET_TOKEN", token)
        assert len(Remote(f"http://127.0.0.1:{port}").models()) == 2
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        line.request("GET", f"/?token={token}")
        welcome = line.getresponse()
        assert (welcome.status, welcome.headers["location"]) == (303, "/")
        cookie = welcome.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert answer(port, "GET", "/", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
        assert answer(port, "GET", "/", headers={"Cookie": cookie.partition(";")[0], "Host": "evil.example"})[0] == 403


def test_reading_ends_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    from vpoet.errors import DataError
    from vpoet.serve import reader

    png = Video(np.zeros((1, 8, 8, 3), np.uint8), 0).encode(".png")
    assert reader.look(png)["width"] == 8
    monkeypatch.setattr(reader, "PATIENCE", 0.001)
    with pytest.raises(DataError, match="takes too long"):
        reader.look(png)
    monkeypatch.setattr(reader, "PATIENCE", 120)
    monkeypatch.setattr(reader.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="damaged, or needs too much"):
        reader.look(png)


def test_silent_connections_are_closed(
    make_studio: Callable[..., Any], serving: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vpoet.serve import app

    monkeypatch.setattr(app, "SILENT", 0.2)
    with serving(lambda port: app.studio_page(make_studio(), None, "", {"port": port})) as port:
        for begin in (b"", b"GET / HTTP/1.1\r\nHost:"):
            with socket.create_connection(("127.0.0.1", port), timeout=300) as line:
                line.sendall(begin)
                assert line.recv(100) == b""
