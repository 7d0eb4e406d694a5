"""What lies in other people's layouts, and elsewhere: tars, parquet, columns of any name, URLs; and what is hostile."""

import gzip
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from vpoet.data import remote
from vpoet.data.clips import ClipSettings
from vpoet.data.folder import read_samples
from vpoet.data.ingest import Result, ingest
from vpoet.data.lists import read_list
from vpoet.data.making import AWAY
from vpoet.data.remote import fetch, fetched
from vpoet.data.sources import divide, gather
from vpoet.errors import BackendError, DataError
from vpoet.media.video import Video

SETTINGS = ClipSettings(frames=3, fps=0.0, height=16, width=16)


def film(grey: int = 90) -> bytes:
    return Video(np.full((3, 16, 16, 3), grey, np.uint8), 8.0).encode(".mp4")


def picture(grey: int = 90) -> bytes:
    return Video(np.full((1, 16, 16, 3), grey, np.uint8), 0.0).encode(".png")


def tar(path: Path, members: list[tuple[str, bytes | str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, data in members:
            info = tarfile.TarInfo(name)
            content = data.encode() if isinstance(data, str) else data
            info.size = len(content)
            out.addfile(info, io.BytesIO(content))
    return path


def run(out: Path, *sources: str | Path, columns: dict[str, str] | None = None) -> Result:
    return ingest(divide(gather(list(map(str, sources)), columns=columns)), out, SETTINGS)[""]


def told(out: Path) -> list[tuple[str, str]]:
    return [(sample.json["source"], sample.json["caption"]) for sample in read_samples(out)]


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/hangs"):
            self.server.let_go.wait(20)  # type: ignore[attr-defined]
        elif self.path.startswith("/busy"):
            self.send_error(503)
        elif self.path.startswith("/short"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
        elif self.path.startswith("/secret"):
            self.send_error(403)
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a folder that is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    there = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: _Handler(*given, directory=str(folder)))
    there.let_go = threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=there.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{there.server_address[1]}", folder
    there.let_go.set()  # type: ignore[attr-defined]
    there.shutdown()
    there.server_close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    monkeypatch.setattr(remote, "STALL", 0.3)
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: None)


def test_tars_of_video2dataset_and_img2dataset(tmp_path: Path) -> None:
    about = {"caption": "a dog", "url": "https://x/y.mp4", "key": "000000001", "status": "success", "sha256": "ab"}
    tar(
        tmp_path / "in/00000.tar",
        [
            ("000000001.mp4", film()), ("000000001.txt", "a dog, in txt"), ("000000001.json", json.dumps(about)),
            ("000000002.mp4", film()), ("000000002.txt", "a cat"),
        ],
    )  # fmt: skip
    tar(tmp_path / "in/00001.tar", [("000010001.jpg", picture()), ("000010001.json", '{"text": "a bird"}')])
    tar(tmp_path / "in/00002.tar", [("deep/a.png", picture()), ("deep/b.webp", picture())])
    result = run(tmp_path / "out", tmp_path / "in/{00000..00002}.tar")
    assert (result.sources, result.clips, result.problems.total) == (3, 5, 0)
    assert told(tmp_path / "out") == [
        ("00000.tar/000000001", "a dog"), ("00000.tar/000000002", "a cat"), ("00001.tar/000010001", "a bird"),
        ("00002.tar/deep/a", ""), ("00002.tar/deep/b", ""),
    ]  # fmt: skip
    first = next(iter(read_samples(tmp_path / "out"))).json
    assert (first["url"], first["status"], first["source_sha256"]) == ("https://x/y.mp4", "success", "ab")
    assert told(tmp_path / "out") == (run(tmp_path / "folder", tmp_path / "in"), told(tmp_path / "folder"))[1]


def test_own_shards_are_tars_too_and_keep_what_was_done(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": "a.mp4", "actions": [1, 0], "caption": "x"}))
    (tmp_path / "a.mp4").write_bytes(film())
    run(tmp_path / "once", tmp_path / "list.jsonl")
    run(tmp_path / "twice", *sorted((tmp_path / "once").glob("*.tar")))
    (again,) = read_samples(tmp_path / "twice")
    assert (again.json["actions"], again.json["caption"]) == ([1, 0], "x")


def test_hostile_tars(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("[1, 0]")
    tar(
        tmp_path / "bad.tar",
        [
            ("../../evil.mp4", film()), ("/abs.mp4", film()),
            ("named.mp4", film()), ("named.json", json.dumps({"actions": str(tmp_path / "secret.json")})),
            ("list.mp4", film()), ("list.json", "[1]"),
            ("none.txt", "no video"), ("wrong.mp4", b"not a video"),
            ("odd.mp4", film()), ("odd.json", '{"caption": 3}'),
            ("noext", b""), ("parts.mp4", film()), ("parts.json", json.dumps({"segments": [{"path": "/etc/passwd"}]})),
        ],
    )  # fmt: skip
    result = run(tmp_path / "out", tmp_path / "bad.tar")
    assert [source for source, _ in told(tmp_path / "out")] == ["bad.tar/named", "bad.tar/parts"]
    assert not any({"actions", "segments"} & set(sample.json) for sample in read_samples(tmp_path / "out"))
    assert result.problems.counts == {
        "a name that leads out of its folder": 2,
        "its json is not an object": 1,
        "no video or image in it": 1,
        "cannot be decoded": 1,
        "the caption is neither a text nor a list of texts": 1,
        "not named KEY.EXTENSION": 1,
    }
    assert not list(tmp_path.rglob("evil*"))


def test_a_tar_that_is_cut_gives_what_is_before_the_cut(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", [(f"{number}.mp4", film()) for number in range(3)]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    result = run(tmp_path / "out", tmp_path / "cut.tar")
    assert 1 <= result.clips < 3
    assert "broken tar" in result.problems.counts


def test_tars_that_are_packed_are_whole_and_what_is_behind_the_end_of_one_is_told(tmp_path: Path) -> None:
    data = tar(tmp_path / "plain.tar", [("a.mp4", film()), ("v1.5.mp4", film())]).read_bytes()
    (tmp_path / "packed.tar").write_bytes(gzip.compress(data))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "packed.tar.GZ").write_bytes(gzip.compress(data))
    (tmp_path / "joined.tar").write_bytes(2 * data)
    for given, more in (("packed.tar", set()), ("folder", set()), ("joined.tar", {"broken tar"})):
        name = "packed.tar.GZ" if given == "folder" else given
        result = run(tmp_path / "out" / given, tmp_path / given)
        assert result.clips == 1
        assert set(result.problems.counts) == {"no video or image in it"} | more
        assert result.problems.names["no video or image in it"] == [f"{name}/v1 (5.mp4)"]


def rows(path: Path, /, **columns: list[Any]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def test_parquet_and_columns_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(film())
    path = rows(
        tmp_path / "list.parquet",
        video=["a.mp4", "b.mp4", None], path=["wrong"] * 3, text=["one", "two", "three"],
        score=[0.5, float("nan"), 1.0],
        when=[np.datetime64("2024-01-01T00:00:00", "us")] * 3, raw=[b"\xff"] * 3,
    )  # fmt: skip
    result = run(tmp_path / "out", path, columns={"path": "video", "caption": "text"})
    assert told(tmp_path / "out") == [("a.mp4", "one")]
    assert set(result.problems.counts) == {"missing file", "bad row: names no file in a column `path` or `file`"}
    (sample,) = read_samples(tmp_path / "out")
    assert (sample.json["score"], sample.json["when"]) == (0.5, "2024-01-01 00:00:00")
    assert "text" not in sample.json


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_column_that_is_not_there(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"list.{kind}"
    content = {"jsonl": '{"url": "a.mp4"}', "csv": "url\na.mp4"}
    rows(path, url=["a.mp4"]) if kind == "parquet" else path.write_text(content[kind])
    with pytest.raises(DataError, match="no column 'link'; it has url"):
        list(read_list(path, {"path": "link"}))
    with pytest.raises(DataError, match="--columns path=NAME"):
        list(read_list(path))


def test_a_column_that_stands_twice_is_named(tmp_path: Path) -> None:
    twice = tmp_path / "twice.parquet"
    columns = [pa.array(["a.mp4"]), pa.array(["left"]), pa.array(["right"])]
    parquet.write_table(pa.table(columns, names=["path", "caption", "caption"]), twice)
    for name, text in (("twice.csv", "path,caption,caption\na.mp4,left,right\n"), ("blank.csv", "path, path\na,b\n")):
        (tmp_path / name).write_text(text)
    for name, column in (("twice.parquet", "caption"), ("twice.csv", "caption"), ("blank.csv", "path")):
        with pytest.raises(DataError, match=f"{name}: the column '{column}' stands twice"):
            list(read_list(tmp_path / name))
    # columns without a name, as spreadsheets leave them, and blanks behind the commas
    (tmp_path / "sheet.csv").write_text("path, caption,,\na.mp4,left,,\n")
    (row,) = read_list(tmp_path / "sheet.csv")
    assert row.fields["caption"] == "left"


def test_texts_of_a_parquet_that_are_bytes(tmp_path: Path) -> None:
    path = rows(tmp_path / "list.parquet", path=[b"a.mp4", b"\xff.mp4"], caption=["é".encode(), b"\xff"])
    first, second = read_list(path)
    assert (first.name, first.fields["caption"]) == ("a.mp4", "é")
    assert (second.name, second.fields["caption"]) == (r"b'\xff.mp4'", r"b'\xff'")


def test_a_broken_parquet_and_one_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="not a readable list"):
        list(read_list(tmp_path / "list.parquet"))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(BackendError, match=r"vpoet\[parquet\]"):
        list(read_list(tmp_path / "list.parquet"))


def test_lists_tars_and_films_on_a_server(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "a.mp4").write_bytes(film())
    tar(folder / "00000.tar", [("b.mp4", film()), ("b.txt", "in a tar")])
    rows(folder / "list.parquet", path=["a.mp4", f"{url}/a.mp4?token=x"], caption=["beside", "anywhere"])
    result = run(tmp_path / "out", f"{url}/list.parquet", f"{url}/{{00000..00000}}.tar", f"{url}/a.mp4")
    assert (result.clips, result.problems.total) == (4, 0)
    assert told(tmp_path / "out") == [
        ("a.mp4", "beside"), (f"{url}/a.mp4", "anywhere"), (f"{url}/00000.tar/b", "in a tar"), (f"{url}/a.mp4", ""),
    ]  # fmt: skip


def test_a_list_from_elsewhere_names_nothing_of_this_machine(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    (tmp_path / "mine.mp4").write_bytes(film())
    (tmp_path / "mine.json").write_text("[1, 0]")
    (folder / "a.mp4").write_bytes(film())
    lines = [
        {"path": str(tmp_path / "mine.mp4")}, {"path": "pipe:cat mine.mp4"},
        {"path": "a.mp4", "actions": str(tmp_path / "mine.json")},
        {"segments": [{"image": str(tmp_path / "mine.mp4")}]},
    ]  # fmt: skip
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    result = run(tmp_path / "out", f"{url}/list.jsonl")
    assert [source for source, _ in told(tmp_path / "out")] == ["a.mp4"]
    assert "actions" not in next(iter(read_samples(tmp_path / "out"))).json
    assert sum(result.problems.counts.values()) == 3
    (tmp_path / "list.jsonl").write_text(json.dumps({"path": f"pipe:touch {tmp_path}/ran; cat mine.mp4"}))
    with pytest.raises(DataError, match="names files, and no commands"):
        gather([str(tmp_path / "list.jsonl")])
    assert not (tmp_path / "ran").exists()


def test_a_pipe(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.mp4", film()), ("a.txt", "by a pipe")])
    run(tmp_path / "out", f"pipe:cat {path}")
    assert [caption for _, caption in told(tmp_path / "out")] == ["by a pipe"]


def test_a_bucket_of_google(tmp_path: Path, google: Any) -> None:
    """Its tar gives the shard that the same tar gives in a folder, and its list names files beside it."""
    path = tar(tmp_path / "in/x.tar", [("a.mp4", film()), ("a.txt", "of a bucket"), ("b.png", picture())])
    google.buckets["clips"] = {
        "in/x.tar": path.read_bytes(), "list.jsonl": b'{"path": "in/c.mp4", "caption": "listed"}',
        "in/c.mp4": film(30),
    }  # fmt: skip
    run(tmp_path / "local", path)
    run(tmp_path / "away", "gs://clips/in/x.tar")

    def held(out: Path) -> list[Any]:
        return [(sample.parts, sample.captions) for sample in read_samples(out)]

    assert len(held(tmp_path / "local")) == 2
    assert held(tmp_path / "away") == held(tmp_path / "local")
    run(tmp_path / "list", "gs://clips/list.jsonl")
    assert told(tmp_path / "list") == [("in/c.mp4", "listed")]


@pytest.mark.usefixtures("soon")
def test_what_does_not_come(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "a.mp4").write_bytes(film())
    wrong = [f"{url}/{name}.mp4" for name in ("hangs", "busy", "short", "secret", "nowhere")]
    result = run(tmp_path / "out", f"{url}/a.mp4", *wrong, "pipe:sleep 9", "pipe:exit 3")
    assert result.clips == 1
    assert result.problems.counts == {AWAY: 5, "cannot be fetched": 2}
    named = " ".join(name for names in result.problems.names.values() for name in names)
    for reason in ("503", "991 bytes before its end", "no right to read it", "no such file", "status 3"):
        assert reason in named


@pytest.mark.usefixtures("soon")
def test_what_was_away_is_asked_for_again(tmp_path: Path, server: tuple[str, Path]) -> None:
    url, folder = server
    (folder / "a.mp4").write_bytes(film())
    sources = [f"{url}/a.mp4", "pipe:test -f here.tar && cat here.tar"]
    here = tmp_path / "here.tar"
    sources[1] = f"pipe:test -f {here} && cat {here}"
    assert run(tmp_path / "out", *sources).clips == 1
    assert run(tmp_path / "out", *sources).problems.counts == {AWAY: 1}
    tar(here, [("b.mp4", film())])
    assert run(tmp_path / "out", *sources).clips == 2
    (folder / "a.mp4").unlink()
    assert run(tmp_path / "out", *sources).clips == 2, "what came once is not asked for again"


def test_a_file_comes_whole_or_not_at_all(tmp_path: Path, server: tuple[str, Path], soon: None) -> None:
    url, folder = server
    (folder / "x.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match="cannot be reached"):
        fetch(f"{url}/x.bin", tmp_path / "here", sha256="0" * 64)
    with pytest.raises(DataError, match="broke off"):
        fetch(f"{url}/short", tmp_path / "here")
    assert not (tmp_path / "here").exists()
    with fetched(f"{url}/x.bin?secret=1") as path:
        assert (path.suffix, path.read_bytes()) == (".bin", b"abc")
    assert not path.exists()
    assert remote.shown(f"{url.replace('//', '//me:word@')}/x?secret=1") == f"{url}/x"
