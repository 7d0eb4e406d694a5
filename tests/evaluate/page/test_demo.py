"""The page of a demo: samples beside the nearest held-out clips, curves of each part, what ran."""

import json
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.evaluate.page.demo import demo_sections
from vpoet.evaluate.page.html import Picture, Table
from vpoet.media.video import Video


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    with ShardWriter(folder / "raw/heldout", kind="raw") as writer:
        for i, caption in enumerate(("a red ball", ["a blue box", "a box that is blue"])):
            clip = Video(np.full((3, 16, 16, 3), 80 * i, np.uint8), 8).encode(".mp4", lossless=True)
            writer.write(f"s{i}", {"mp4": clip, "json": {"caption": caption, "fps": 8}})
    writer.manifest().save(folder / "raw/heldout")
    for name in ("samples", "pretrain"):
        (folder / name).mkdir()
    (folder / "samples/prompts.txt").write_text("the box is blue\na red ball\n")
    (folder / "pretrain/metrics.jsonl").write_text('{"step": 1, "train/loss": 3.0}\n{"step": 2, "train/loss": 2.5}\n')
    stages = [{"stage": "world", "seconds": 90, "command": "vpoet ingest", "result": "2 clips"}]
    (folder / "stages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in stages))
    return folder


def test_what_there_is_has_a_section(demo: Path, tmp_path: Path) -> None:
    samples, learning, stages = demo_sections(demo, tmp_path)
    assert [section.title for section in (samples, learning, stages)] == ["Samples", "Learning: pretrain", "What ran"]
    rows = [part for part in samples.parts if isinstance(part, list)]
    assert [[picture.caption for picture in row] for row in rows] == [
        ["sampled: the box is blue", "real: a box that is blue"],
        ["sampled: a red ball", "real: a red ball"],
    ]
    assert [Video.read(row[1].path).frames.mean().round(-1) for row in rows] == [80, 0]
    assert learning.parts == [[Picture(tmp_path / "pretrain.svg", "2 steps")]]
    assert (tmp_path / "pretrain.svg").is_file()
    assert stages.parts[1] == Table(
        ["stage", "took", "command", "result"], [["world", "90 s", "vpoet ingest", "2 clips"]]
    )


def test_damaged_stages_and_folders_of_other_things_are_told(demo: Path, tmp_path: Path) -> None:
    (demo / "stages.jsonl").write_text('{"stage": 1}\n')
    with pytest.raises(DataError, match=r"stages\.jsonl: damaged"):
        demo_sections(demo, tmp_path)
    (demo / "stages.jsonl").unlink()
    with pytest.raises(DataError, match=r"give it one of the runs below: .*demo/pretrain"):
        demo_sections(demo, tmp_path)
