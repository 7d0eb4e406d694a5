"""Lists and records in any state: one bad row is one bad row, and a source that was away is tried again."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data.clips import ClipSettings
from vpoet.data.fields import check_caption
from vpoet.data.ingest import Result, ingest
from vpoet.data.lists import read_list, row_name
from vpoet.data.shards import Manifest, read_shard
from vpoet.data.sources import divide, gather
from vpoet.errors import DataError
from vpoet.media.video import Video

SETTINGS = ClipSettings(frames=5, fps=8.0, height=16, width=16)


def clip(path: Path, grey: int = 0) -> Path:
    Video(np.full((5, 16, 16, 3), grey, np.uint8), 8.0).write(path)
    return path


def run(source: Path, out: Path, settings: ClipSettings = SETTINGS) -> Result:
    return ingest(divide(gather([str(source)])), out, settings)[""]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sources(folder: Path) -> list[str]:
    shards = Manifest.load(folder).shards
    return [sample.json["source"] for shard in shards for sample in read_shard(folder / shard.name)]


BAD_LINES = [
    b"{",
    b"[1]",
    b"5",
    b"null",
    b'{"caption": "x"}',
    b'{"path": "", "caption": "x"}',
    b'{"path": 5}',
    b'{"path": ["a.mp4"]}',
    b'{"path": "a\\u0000.mp4"}',
    b'{"path": "a.mp4", "caption": 5}',
    b'{"path": "a.mp4", "caption": false}',
    b'{"path": "a.mp4", "caption": {"en": "x"}}',
    b'{"path": "a.mp4", "caption": [1, null]}',
    b'{"path": "a.mp4", "caption": "\xe9"}',
    b'{"path": "a.mp4", "caption": "\xed\xa0\x80"}',
    b'{"path": "a.mp4", "more": ' + b"[" * 100_000,
    b'{"path": "a.mp4", "more": ' + b"[" * 50 + b"]" * 50 + b"}",
    b'{"path": "a.mp4", "more": ' + b"1" * 5000 + b"}",
    b'{"path": "a.mp4", "captions": [{"from": 1' + b"0" * 400 + b', "to": 2, "text": "x"}]}',
    b'{"path": "a.mp4", "caption": "' + b"x" * 10_000_000 + b'"}',
    b"\xff\xfe\x00",
    b"\x00\x00",
]
GOOD_LINES = [
    b'{"path": "a.mp4"}',
    b'{"file": "a.mp4", "caption": null}',
    b'{"path": "a.mp4", "caption": ["x", "y"], "score": NaN, "far": 1e999}',
    b'{"path": "a.mp4", "path": "a.mp4", "number": 123456789012345678901234567890}',
    b'{"path": "a.mp4", "caption": "\\ud800 \\u0000 \xc3\xa9", "\\ud800": 1}',
    '{"path": "a.mp4", "caption": "\u2028\u0085 line"}'.encode(),
    b'{"path": "a.mp4", "sha256": {"mp4": "0"}, "frames": "many", "tokenizer": 5, "caption": ""}\r',
]


def test_every_bad_row_is_one_bad_row(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4")
    lines = [line for pair in zip(BAD_LINES, cycle(GOOD_LINES), strict=False) for line in pair]
    (tmp_path / "l.jsonl").write_bytes(b"\n".join(lines))
    result = run(tmp_path / "l.jsonl", tmp_path / "raw")
    bad = [name for names in result.problems.names.values() for name in names]
    assert sorted(bad) == sorted(f"l.jsonl, entry {number}" for number in range(1, 2 * len(BAD_LINES), 2))
    assert all(reason.startswith("bad row: ") for reason in result.problems.counts)
    assert (result.sources, result.clips) == (2 * len(BAD_LINES), len(BAD_LINES))
    assert len(sources(tmp_path / "raw")) == result.clips


@pytest.mark.parametrize("line", BAD_LINES[:8])
def test_a_list_of_bad_rows_alone_is_an_error(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "l.jsonl").write_bytes(line + b"\n" + line)
    with pytest.raises(DataError, match=r"l\.jsonl: not a readable list, none of its 2 rows.*entry 1.*column `path`"):
        gather([str(tmp_path / "l.jsonl")])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_encodings(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = (
        'path,caption\na.mp4,"é,\U0001f600"\n' if suffix == ".csv" else '{"path": "a.mp4", "caption": "é,\U0001f600"}\n'
    )
    path = tmp_path / f"l{suffix}"
    path.write_bytes(text.encode(encoding))
    (row,) = read_list(path)
    assert (row.name, row.fields) == ("a.mp4", {"caption": "é,\U0001f600"})


@pytest.mark.parametrize(
    ("text", "captions"),
    [
        (b"path,caption\na,1\nb,\xe9\nc,3\n", ["1", None, "3"]),
        (b"path,caption\na,1\n,2\nc,3\n", ["1", None, "3"]),
        (b"path,caption\na,1\n\n\nc,3\n", ["1", "3"]),
        (b'path,caption\na,"1\n2"\nc,3\n', ["1\n2", "3"]),
        (b'path,caption\na,say "1"\nc,"3 "x"\n', ['say "1"', '3 x"']),
        (b'path,caption\na,1\nb,"never closed\nc,3\nd,4\n', ["1", None, "3", "4"]),
        (b'path,caption\nb,"never closed\nc,3\nd,"4"\ne,5\n', [None, "3", "4", "5"]),
        (b"path,caption\na,1,more,cells\nb\nc,3\n", ["1", "", "3"]),
        (b"path,caption\r\na,1\r\nc,3", ["1", "3"]),
        (b"path,caption\ra,1\rc,3", ["1", "3"]),
        (b"path,caption\na,1\nb," + b"x" * 10_000_000 + b"\nc,3\n", ["1", None, "3"]),
        (b"path,caption\na,1\nb\x00,2\nc,3\n", ["1", None, "3"]),
        (b"\xff,path,caption\n0,a,1\n", ["1"]),
    ],
)
def test_rows_of_a_csv(tmp_path: Path, text: bytes, captions: list[str | None]) -> None:
    (tmp_path / "l.csv").write_bytes(text)
    rows = list(read_list(tmp_path / "l.csv"))
    assert [None if row.problem else row.fields.get("caption", "") for row in rows] == captions
    json.dumps([row.fields for row in rows], ensure_ascii=False).encode()


def test_captions_that_are_none() -> None:
    for good in (None, "", "x", [], ["x", ""]):
        check_caption(good)
    for bad in (0, 5, False, True, {}, {"a": "x"}, [None], [["x"]], "x" * 100_001, ["x" * 60_000] * 2):
        with pytest.raises(DataError, match="caption"):
            check_caption(bad)


def test_no_path_of_this_machine_gets_into_shards(tmp_path: Path) -> None:
    """From a list's absolute paths; and different files keep different names."""
    lists, far = tmp_path / "lists", tmp_path / "secret-home"
    inside, near, other = clip(lists / "deep/a.mp4"), clip(far / "one/a.mp4"), clip(far / "two/a.mp4")
    rows = [{"path": str(path)} for path in (inside, near, other, far / "gone.mp4", far / "two/../one/a.mp4")]
    (lists / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = run(lists / "l.jsonl", tmp_path / "raw")
    names = sources(tmp_path / "raw")
    assert names[0] == "deep/a.mp4"
    assert len(set(names[:3])) == 3
    assert names[3] == names[1], "the same file by another way"
    assert all(len(name) == 12 + len("/a.mp4") for name in names[1:])
    told = b"".join(tree(tmp_path / "raw").values()) + str(result).encode()
    assert b"secret-home" not in told
    assert str(tmp_path).encode() not in told
    assert row_name(lists, "../up/a.mp4") == "../up/a.mp4"


def test_a_row_is_no_world_and_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip(tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    names = [
        "world:platformer",
        "world:mars",
        "/dev/zero",
        "pipe.mp4",
        "folder.mp4",
        "x" * 5000,
        "a.mp4/b",
        "..",
        "a.mp4",
    ]
    (tmp_path / "l.jsonl").write_text("\n".join(json.dumps({"path": name}) for name in names))
    monkeypatch.chdir(tmp_path)
    result = run(Path("l.jsonl"), tmp_path / "raw")
    assert (result.clips, result.problems.counts) == (1, {"missing file": 8})


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    clip(tmp_path / "in/a.mp4").rename(tmp_path / "in" / "\udce9\x1b.mp4")
    (tmp_path / "in" / "b\udcff.mp4").write_bytes(b"junk")
    sides = divide(gather([str(tmp_path / "in")]), by=None, unseen=[], holdout=0.45)
    assert sum(map(len, sides.values())) == 2
    result = run(tmp_path / "in", tmp_path / "raw")
    assert (result.clips, sources(tmp_path / "raw")) == (1, ["\\udce9\\x1b.mp4"])


def many(folder: Path) -> Path:
    """A list of ten clips: two jobs."""
    for number in range(10):
        clip(folder / f"{number}.mp4", number)
    (folder / "l.csv").write_text("path\n" + "".join(f"{number}.mp4\n" for number in range(10)))
    return folder / "l.csv"


def test_a_source_that_was_away_is_tried_again(tmp_path: Path) -> None:
    """The result is that of a run to which it was there; other jobs, and sources that have gone, stay as they are."""
    listed = many(tmp_path / "in")
    run(listed, tmp_path / "whole")
    away = tmp_path / "away.mp4"
    (tmp_path / "in/9.mp4").rename(away)
    assert run(listed, tmp_path / "raw").problems.counts == {"missing file": 1}
    assert run(listed, tmp_path / "raw").problems.counts == {"missing file": 1}
    stamp = (tmp_path / "raw/raw-00000-00000.tar").stat().st_mtime_ns
    away.rename(tmp_path / "in/9.mp4")
    (tmp_path / "in/0.mp4").unlink()
    result = run(listed, tmp_path / "raw")
    assert (result.clips, result.problems.total) == (10, 0)
    assert tree(tmp_path / "raw") == tree(tmp_path / "whole")
    assert (tmp_path / "raw/raw-00000-00000.tar").stat().st_mtime_ns == stamp


def test_a_source_that_has_changed_is_read_again(tmp_path: Path) -> None:
    """Half a download at first: then the whole. The job's shards become fewer when a source shrinks."""
    listed = many(tmp_path / "in")
    data = (tmp_path / "in/3.mp4").read_bytes()
    (tmp_path / "in/3.mp4").write_bytes(data[:100])
    assert run(listed, tmp_path / "raw").clips == 9
    (tmp_path / "in/3.mp4").write_bytes(data)
    assert run(listed, tmp_path / "raw").clips == 10
    long = Video(np.zeros((1000, 16, 16, 3), np.uint8), 8.0)
    long.write(tmp_path / "in/3.mp4")
    settings = replace(SETTINGS)
    few = {"samples_per_shard": 50}
    sides = divide(gather([str(listed)]))
    assert ingest(sides, tmp_path / "few", settings, **few)[""].clips == 209
    clip(tmp_path / "in/3.mp4", 3)
    assert ingest(sides, tmp_path / "few", settings, **few)[""].clips == 10
    assert sorted(path.name for path in (tmp_path / "few").glob("*.tar")) == [
        "raw-00000-00000.tar",
        "raw-00001-00000.tar",
    ]


def test_a_disk_that_fails_while_it_is_read_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = many(tmp_path / "in")
    data = (tmp_path / "in/3.mp4").read_bytes()
    (tmp_path / "in/3.mp4").write_bytes(data[:100])
    stamp = (tmp_path / "in/3.mp4").stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr("vpoet.data.ingest.is_readable", lambda path: not path.endswith("3.mp4"))
        assert run(listed, tmp_path / "raw").clips == 9
    (tmp_path / "in/3.mp4").write_bytes(data)
    os.utime(tmp_path / "in/3.mp4", ns=(stamp, stamp))
    assert run(listed, tmp_path / "raw").clips == 10


RECORD = ".jobs/00000.json"
Change = Callable[[dict[str, Any]], Any]
DAMAGES: list[Change] = [
    lambda record: b"",
    lambda record: b"\x00\xff",
    lambda record: b"[" * 100_000,
    lambda record: json.dumps(record)[:-30].encode(),
    lambda record: [],
    lambda record: None,
    lambda record: {},
    lambda record: {name: value for name, value in record.items() if name != "problems"},
    lambda record: record | {"shards": [record["shards"][0] | {"name": "../../victim.tar"}]},
    lambda record: record | {"shards": [record["shards"][0] | {"name": "raw-00001-00000.tar"}]},
    lambda record: record | {"shards": [record["shards"][0] | {"bytes": -1}]},
    lambda record: record | {"shards": [record["shards"][0] | {"samples": "8"}]},
    lambda record: record | {"shards": {"a": 1}},
    lambda record: record | {"shards": []},
    lambda record: record | {"clips": "8"},
    lambda record: record | {"clips": -8},
    lambda record: record | {"seconds": "long"},
    lambda record: record | {"seconds": float("inf")},
    lambda record: record | {"sources": 10**400},
    lambda record: record | {"problems": {"counts": {"x": -1}, "names": {"x": []}}},
    lambda record: record | {"problems": {"counts": {"x": 1}, "names": {}}},
    lambda record: record | {"problems": {"counts": {"x": 1}, "names": {"x": [5]}}},
    lambda record: record | {"problems": []},
    lambda record: record | {"seen": 5},
    lambda record: record | {"seen": []},
    lambda record: record | {"seen": [None] * 8},
]


def test_a_damaged_record_is_made_anew(tmp_path: Path) -> None:
    listed = many(tmp_path / "in")
    (tmp_path / "victim.tar").write_text("precious")
    run(listed, tmp_path / "raw")
    before = tree(tmp_path / "raw")
    for change in DAMAGES:
        damaged = change(json.loads(before[RECORD]))
        (tmp_path / "raw" / RECORD).write_bytes(damaged if isinstance(damaged, bytes) else json.dumps(damaged).encode())
        run(listed, tmp_path / "raw")
        assert tree(tmp_path / "raw") == before
    assert (tmp_path / "victim.tar").read_text() == "precious"


def test_a_record_of_before_tells_nothing_of_what_it_saw(tmp_path: Path) -> None:
    listed = many(tmp_path / "in")
    run(listed, tmp_path / "raw")
    record = json.loads((tmp_path / "raw" / RECORD).read_bytes())
    del record["seen"]
    (tmp_path / "raw" / RECORD).write_text(json.dumps(record))
    stamp = (tmp_path / "raw/raw-00000-00000.tar").stat().st_mtime_ns
    run(listed, tmp_path / "raw")
    assert (tmp_path / "raw/raw-00000-00000.tar").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[]", b"null", b"5", b"{" * 100_000])
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    listed = many(tmp_path / "in")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "ingest.json").write_bytes(content)
    with pytest.raises(DataError, match=r"ingest\.json: damaged .*remove"):
        run(listed, tmp_path / "raw")
