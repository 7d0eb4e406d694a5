"""A second round of requests that nobody should make: of methods, pipelines, sockets, files and texts. None is answered
with an error of the server's own, and none keeps others waiting."""

import contextlib
import gzip
import http.client
import io
import itertools
import json
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from vpoet.generate.model import Model, Request
from vpoet.media.video import Video
from vpoet.serve.client import Remote

PATHS = (
    "/", "//", "/studio.js", "/studio.js/", "/play.html", "/play", "/api", "/api/", "/api//models", "/api/models",
    "/api/uploads", "/api/uploads/x", "/api/jobs", "/api/jobs/x/events", "/api/clips", "/api/clips/.mp4",
    "/api/clips/x.", "/api/live", "/api/models?" + "a=b&" * 5000, "/api/models;x=1", "/API/MODELS", "/api/clips/x.MP4",
)  # fmt: skip
METHODS = ("PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get", "DELETE", "HEAD")
PROMPTS = (
    "\x00", "a\x00b", "\n" * 150, "\x1b[2J", "\u202ea\u202c", "\ud800", "\udfff\ud800", "\U0010ffff", "\ufeff",
    "%s%n{0}", "</script><script>alert(1)</script>", "'; drop table clips; --", "\u0301" * 50, "\u200b" * 50,
    "<close:text>", "\u2028\u2029", "${jndi:ldap://x}", "a " * 90,
)  # fmt: skip
"""Texts that are prompts like any other."""
ENCODED: tuple[tuple[dict[str, str], bytes], ...] = (
    ({"Content-Encoding": "gzip"}, gzip.compress(b'{"prompt": "a robot"}')),
    ({"Content-Encoding": "gzip"}, gzip.compress(b" " * 50_000_000)),
    ({"Content-Encoding": "deflate"}, zlib.compress(b"{}" * 1000)),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--x--"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"prompt=a&seed=1"),
    ({}, b"\xef\xbb\xbf["), ({}, b"{'prompt': 'a'}"), ({}, b'{"seed": 0x1}'), ({}, b'{"seed": 1}{"seed": 2}'),
    ({}, b'{"prompt": "a", "prompt": 1}'), ({}, b'{"seed": 1, "seed": -1}'), ({}, b'{"seed": "3"}'),
    ({}, b'{"seed": true}'), ({}, b'{"frames": [9]}'), ({}, b'{"frames": "9"}'), ({}, b'{"frames": false}'),
    ({}, b'{"seed": -0.0}'), ({}, b'{"seed": 1e2}'), ({}, b'{"count": 1.0}'), ({}, b'{"story": {"9": "x"}}'),
    ({}, b'{"story": "9: x"}'), ({}, b'{"story": [["9", "x"]]}'), ({}, b'{"story": ["999999999999999999999: x"]}'),
    ({}, b'{"outpaint": "1e9,0,0,0"}'), ({}, b'{"outpaint": "nan,nan,nan,nan"}'), ({}, b'{"fps": 0.5}'),
    ({}, b'{"guidance": "Infinity"}'), ({}, b'{"cfg": 1, "guidance": -2}'), ({}, b'{"top_k": 1.5}'),
    ({}, b'{"control": {"edges": "auto"}}'), ({}, b'{"control": ["edges"]}'), ({}, b'{"control": ["=:"]}'),
    ({}, b'{"model": ""}'), ({}, b'{"model": ["small"]}'), ({}, b'{"via_image": "yes"}'), ({}, b'{"": 1}'),
    ({}, b'{"__proto__": {"count": 1}}'), ({}, b'{"window": 9, "overlap": 9}'), ({}, b'{"task": ""}'),
)  # fmt: skip
SAID: tuple[str | bytes, ...] = (
    "", "{", "[]", "null", "1", '"x"', "[" * 4000, '{"watch": 1}', '{"watch": "x"}', '{"watch": null}', "{}",
    '{"watch": {"0": "x"}}', b"\x00", b"", b'{"watch": []}', json.dumps({"watch": [0] * 600}),
    '{"watch": ["' + "x" * 5000 + '"]}',
)  # fmt: skip
"""What ends a socket."""
RANGES = ("bytes=0-", "bytes=-1", "bytes=5-1", "bytes=" + ",".join(["0-1"] * 500), "lines=1-2", "bytes=99999999999-")


def told(port: int, raw: bytes, times: int = 1) -> bytes:
    """All that comes back for some bytes."""
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as line, contextlib.suppress(ConnectionError):
        line.sendall(raw * times)
        line.shutdown(socket.SHUT_WR)
        while piece := line.recv(1 << 16):
            found += piece
    return found


def answer(port: int, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    with contextlib.closing(line):
        line.request(method, path, body, headers)
        found = line.getresponse()
        return found.status, found.read()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def files() -> Iterator[tuple[bytes, bool]]:
    """Odd files, and whether they are one that can be read."""
    clip = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8), 8.0)
    png, mp4, gif = Video(clip.frames[:1], 0).encode(".png"), clip.encode(".mp4"), clip.encode(".gif")
    head, rest = png[:33], png[33:]
    yield png + b"PK\x03\x04" + b"x" * 1000, True
    yield head + chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"a" * 50_000_000)) + rest, False
    yield head + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"\0" * 10_000_000)) + rest, False
    yield head + chunk(b"tEXt", b"comment\0" + b"a" * 3_000_000) + rest, True
    yield b"\x89PNG\r\n\x1a\n" + b"\0" * 100, False
    yield mp4[:32] + b"\xff" * 200 + mp4[232:], False
    yield gif[:-20], False
    yield gif[:13], False
    yield b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";", False
    yield b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 64, False
    yield b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0", False
    yield b"PK\x05\x06" + b"\0" * 18, False
    yield b"%PDF-1.7\n1 0 obj<<>>endobj\n", False
    yield (
        b"BM" + struct.pack("<IHHI", 70, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, -1, -1, 1, 24, 0, 16, 0, 0, 0, 0),
        False,
    )
    yield b"P6 99999 99999 255\n", False
    yield b"II*\0\x08\0\0\0\xff\xff" + b"\xff" * 200, False
    yield b" " * 100_000, False
    yield b"\xff\xd8\xff\xe0" + b"\xff" * 5000, False
    tall = io.BytesIO()
    Image.fromarray(np.zeros((20_000, 1, 3), np.uint8)).save(tall, "PNG")
    yield tall.getvalue(), True


@pytest.fixture
def remote(studio_port: int) -> Remote:
    """Somebody else, whose clip is made meanwhile."""
    return Remote(f"http://127.0.0.1:{studio_port}")


def test_methods_and_pipelines_that_nobody_serves(studio_port: int, remote: Remote, samplers: dict[str, Model]) -> None:
    job = remote.ask(Request(prompt="a robot", seed=4, frames=33))
    count = 0
    for method, path in itertools.product(METHODS, PATHS):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{studio_port}\r\nConnection: close\r\n\r\n"
        said = told(studio_port, head.encode())
        assert not said.startswith(b"HTTP/1.1 5"), (method, path, said[:100])
        if method != "HEAD":
            assert not said.startswith(b"HTTP/1.1 2"), (method, path, said[:100])
        count += 1
    host = f"Host: 127.0.0.1:{studio_port}\r\n"
    for line in ("GET /api/clips HTTP/1.1\r\n", "GET / HTTP/1.0\r\n", "HEAD / HTTP/1.1\r\n"):
        said = told(studio_port, (line + host + "\r\n").encode(), times=50)  # a pipeline: one after the other
        assert b"HTTP/1.1 5" not in said
        assert b"HTTP/1.1 200" in said
        count += 1
    for more in (
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n", "Expect: 100-continue\r\n",
        "Expect: everything\r\n", "Cookie: " + "a=b;" * 3000 + "\r\n", "X-Forwarded-For: 10.0.0.1\r\n",
        "X-Forwarded-Host: evil.example\r\n", "X-HTTP-Method-Override: DELETE\r\n", "Transfer-Encoding: gzip\r\n",
        "Accept: \xff\r\n", "A:\r\n" * 90, "Authorization: Digest x\r\n", "Authorization: Bearer\r\n",
    ):  # fmt: skip
        said = told(studio_port, ("GET /api/models HTTP/1.1\r\n" + host + more + "\r\n").encode("latin-1"))
        assert not said.startswith(b"HTTP/1.1 5") or said.startswith(b"HTTP/1.1 501"), (more[:40], said[:100])
        count += 1
    assert count > 180
    assert np.array_equal(
        remote.frames(remote.wait(job)), samplers["small"].sample("a robot", seed=4, frames=33).frames
    )


def test_questions_that_say_something_else(studio_port: int, remote: Remote) -> None:
    for headers, body in ENCODED:
        status, said = answer(studio_port, "POST", "/api/jobs", body, **headers)
        assert status == 400, (headers, body[:60], said[:200])
        assert json.loads(said)["error"]


def test_any_text_is_a_prompt(studio_port: int, remote: Remote) -> None:
    """It is made, told, kept, and comes back in all kinds of files."""
    jobs = []
    for prompt in PROMPTS:
        body = json.dumps({"prompt": prompt, "frames": 1, "seed": len(jobs)}).encode()
        status, said = answer(studio_port, "POST", "/api/jobs", body)
        assert status == 201, (prompt, said)
        jobs.append(json.loads(said)["jobs"][0]["id"])
    for job in jobs:
        clip = remote.wait(job)
        for kind in ("png", "json", "npz"):
            assert answer(studio_port, "GET", f"/api/clips/{clip['id']}.{kind}")[0] == 200
    assert len(remote.clips()) == len(PROMPTS)


def test_sockets_that_say_what_nobody_understands_are_closed(studio_port: int, remote: Remote) -> None:
    address = f"ws://127.0.0.1:{studio_port}/api/live"
    for words in SAID:
        with connect(address, open_timeout=300) as one:
            try:
                one.send(words)
                while True:
                    one.recv(timeout=300)
            except ConnectionClosed:
                pass
    for origin in ("https://evil.example", "null", f"https://127.0.0.1:{studio_port}", "http://127.0.0.1"):
        with pytest.raises(InvalidStatus), connect(address, origin=origin, open_timeout=300):  # type: ignore[arg-type]
            pass
    job = remote.ask(Request(prompt="a robot"))
    with connect(address, open_timeout=300) as one:
        for _ in range(40):  # again and again, of what is watched and what is not there
            one.send(json.dumps({"watch": [job, "0" * 16, 5, None]}))
        found: list[Any] = []
        while not (found and found[-1]["event"] == "done"):
            found.append(json.loads(one.recv(timeout=300)))
    assert sum(each["event"] == "done" for each in found) == 1
    head = f"GET /api/live HTTP/1.1\r\nHost: 127.0.0.1:{studio_port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", studio_port), timeout=300) as line:  # it goes without a farewell
            line.sendall(head.encode())
            assert line.recv(4096).startswith(b"HTTP/1.1 101")
    assert remote.wait(remote.ask(Request(prompt="a robot")))["frames"] == 9


def test_odd_files_are_read_or_refused(studio_port: int, tmp_path: Path) -> None:
    for number, (data, readable) in enumerate(files()):
        status, said = answer(studio_port, "POST", "/api/uploads", data)
        assert status == (200 if readable else 400), (number, data[:40], said[:200])
        assert len(said) < 100_000
        if readable:
            assert answer(studio_port, "GET", f"/api/uploads/{json.loads(said)['id']}/preview")[0] == 200
    for path in (tmp_path / "uploads").glob("*.webp"):
        path.unlink()  # as when it is let go for another
        assert answer(studio_port, "GET", f"/api/uploads/{path.stem}/preview")[0] == 404


def test_what_is_forgotten_while_it_is_fetched(studio_port: int, remote: Remote) -> None:
    clip = remote.wait(remote.ask(Request(prompt="a robot")))
    path = f"/api/clips/{clip['id']}"
    for asked in RANGES:
        assert answer(studio_port, "GET", f"{path}.rgb", Range=asked) == (200, remote.frames(clip).tobytes())
    for kind in ("mp4", "gif", "webp", "MP4", "mp4.json", "exe", "npy", "mp4%00", "mp4/"):
        status, said = answer(studio_port, "GET", f"{path}.{kind}")
        assert (status == 200) == (kind in ("mp4", "gif", "webp")), (kind, said[:100])
    edits = [json.dumps({"edit": clip["id"], "strength": 0.5, "seed": seed}).encode() for seed in range(4)]
    jobs = [json.loads(answer(studio_port, "POST", "/api/jobs", body)[1])["jobs"][0]["id"] for body in edits]
    assert answer(studio_port, "DELETE", path)[0] == 200
    assert [answer(studio_port, method, path + end)[0] for method, end in (("DELETE", ""), ("GET", ".mp4"))] == [
        404
    ] * 2
    for job in jobs:  # it was read in time, or is told to be there no more
        *_, last = remote.events(job)
        assert last["event"] == "done" or "here no more" in last["error"]
        assert answer(studio_port, "DELETE", f"/api/jobs/{job}")[0] == 200
