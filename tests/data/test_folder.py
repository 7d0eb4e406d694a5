"""Folders of shards: all samples in order, whatever is unsound noted."""

from pathlib import Path

import numpy as np
import pytest

from vpoet.data.folder import overview, read_samples, read_videos
from vpoet.data.shards import Manifest, Problems, ShardWriter
from vpoet.errors import DataError
from vpoet.media.video import Video


def write(folder: Path, first: int) -> Path:
    with ShardWriter(folder, kind="raw", samples_per_shard=2) as writer:
        for number in range(first, first + 4):
            clip = Video(np.full((2, 16, 16, 3), number, np.uint8), 8.0).encode(".mp4", lossless=True)
            payload = b"no video" if number % 4 == 1 else clip
            writer.write(f"k{number}", {"mp4": payload, "json": {"caption": ["", f"clip {number}", 5]}})
    writer.manifest().save(folder)
    return folder


def test_folders_are_read_in_order_and_what_is_unsound_is_noted(tmp_path: Path) -> None:
    folders = [write(tmp_path / "a", 0), write(tmp_path / "b", 4)]
    problems = Problems()
    samples = list(read_samples(*folders, problems=problems))
    assert [sample.captions for sample in samples] == [[f"clip {number}"] for number in range(8)]
    assert not problems.total
    videos = [(sample.key, int(video.frames[0, 0, 0, 0])) for sample, video in read_videos(*folders, problems=problems)]
    assert videos == [(f"k{number}", number) for number in (0, 2, 3, 4, 6, 7)]
    assert problems.counts == {"cannot be decoded": 2}


def test_a_shard_with_fewer_samples_than_its_manifest_says_is_noted(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", 0)
    manifest = Manifest.load(folder)
    (folder / manifest.shards[1].name).write_bytes(bytes(1024))  # the end of a tar, and nothing before it
    problems = Problems()
    assert [sample.key for sample in read_samples(folder, problems=problems)] == ["k0", "k1"]
    assert problems.counts == {"broken tar": 1}


def test_a_folder_without_a_manifest_or_a_shard_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="manifest"):
        next(read_samples(tmp_path))
    folder = write(tmp_path / "a", 0)
    (folder / "raw-00000-00001.tar").unlink()
    with pytest.raises(DataError, match="shard cannot be opened"):
        list(read_samples(folder))


@pytest.mark.parametrize(("count", "shown"), [(1, [0]), (2, [0, 2]), (9, [0, 1, 2, 3])])
def test_an_overview_shows_clips_of_all_shards(tmp_path: Path, count: int, shown: list[int]) -> None:
    with ShardWriter(tmp_path, kind="raw", samples_per_shard=2) as writer:
        for number in range(4):
            clip = Video(np.full((2, 16, 16, 3), number, np.uint8), 8.0).encode(".mp4", lossless=True)
            writer.write(f"k{number}", {"mp4": clip, "json": {"caption": "" if number else "zero", "source": "s"}})
    writer.manifest().save(tmp_path)
    rows = overview(tmp_path, count)
    assert [int(frames[0, 0, 0, 0]) for _, frames in rows] == shown
    assert [label for label, _ in rows] == (["zero"] + ["s"] * 3)[: len(rows)]
