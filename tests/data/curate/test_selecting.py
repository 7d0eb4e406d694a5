"""Selecting: which clips fall where, what is written of the others, and that a run can be cut and repeated."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.arrays import Frames
from vpoet.data.curate.funnel import gather, kept, sift
from vpoet.data.curate.measuring import FOLDER, measure
from vpoet.data.curate.selecting import Captions, read_captions, write_selection
from vpoet.data.curate.where import conditions
from vpoet.data.folder import read_samples
from vpoet.data.shards import Manifest, Sample, ShardWriter
from vpoet.errors import DataError
from vpoet.media.video import Video

LABELS = ["walk", "walk", "walk", "jump", "jump", "fall"]
NO_CAPTIONS = Captions({})


def clip(i: int) -> Frames:
    """Brighter from clip to clip; the second is the first, darker."""
    random = np.random.default_rng(0 if i < 2 else i)
    noise = random.integers(0, 100, (5, 16, 16, 3), np.uint8).repeat(2, 1).repeat(2, 2)
    return (noise if i else noise // 2) + np.uint8(20 * max(i - 1, 0))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    with ShardWriter(folder, kind="raw", samples_per_shard=4) as writer:
        for i, label in enumerate(LABELS):
            about = {"caption": f"clip {i}", "label": label, "of": {"no": i}, "fps": 8, "source": f"{i}"}
            writer.write(f"clip-{i}", {"mp4": Video(clip(i), 8).encode(".mp4"), "json": about})
    writer.manifest().save(folder)
    measure(folder, dict, 1)
    return folder


def stages(raw: Path, where: str = "", dedupe: float | None = None, balance: str | None = None) -> Any:
    asked = conditions(where) if where else []
    pool = gather(raw, [name for each in asked for name in each.names] + ([balance] if balance else []))
    found = sift(pool, asked, dedupe, balance)
    return found, kept(pool, found)


def keys(clips: Sequence[Any]) -> list[str]:
    return [each.key for each in clips]


def samples(folder: Path) -> list[Sample]:
    return list(read_samples(folder))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_funnel_counts_stage_by_stage(raw: Path) -> None:
    found, left = stages(raw, "brightness > 0.25 and of.no != 4", balance="label")
    assert [(stage.name, stage.before, stage.after) for stage in found] == [
        ("brightness > 0.25", 6, 4),
        ("of.no != 4", 4, 3),
        ("balanced label", 3, 3),
    ]
    assert keys(found[0].fallen) == ["clip-0", "clip-1"]
    assert found[0].notes[0].startswith("brightness 0.")
    assert keys(left) == ["clip-2", "clip-3", "clip-5"]


def test_of_copies_the_sharpest_is_kept(raw: Path) -> None:
    found, left = stages(raw, dedupe=0.92)
    assert keys(found[0].fallen) == ["clip-0"]
    assert found[0].notes == {0: "a copy of clip-1"}
    assert keys(left) == [f"clip-{i}" for i in range(1, 6)]


def test_balance_keeps_the_median_count_of_each_value(raw: Path) -> None:
    found, left = stages(raw, balance="label")
    assert [LABELS[each.row] for each in left] == ["walk", "walk", "jump", "jump", "fall"]
    assert list(found[0].notes.values()) == ["label walk: 3 clips, 2 kept"]
    assert keys(stages(raw, balance="label")[1]) == keys(left)
    with pytest.raises(DataError, match="no clip that is left has such a field"):
        stages(raw, balance="lable")


def test_what_cannot_be_asked_is_told(raw: Path) -> None:
    with pytest.raises(DataError, match="did you mean brightness"):
        stages(raw, "brightnes > 1")
    with pytest.raises(DataError, match=r"nothing is left of 6 clips: 6 fell at 'brightness > 2'"):
        stages(raw, "brightness > 2")
    next(iter((raw / FOLDER).glob("*.jsonl"))).write_text("{}")
    with pytest.raises(DataError, match="has not been measured as it is: run `vpoet measure"):
        stages(raw)


def test_fields_of_the_json_can_be_asked_for_where_nothing_has_been_measured(raw: Path, tmp_path: Path) -> None:
    _, measured = stages(raw, "of.no != 1")
    shutil.rmtree(raw / FOLDER)
    pool = gather(raw, ["of"], with_arrays=False)
    asked = conditions("of.no != 1")
    left = kept(pool, sift(pool, asked, None, None))
    assert keys(left) == keys(measured)
    (tmp_path / "out").mkdir()
    assert write_selection(raw, left, tmp_path / "out", NO_CAPTIONS)[0].samples == len(left)
    given = {sample.key: sample.json for sample in samples(raw)}
    assert all(sample.json == given[sample.key] for sample in samples(tmp_path / "out"))
    with pytest.raises(DataError, match=r"no clip has 'brightness': .* `vpoet measure` tells"):
        sift(pool, conditions("brightness > 0.1"), None, None)
    with pytest.raises(DataError, match="has not been measured as it is: run `vpoet measure"):
        gather(raw, ["of"], with_arrays=True)


def test_shards_hold_the_clips_with_their_measures_and_resume(raw: Path, tmp_path: Path) -> None:
    _, left = stages(raw, "of.no != 1")
    out, two = tmp_path / "out", tmp_path / "two"
    for folder, workers in ((out, 1), (two, 2)):
        folder.mkdir()
        manifest, problems = write_selection(raw, left, folder, NO_CAPTIONS, samples_per_shard=2, workers=workers)
        assert (manifest.samples, len(manifest.shards), problems.total) == (5, 3, 0)
    whole = tree(out)
    assert tree(two) == whole
    given = {sample.key: sample for sample in samples(raw)}
    for sample in samples(out):
        assert sample.parts == given[sample.key].parts
        assert sample.json["measures"]["brightness"] > 0
        assert {**sample.json, "measures": None} == {**given[sample.key].json, "measures": None}
        assert "phash" not in sample.json["measures"]
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "raw-00001-00000.tar").write_bytes(b"")
    (out / "manifest.json").unlink()
    write_selection(raw, left, out, NO_CAPTIONS, samples_per_shard=2)
    assert tree(out) == whole
    again = {path.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert again == {"raw-00001-00000.tar"}
    with pytest.raises(DataError, match="another selection"):
        write_selection(raw, left[1:], out, NO_CAPTIONS, samples_per_shard=2)
    with pytest.raises(DataError, match="not empty and not made by select"):
        write_selection(raw, left, raw, NO_CAPTIONS)


def test_new_captions_come_first_and_the_others_stay(raw: Path, tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    rows = [{"key": "clip-0", "caption": "new"}, {"key": "clip-1", "caption": ["one", "clip 1", "two"]}]
    file.write_text("\n".join(map(json.dumps, rows)))
    listed = read_captions(file)
    (tmp_path / "out").mkdir()
    write_selection(raw, stages(raw)[1], tmp_path / "out", Captions(listed, lambda: lambda frames: "seen", "x"))
    found = [sample.captions for sample in samples(tmp_path / "out")]
    assert found[:3] == [["seen", "new", "clip 0"], ["seen", "one", "clip 1", "two"], ["seen", "clip 2"]]
    (tmp_path / "listed").mkdir()
    write_selection(raw, stages(raw)[1], tmp_path / "listed", Captions(listed))
    found = [sample.json["caption"] for sample in samples(tmp_path / "listed")]
    assert found[:3] == [["new", "clip 0"], ["one", "clip 1", "two"], "clip 2"]
    for wrong, why in (("", "empty list"), ('{"key": 1}', "line 1: not an object"), ("{", "line 1: not valid JSON")):
        file.write_text(wrong)
        with pytest.raises(DataError, match=why):
            read_captions(file)


def test_actions_of_recordings_stay_in_the_manifest(raw: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(raw)
    out = tmp_path / "out"
    out.mkdir()
    write_selection(raw, stages(raw)[1], out, NO_CAPTIONS)
    assert Manifest.load(out).actions == manifest.actions
