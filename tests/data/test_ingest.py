"""From files to raw shards: what is kept, what is skipped and why; a run can be cut, repeated and shared out."""

import csv
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest

from vpoet.data.clips import ClipSettings, clip_fields, windows
from vpoet.data.ingest import Result, ingest
from vpoet.data.shards import Manifest, Sample, read_shard
from vpoet.data.sources import Item, divide, gather
from vpoet.data.spool import Some, Spool
from vpoet.errors import DataError
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer

SETTINGS = ClipSettings(frames=5, fps=10.0, height=16, width=16)


def clip(path: Path, frames: int = 10, fps: float = 10.0, height: int = 20, width: int = 30) -> Path:
    """A video whose frame k is grey 10 * k."""
    greys = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
    Video(np.broadcast_to(greys, (frames, height, width, 3)).copy(), fps).write(path)
    return path


def samples(folder: Path) -> list[Sample]:
    return [sample for shard in Manifest.load(folder).shards for sample in read_shard(folder / shard.name)]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(sources: list[Path | str], out: Path, settings: ClipSettings = SETTINGS, **options: Any) -> Result:
    return ingest(divide(gather([str(source) for source in sources])), out, settings, **options)[""]


@pytest.mark.parametrize(
    ("count", "length", "step", "shortest", "expected"),
    [
        (10, 5, 5, 5, [(0, 5), (5, 5)]),
        (12, 5, 5, 5, [(0, 5), (5, 5)]),
        (12, 5, 5, 2, [(0, 5), (5, 5), (10, 2)]),
        (4, 5, 5, 5, []),
        (4, 5, 5, 1, [(0, 4)]),
        (9, 4, 3, 2, [(0, 4), (3, 4), (6, 3)]),
        (10, 4, 3, 2, [(0, 4), (3, 4), (6, 4)]),
        (10, 2, 5, 2, [(0, 2), (5, 2)]),
        (6, 1, 2, 1, [(0, 1), (2, 1), (4, 1)]),
        (0, 5, 5, 1, []),
    ],
)
def test_windows(count: int, length: int, step: int, shortest: int, expected: list[tuple[int, int]]) -> None:
    frames = [np.full((2, 2, 3), number, np.uint8) for number in range(count)]
    found = list(windows(frames, length, step, shortest))
    assert [(first, len(clip)) for first, clip in found] == expected
    for first, clip in found:
        assert clip[:, 0, 0, 0].tolist() == list(range(first, first + len(clip)))


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"height": 0}, {"stride": 0}, {"min_frames": 9}, {"fps": -1}, {"crf": 99}]
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(DataError):
        ClipSettings(**{"frames": 8, **wrong})


def test_a_clip_tells_its_own_facts_and_keeps_those_of_its_source() -> None:
    given = {
        "caption": "a cat",
        "licence": "CC0",
        "frames": "99",
        "sha256": "00",
        "lab": "x",
        "actions": [*"abcdef"],
    }
    fields = clip_fields(given, source="a.mp4", first=2, frames=3, fps=8.0, height=16, width=24)
    assert fields == {
        "caption": "a cat",
        "license": "CC0",
        "source": "a.mp4",
        "start": 0.25,
        "fps": 8.0,
        "frames": 3,
        "height": 16,
        "width": 24,
        "lab": "x",
        "source_frames": "99",
        "source_sha256": "00",
        "actions": ["c", "d"],
    }


def test_a_folder_of_videos_and_images(tmp_path: Path) -> None:
    clip(tmp_path / "in/b.mp4", frames=12)
    clip(tmp_path / "in/deep/c.mp4", frames=20, fps=20.0)
    Video(np.full((1, 40, 60, 3), 77, np.uint8), 0.0).write(tmp_path / "in/a.png")
    (tmp_path / "in/notes.txt").write_text("not a video")
    result = run([tmp_path / "in"], tmp_path / "out")
    assert (result.sources, result.clips, result.problems.total) == (3, 5, 0)
    found = samples(tmp_path / "out")
    assert [(sample.json["source"], sample.json["start"], sample.json["frames"]) for sample in found] == [
        ("a.png", 0.0, 1),
        ("b.mp4", 0.0, 5),
        ("b.mp4", 0.5, 5),
        ("deep/c.mp4", 0.0, 5),
        ("deep/c.mp4", 0.5, 5),
    ]
    image = Video.read(found[0].parts["png"])
    assert (image.frames.shape, image.fps, found[0].json["fps"]) == ((1, 16, 16, 3), 0.0, 0.0)
    second = Video.read(found[2].parts["mp4"])
    assert (second.frames.shape, second.fps) == ((5, 16, 16, 3), 10.0)
    np.testing.assert_allclose(second.frames.mean(axis=(1, 2, 3)), [50, 60, 70, 80, 90], atol=2)
    halved = Video.read(found[3].parts["mp4"])
    np.testing.assert_allclose(halved.frames.mean(axis=(1, 2, 3)), [0, 20, 40, 60, 80], atol=2)


def test_lossless_clips_hold_every_pixel(tmp_path: Path) -> None:
    noise = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8), 10.0)
    noise.write(tmp_path / "noise.mp4", lossless=True)
    run([tmp_path / "noise.mp4"], tmp_path / "out", replace(SETTINGS, lossless=True))
    (sample,) = samples(tmp_path / "out")
    np.testing.assert_array_equal(Video.read(sample.video), noise)


def test_lists_carry_captions_and_columns(tmp_path: Path) -> None:
    clip(tmp_path / "clips/a.mp4", frames=5)
    with (tmp_path / "list.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "caption", "lab", "license"])
        writer.writerow(["clips/a.mp4", "a cat, asleep", "x", "CC0"])
    lines = [{"file": "clips/a.mp4", "caption": ["one", "two"], "actions": ["l", "r", "l", "r"]}]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    run([tmp_path / "list.csv", tmp_path / "list.jsonl"], tmp_path / "out", replace(SETTINGS, fps=0.0))
    first, second = (sample.json for sample in samples(tmp_path / "out"))
    assert (first["caption"], first["lab"], first["license"], first["source"]) == (
        "a cat, asleep",
        "x",
        "CC0",
        "clips/a.mp4",
    )
    assert (second["caption"], second["actions"], second["fps"]) == (["one", "two"], ["l", "r", "l", "r"], 10.0)
    result = run([tmp_path / "list.jsonl"], tmp_path / "resampled", replace(SETTINGS, frames=3, fps=5.0))
    assert "actions" not in samples(tmp_path / "resampled")[0].json
    assert any("actions" in reason for reason in result.problems.counts)


def test_bad_sources_are_skipped_counted_and_named(tmp_path: Path) -> None:
    clip(tmp_path / "good.mp4")
    clip(tmp_path / "short.mp4", frames=4)
    clip(tmp_path / "single.mp4", frames=1)
    whole = clip(tmp_path / "whole.mp4", frames=200).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\njunk")
    (tmp_path / "empty.mp4").write_bytes(b"")
    names = ["good.mp4", "short.mp4", "single.mp4", "cut.mp4", "junk.png", "empty.mp4", "absent.mp4"]
    (tmp_path / "list.csv").write_text("\n".join(["file", *names]))
    result = run([tmp_path / "list.csv"], tmp_path / "out")
    assert (result.sources, result.clips) == (7, 2)
    assert result.problems.names == {
        "too short": ["short.mp4", "single.mp4"],
        "cannot be decoded": [
            "cut.mp4: not a video or image that can be decoded: Invalid data found when processing input "
            "(moov atom not found)",
            "junk.png: frames of 0x0 pixels: there is no picture in it",
            "empty.mp4: not a video or image: the file is empty",
        ],
        "missing file": ["absent.mp4"],
    }


def test_a_film_that_breaks_off_keeps_what_was_before(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    data = bytearray(Video(noise, 10.0).encode(".mp4"))
    middle = len(data) // 2
    data[middle : middle + 3000] = b"\xff" * 3000
    (tmp_path / "film.mp4").write_bytes(data)
    result = run([tmp_path / "film.mp4"], tmp_path / "out")
    assert 1 <= result.clips < 12
    assert [[name.split(":")[0] for name in names] for names in result.problems.names.values()] == [["film.mp4"]]
    assert next(iter(result.problems.counts)).startswith("breaks off")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "caption\nx\n", "path"),
        ("a.csv", "", "empty"),
        ("a.jsonl", "{", "not a readable list"),
        ("a.jsonl", "[1]", "path"),
        ("a.csv", "path,caption\n,x\n", "entry 1"),
    ],
)
def test_a_broken_list_is_an_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        gather([str(tmp_path / name)])


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in {"absent.mp4": "no such file", "empty": "no video"}.items():
        with pytest.raises(DataError, match=message):
            gather([str(tmp_path / source)])
    with pytest.raises(DataError, match="no such world; there is world:platformer"):
        gather(["world:mars"], clips=1)
    with pytest.raises(DataError, match="--clips"):
        gather(["world:platformer"])
    with pytest.raises(DataError, match="--seed is 0 or more, not -1"):
        gather(["world:playground"], clips=1, seed=-1)


def test_nothing_kept_is_an_error(tmp_path: Path) -> None:
    clip(tmp_path / "short.mp4", frames=2)
    with pytest.raises(DataError, match=r"nothing to keep.*short\.mp4"):
        run([tmp_path / "short.mp4"], tmp_path / "out")


def items(count: int) -> list[Item]:
    return [Item(f"{number}.mp4", f"{number}.mp4", {"lab": "abc"[number % 3]}) for number in range(count)]


def test_a_list_on_the_disk_is_the_list() -> None:
    some = [*items(50), Item("a\udcff", "b", {"captions": [1, None, 2.5], "x": {"y": "\u00e9"}}, 7, "bad")]
    spool = Spool(Item)
    spool.extend(some[:20])
    assert spool[3] == some[3]
    spool.extend(some[20:])
    assert (len(spool), list(spool), spool[-1], spool[5:40:7]) == (51, some, some[-1], some[5:40:7])
    with pytest.raises(IndexError):
        spool[51]
    few = Some(spool, [4, 2, 50])
    assert (len(few), list(few), few[1], few[1:]) == (3, [some[4], some[2], some[50]], some[2], [some[2], some[50]])


def test_sources_are_known_by_the_json_of_their_list(tmp_path: Path) -> None:
    """As it was made of all of them at once."""
    clip(tmp_path / "in/a.mp4")
    clip(tmp_path / "in/c.mp4")
    sides = divide(gather([str(tmp_path / "in")]), by=None, holdout=0.5)
    ingest(sides, tmp_path / "out", SETTINGS)
    told = [
        [side, [{name: value for name, value in vars(item).items() if name != "problem"} for item in some]]
        for side, some in sides.items()
    ]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    assert json.loads((tmp_path / "out/ingest.json").read_text())["sources_sha256"] == digest


def test_holdout_by_hash_is_stable_and_near_its_share() -> None:
    sides = divide(items(2000), holdout=0.1)
    assert 150 < len(sides["heldout"]) < 250
    assert sorted(item.name for side in sides.values() for item in side) == sorted(item.name for item in items(2000))
    fewer = divide(items(1000), holdout=0.1)
    assert {item.name for item in fewer["heldout"]} <= {item.name for item in sides["heldout"]}


def test_holdout_by_column() -> None:
    sides = divide(items(9), by="lab=b, c")
    assert {item.fields["lab"] for item in sides["heldout"]} == {"b", "c"}
    assert {item.fields["lab"] for item in sides["train"]} == {"a"}
    for by in ("lab", "lab=", "day=1", "lab=z"):
        with pytest.raises(DataError, match=r"split-by|heldout"):
            divide(items(9), by=by)
    with pytest.raises(DataError, match="holdout"):
        divide(items(9), holdout=1.5)


def test_unseen_combinations_are_put_aside_before_the_rest_is_divided() -> None:
    worlds = gather(["world:platformer"], clips=1500, seed=3)
    sides = divide(worlds, holdout=0.1, unseen=["who=zombie,ground=snow", "creature=bee,ground=stone"])

    def shown(item: Item) -> bool:
        f = item.fields
        return (f["who"], f["ground"]) == ("zombie", "snow") or (f["creature"], f["ground"]) == ("bee", "stone")

    assert sides["unseen"]
    assert all(map(shown, sides["unseen"]))
    assert not any(map(shown, [*sides["train"], *sides["heldout"]]))
    assert sum(map(len, sides.values())) == 1500
    assert set(divide(worlds, unseen=["who=robot"])) == {"train", "unseen"}
    numbered = [Item(str(n), "", {"lab": n}) for n in range(3)]
    assert [item.name for item in divide(numbered, unseen=["lab=1"])["unseen"]] == ["1"]
    for wrong in ("zombie", "who=zombie,snow", "who=dog", "hat=red"):
        with pytest.raises(DataError, match="--unseen"):
            divide(worlds, unseen=[wrong])


def many(folder: Path, count: int) -> Path:
    for number in range(count):
        clip(folder / f"{number:03d}.mp4", frames=5 + number % 7)
    return folder


def test_the_result_is_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    sides = divide(gather([str(many(tmp_path / "in", 20))]), holdout=0.3)
    told = {1: [0, 0], 2: [0, 0]}
    for workers, counts in told.items():

        def progress(sources: int, clips: int, counts: list[int] = counts) -> None:
            counts[0] += sources
            counts[1] += clips

        results = ingest(sides, tmp_path / f"out{workers}", SETTINGS, workers=workers, progress=progress)
        assert counts == [20, sum(result.clips for result in results.values())]
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")
    assert {path.parts[0] for path in map(Path, tree(tmp_path / "out1"))} == {"train", "heldout", "ingest.json"}


def test_a_second_run_does_only_what_is_left(tmp_path: Path) -> None:
    many(tmp_path / "in", 20)
    done: list[int] = []

    def stop_in_the_second_job(sources: int, clips: int) -> None:
        done.extend([1] * sources)
        if len(done) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([tmp_path / "in"], tmp_path / "out", progress=stop_in_the_second_job)
    shards = sorted((tmp_path / "out").glob("*.tar*"))
    assert [shard.name for shard in shards] == ["raw-00000-00000.tar"]
    stamp = shards[0].stat().st_mtime_ns
    again = run([tmp_path / "in"], tmp_path / "out")
    assert shards[0].stat().st_mtime_ns == stamp
    run([tmp_path / "in"], tmp_path / "whole")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    third: list[int] = []
    assert run([tmp_path / "in"], tmp_path / "out", progress=lambda sources, clips: third.append(sources)) == again
    assert third == [20]
    shards[0].unlink()
    run([tmp_path / "in"], tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_other_settings_in_the_same_folder_are_an_error(tmp_path: Path) -> None:
    run([clip(tmp_path / "a.mp4")], tmp_path / "out")
    with pytest.raises(DataError, match=r"other settings \(fps 10\.0 -> 8\.0\)"):
        run([tmp_path / "a.mp4"], tmp_path / "out", replace(SETTINGS, fps=8.0))
    with pytest.raises(DataError, match="sources 1 -> 2"):
        run([tmp_path / "a.mp4", clip(tmp_path / "b.mp4")], tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("dear diary")
    with pytest.raises(DataError, match="not empty"):
        run([tmp_path / "a.mp4"], tmp_path / "mine")


def test_a_folder_that_an_earlier_version_began_is_finished_as_it_was_begun(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", height=48, width=64)
    run([tmp_path / "a.mp4"], tmp_path / "before", replace(SETTINGS, version=1))
    told = (tmp_path / "before/ingest.json").read_text()
    assert "version" not in json.loads(told)
    (tmp_path / "half").mkdir()
    (tmp_path / "half/ingest.json").write_text(told)
    run([tmp_path / "a.mp4"], tmp_path / "half")
    assert tree(tmp_path / "half") == tree(tmp_path / "before")
    run([tmp_path / "a.mp4"], tmp_path / "new")
    assert json.loads((tmp_path / "new/ingest.json").read_text())["version"] == 2
    for one, other in zip(samples(tmp_path / "new"), samples(tmp_path / "before"), strict=True):
        assert one.json | {"sha256": 0} == other.json | {"sha256": 0}
        assert np.abs(np.asarray(Video.read(one.video)).astype(int) - np.asarray(Video.read(other.video))).max() <= 3


def test_a_world_gives_lossless_clips_by_seed(tmp_path: Path) -> None:
    settings = ClipSettings(frames=5, fps=8.0, height=32, width=32)
    result = ingest(divide(gather(["world:platformer"], clips=3, seed=2)), tmp_path / "out", settings)[""]
    assert result.clips == 3
    world = Platformer(height=32, width=32, fps=8.0, frames=5)
    for number, sample in enumerate(samples(tmp_path / "out")):
        frames, fields = world.clip(2_000_000 + number)
        np.testing.assert_array_equal(Video.read(sample.video), frames)
        assert sample.json["caption"] == fields["caption"]


def test_the_program(tmp_path: Path, root: Path, python: Callable[..., CompletedProcess[str]]) -> None:
    many(tmp_path / "in", 10)
    (tmp_path / "in/junk.mp4").write_bytes(b"junk")
    command = ["train/ingest.py", tmp_path / "in", "--out", tmp_path / "out", "--holdout", "0.3", "--json"]
    done = python(*command, "--frames", "5", "--height", "16", "--width", "16", cwd=root)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    sides = report["sides"]
    assert sum(side["sources"] for side in sides.values()) == 11
    assert sum(side["skipped"]["counts"].get("cannot be decoded", 0) for side in sides.values()) == 1
    assert json.loads((tmp_path / "out/report.json").read_text())["sides"] == sides
    for side, summary in sides.items():
        assert Manifest.load(tmp_path / "out" / side).samples == summary["clips"]
        assert (tmp_path / "out" / f"{side}.png").stat().st_size > 1000
    other = python(*command, "--frames", "4", "--height", "16", "--width", "16", cwd=root)
    assert other.returncode == 2
    assert "error: " in other.stderr
    assert "frames 5 -> 4" in other.stderr
