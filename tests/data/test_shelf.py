"""Shards that lie on a server: the same packs as from a folder, in a bounded cache; servers that are away or say no."""

import http.server
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import remote, shelf
from vpoet.data.clip_stream import ClipShape, ClipStream
from vpoet.data.lanes import Lane, Walk
from vpoet.data.shards import MANIFEST, Manifest, ShardWriter
from vpoet.data.shelf import Shelf
from vpoet.data.token_documents import Documents, Source, StreamConfig
from vpoet.data.token_stream import PackStream
from vpoet.errors import BackendError, CheckpointError, DataError, OutputError, VpoetWarning
from vpoet.media.video import Video
from vpoet.sequence.document import parse
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(text=300, visual=(16, 16), text_hash="text", visual_hash="visual")


def encode_text(text: str) -> list[int]:
    return list(text.encode())


def write(folder: Path, first: int, samples: int, worker: int = 0) -> None:
    """Sample i has i in every code. What is written later comes after what is there."""
    with ShardWriter(folder, kind="tokens", samples_per_shard=4, tokenizer="visual", worker=worker) as writer:
        for i in range(first, first + samples):
            codes = np.full((2, 2, 2), i, dtype=np.int32)
            fields = {"caption": str(i), "fps": 8.0, "tokenizer": "visual"}
            writer.write(f"sample-{i:04d}", {"codes.npy": codes, "json": fields})
    before = Manifest.load(folder).shards if (folder / MANIFEST).exists() else []
    Manifest("tokens", [*before, *writer.shards], "visual").save(folder)


def config(path: object, **changes: Any) -> StreamConfig:
    tasks = {"unconditional": 1.0, "t2v": 1.0}
    return StreamConfig(sources=[Source(path=str(path))], tasks=tasks, length=64, lookahead=4, **changes)


def documents(cfg: StreamConfig) -> Documents:
    return Documents(cfg, vocabulary=VOCABULARY, text=encode_text, seed=1)


def packs(cfg: StreamConfig, count: int) -> list[list[int]]:
    with PackStream(documents(cfg), lanes=2, prefetch=0) as stream:
        return [row.ids.tolist() for _ in range(count) for row in next(stream)]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        threading.Event().wait(0.01)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        there: Any = self.server
        there.asked.append(self.path.rpartition("/")[2])
        if there.away and not self.path.endswith(MANIFEST):
            self.send_error(503)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    """Serves ``tmp_path / "there"``; it has its `url`, whether it is `away`, and what it was `asked` for."""
    folder = tmp_path / "there"
    folder.mkdir()
    there: Any = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *given: _Handler(*given, directory=str(folder))
    )
    there.away, there.asked, there.url = False, [], f"http://127.0.0.1:{there.server_address[1]}"
    threading.Thread(target=there.serve_forever, args=(0.05,), daemon=True).start()
    yield there
    there.shutdown()
    there.server_close()


def test_packs_from_a_server_are_those_from_its_folder(tmp_path: Path, server: Any) -> None:
    write(tmp_path / "there/tokens", 0, 20)
    local = packs(config(tmp_path / "there/tokens"), 30)
    away = config(f"{server.url}/tokens", cache=str(tmp_path / "cache"))
    assert packs(away, 30) == local
    assert Counter(server.asked) == {MANIFEST: 1, **{f"tokens-00000-{number:05d}.tar": 1 for number in range(5)}}
    assert packs(away, 30) == local
    assert max(Counter(server.asked).values()) == 2, "what is in the cache is not asked for again, but the manifest"


def test_the_cache_is_bounded(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "GRACE", -1.0)
    write(tmp_path / "there/tokens", 0, 40)
    sizes = [shard.bytes for shard in Manifest.load(tmp_path / "there/tokens").shards]
    most = 3 * max(sizes)
    cfg = config(f"{server.url}/tokens", cache=str(tmp_path / "cache"), cache_gb=most / 1e9)
    assert packs(cfg, 60) == packs(config(tmp_path / "there/tokens"), 60)
    held = list((tmp_path / "cache").glob("*/*.tar"))
    assert 0 < sum(path.stat().st_size for path in held) <= most
    with pytest.raises(DataError, match="give it more"):
        packs(config(f"{server.url}/tokens", cache=str(tmp_path / "other"), cache_gb=max(sizes) / 2e9), 1)


def test_a_server_that_is_away_is_waited_for(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training waits, says so, and goes on with the same packs."""
    write(tmp_path / "there/tokens", 0, 20)
    cfg = config(f"{server.url}/tokens", cache=str(tmp_path / "cache"))
    made = documents(cfg)
    server.away = True
    told: list[str] = []
    now = 0.0

    def wait(seconds: float) -> None:
        nonlocal now
        now += seconds
        told.append(made.sources[0].shelf.waiting)
        server.away = now < 40

    monkeypatch.setattr(remote.time, "sleep", wait)
    monkeypatch.setattr(remote.time, "monotonic", lambda: now)
    with pytest.warns(VpoetWarning) as warned, PackStream(made, lanes=2, prefetch=0) as stream:
        found = [row.ids.tolist() for _ in range(20) for row in next(stream)]
    assert found == packs(config(tmp_path / "there/tokens"), 20)
    assert [str(one.message)[:12] for one in warned] == ["waiting for "] * len(warned)
    assert 2 <= len(warned) <= 5
    assert f"{server.url}/tokens/tokens-00000-" in told[0]
    assert "503" in told[0]
    assert not made.sources[0].shelf.waiting


def test_the_next_shard_comes_while_one_is_read(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two shards are there when the server goes away, though one was asked for; what could not be had is, later."""
    write(tmp_path / "there/tokens", 0, 20)

    def waiting(seconds: float) -> None:
        raise AssertionError("a shard was not there when it was needed")

    monkeypatch.setattr(remote.time, "sleep", waiting)
    local = Walk(documents(config(tmp_path / "there/tokens")), 0, lane=0, lanes=1)
    away = Walk(documents(config(f"{server.url}/tokens", cache=str(tmp_path / "cache"))), 0, lane=0, lanes=1)
    wanted = [local.next() for _ in range(40)]
    found = [away.next()]
    until(lambda: len(list((tmp_path / "cache").glob("*/*.tar"))) == 2)
    server.away = True
    found += [away.next() for _ in range(7)]
    until(lambda: len(server.asked) == 4)
    server.away = False
    found += [away.next() for _ in range(32)]
    assert [at for at, _ in found] == [at for at, _ in wanted]
    assert [sequence.ids.tolist() for _, sequence in found] == [sequence.ids.tolist() for _, sequence in wanted]


def test_what_takes_much_of_the_cache_is_not_brought_ahead(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "there/tokens", 0, 4)
    (info,) = Manifest.load(tmp_path / "there/tokens").shards
    added: list[str] = []
    monkeypatch.setattr(shelf.Errands, "add", lambda self, name, bring: added.append(name))
    for share in (50, 200):
        there = Shelf(f"{server.url}/tokens", cache=tmp_path / str(share), cache_gb=share * info.bytes / 1e9)
        there.ahead(info)
        assert added == ([info.name] if share == 200 else [])
    there.path(info)
    there.ahead(info)
    Shelf(tmp_path / "there/tokens").ahead(info)
    assert len(added) == 1, "neither is what is here"


def test_another_file_than_the_manifest_lists(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    write(tmp_path / "there/tokens", 0, 4)
    there = Shelf(f"{server.url}/tokens", cache=tmp_path / "cache")
    (info,) = there.manifest().shards
    path = there.path(info)
    path.write_bytes(b"cut")
    assert there.path(info).stat().st_size == info.bytes, "a file of another size in the cache is brought again"
    path.unlink()
    (tmp_path / "there/tokens" / info.name).write_bytes(b"other" * 100)
    with pytest.raises(DataError, match="SHA-256"):
        there.path(info)
    with pytest.raises(DataError, match="no such file"):
        Shelf(f"{server.url}/nothing", cache=tmp_path / "cache").manifest()


def test_a_tokenizer_trains_from_a_server_and_by_a_pipe(tmp_path: Path, server: Any) -> None:
    raw = tmp_path / "there/raw"
    with ShardWriter(raw, kind="raw", samples_per_shard=2) as writer:
        for i in range(6):
            video = Video(np.full((4, 16, 16, 3), 40 * i, np.uint8), 8.0).encode(".mp4")
            writer.write(f"{i}", {"mp4": video, "json": {"caption": "", "fps": 8.0, "frames": 4}})
    writer.manifest().save(raw)

    def clips(folder: str | Path) -> list[Any]:
        stream = ClipStream([folder], ClipShape(2, 16, 16), batch=2, seed=0)
        return [next(stream).tolist() for _ in range(4)]

    local = clips(raw)
    assert clips(f"{server.url}/raw") == local
    assert clips(Path(f"{server.url}/raw")) == local
    assert clips(f"pipe:cat {raw}/{{}}") == local


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def test_a_user_without_a_home_needs_none_for_a_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever is but a number in a container."""

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    write(tmp_path / "tokens", 0, 1)
    assert Shelf(tmp_path / "tokens").manifest().samples == 1
    with pytest.raises(OutputError, match="XDG_CACHE_HOME"):
        Shelf("http://127.0.0.1:9/tokens")
    assert Shelf("http://127.0.0.1:9/tokens", cache=tmp_path / "cache").folder.parent == tmp_path / "cache"


def test_buckets(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 server of this machine: packs from a bucket, one that is not there, and one that says no."""
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write(tmp_path / "tokens", 0, 8)
    there = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    there.start()
    try:
        host, port = there.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:{port}")
        import boto3

        bucket = boto3.resource("s3").create_bucket(Bucket="clips")
        for path in (tmp_path / "tokens").iterdir():
            bucket.upload_file(str(path), f"set/tokens/{path.name}")
        cfg = config("s3://clips/set/tokens", cache=str(tmp_path / "cache"))
        made: list[str] = []
        make = remote._client
        monkeypatch.setattr(remote, "_client", lambda scheme: (made.append(scheme), make(scheme))[1])
        monkeypatch.setattr(remote, "_clients", {})
        assert packs(cfg, 10) == packs(config(tmp_path / "tokens"), 10)
        assert made == ["s3"], "one client opens all files"
        remote._clients[os.getpid(), "s3"] = _Expired()
        assert Shelf("s3://clips/set/tokens").manifest().samples == 8
        assert made == ["s3", "s3"], "a new one takes the place of one whose credentials ran out"
        with pytest.raises(DataError, match=r"s3://nowhere/tokens/manifest.json: no such file.*aws s3 ls"):
            Shelf("s3://nowhere/tokens").manifest()
    finally:
        there.stop()
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(_Handler, "do_GET", lambda self: self.send_error(403))
    monkeypatch.setattr(_Handler, "do_HEAD", lambda self: self.send_error(403))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    with pytest.raises(DataError, match=r"s3://closed/tokens/manifest.json: no right to read it.*AWS_PROFILE"):
        Shelf("s3://closed/tokens").manifest()


def test_buckets_of_google(tmp_path: Path, google: Any) -> None:
    """Packs from a bucket, one that is not there, and two that say no."""
    write(tmp_path / "tokens", 0, 8)
    files = {f"set/tokens/{path.name}": path.read_bytes() for path in (tmp_path / "tokens").iterdir()}
    google.buckets["clips"] = files
    cfg = config("gs://clips/set/tokens", cache=str(tmp_path / "cache"))
    assert packs(cfg, 10) == packs(config(tmp_path / "tokens"), 10)
    (cached,) = (tmp_path / "cache").iterdir()
    assert {f"set/tokens/{path.name}": path.read_bytes() for path in cached.iterdir()} == files
    assert Counter(name for name, _ in google.asked) == dict.fromkeys(files, 1)
    google.refused |= {"closed": 403, "unknown": 401}
    for bucket, wrong in (
        ("nowhere", "no such file, or no such bucket; `gcloud storage ls`"),
        ("clips", "no such file"),
        ("closed", r"no right to read it.*storage.objects.get access.*GOOGLE_APPLICATION_CREDENTIALS"),
        ("unknown", r"no right to read it.*storage.objects.get access.*GOOGLE_APPLICATION_CREDENTIALS"),
    ):
        with pytest.raises(DataError, match=f"gs://{bucket}/other/manifest.json: {wrong}"):
            Shelf(f"gs://{bucket}/other").manifest()


def test_a_large_file_of_google_comes_in_pieces(tmp_path: Path, google: Any) -> None:
    data = np.random.default_rng(0).bytes(9 * remote.PIECE)
    google.buckets["clips"] = {"a folder/large.tar": data, "empty": b""}
    remote.fetch("gs://clips/a folder/large.tar", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == data
    assert len(google.asked) > 1
    remote.fetch("gs://clips/empty", tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b""


class _Expired:
    """A client that may no more."""

    def open(self, *_: object, **__: object) -> None:
        raise PermissionError("ExpiredToken")


def test_a_bucket_without_its_package_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import _registry

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(_registry, "gs", raising=False)  # where another test has used it
    monkeypatch.setattr(remote, "_clients", {})
    with pytest.raises(BackendError, match=r'pip install "vpoet\[remote\]"'):
        Shelf("gs://bucket/tokens").manifest()


def numbers(lane: Lane, until: int) -> dict[int, list[int]]:
    """Samples that the lane's walk takes, by epoch, until it is in that one."""
    walk = lane.walks[0]
    found: dict[int, list[int]] = {}
    while walk.at.epoch < until:
        cursor, sequence = walk.next()
        found.setdefault(cursor.epoch, []).append(int(parse(sequence.ids, VOCABULARY).codes().flat[0]))
    return found


@pytest.mark.parametrize("lanes", [2, 7])
def test_a_set_may_grow_and_the_epoch_under_way_stays_as_it_is(tmp_path: Path, lanes: int) -> None:
    folder = tmp_path / "tokens"
    write(folder, 0, 20)
    shutil.copytree(folder, tmp_path / "before")
    cfg = config(folder)
    with PackStream(documents(cfg), lanes=lanes, prefetch=0) as stream:
        while any(place["walks"][0][0] < 1 for place in stream.state().values()):
            next(stream)
        state = stream.state()
    epoch = max(place["walks"][0][0] for place in state.values())
    write(folder, 20, 12, worker=1)
    with pytest.warns(VpoetWarning, match=rf"8 shards, and 5 when .* from epoch {epoch + 1} on"):
        grown = PackStream(documents(cfg), lanes=lanes, prefetch=0, state=state)
    assert grown.state() == state
    old, new = documents(config(tmp_path / "before")), documents(cfg)
    seen: dict[int, Counter[int]] = {}
    for lane in range(lanes):
        place = state[str(lane)]
        found = numbers(Lane(new, lane, lanes, place, epoch + 1), epoch + 3)
        as_before = numbers(Lane(old, lane, lanes, place), epoch + 1)
        for at in range(epoch + 1):
            assert found.get(at) == as_before.get(at)
        for at, some in found.items():
            seen.setdefault(at, Counter()).update(some)
    assert seen[epoch + 1] == seen[epoch + 2] == Counter(range(32))
    # and once more: what was told of the growth goes along
    with pytest.warns(VpoetWarning):
        later = PackStream(documents(cfg), lanes=lanes, prefetch=0, state=state)
    next(later)
    again = PackStream(documents(cfg), lanes=lanes, prefetch=0, state=later.state())
    assert [row.ids.tolist() for row in next(again)] == [row.ids.tolist() for row in next(later)]
    with pytest.raises(CheckpointError, match="one in other data"):
        PackStream(documents(config(tmp_path / "before")), lanes=lanes, prefetch=0, state=later.state())


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    write(tmp_path / "tokens", 0, 20)
    cfg = config(tmp_path / "tokens")
    stream = PackStream(documents(cfg), lanes=2, prefetch=0)
    next(stream)
    state = {
        lane: {name: at for name, at in place.items() if name != "shards"} for lane, place in stream.state().items()
    }
    again = PackStream(documents(cfg), lanes=2, prefetch=0, state=state)
    assert [row.ids.tolist() for row in next(again)] == [row.ids.tolist() for row in next(stream)]
