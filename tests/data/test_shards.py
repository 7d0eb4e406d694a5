"""Shards: what goes in comes out, damage is skipped and counted, and the same samples give the same bytes."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vpoet.data.npy import codes_to_npy, npy_to_codes
from vpoet.data.shards import Manifest, Problems, ShardFile, ShardWriter, read_shard
from vpoet.errors import DataError


def write(folder: Path, count: int = 5, per_shard: int = 512, worker: int = 0) -> Manifest:
    with ShardWriter(folder, kind="raw", samples_per_shard=per_shard, worker=worker) as writer:
        for number in range(count):
            payload = bytes([number]) * 1000
            writer.write(f"{worker:02d}-{number:04d}", {"mp4": payload, "json": {"caption": f"clip {number} ü"}})
    manifest = writer.manifest()
    manifest.save(folder)
    return manifest


def only_shard(folder: Path) -> Path:
    (path,) = folder.glob("*.tar")
    return path


def test_samples_come_back_in_order_with_their_parts(tmp_path: Path) -> None:
    manifest = write(tmp_path, count=5, per_shard=2)
    assert [(shard.name, shard.samples) for shard in manifest.shards] == [
        ("raw-00000-00000.tar", 2),
        ("raw-00000-00001.tar", 2),
        ("raw-00000-00002.tar", 1),
    ]
    problems = Problems()
    samples = [sample for shard in manifest.shards for sample in read_shard(tmp_path / shard.name, problems=problems)]
    assert [sample.key for sample in samples] == [f"00-{number:04d}" for number in range(5)]
    assert [sample.parts for sample in samples] == [{"mp4": bytes([number]) * 1000} for number in range(5)]
    assert samples[3].json["caption"] == "clip 3 ü"
    assert samples[3].video == samples[3].parts["mp4"]
    assert not problems.total
    assert Manifest.load(tmp_path) == manifest


def test_plain_webdataset_reads_the_shards(tmp_path: Path) -> None:
    write(tmp_path, count=3)
    dataset = webdataset.WebDataset([str(only_shard(tmp_path))], shardshuffle=False).decode()
    assert [sample["json"]["caption"] for sample in dataset] == [f"clip {number} ü" for number in range(3)]


def test_same_samples_same_bytes(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a", per_shard=2), write(tmp_path / "b", per_shard=2)
    assert first == second
    for shard in first.shards:
        assert (tmp_path / "a" / shard.name).read_bytes() == (tmp_path / "b" / shard.name).read_bytes()
        assert (tmp_path / "a" / shard.name).stat().st_size == shard.bytes


def test_a_shard_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    def interrupted() -> None:
        with writer:
            for number in range(3):
                writer.write(f"k{number}", {"mp4": b"x", "json": {}})
            raise KeyboardInterrupt

    writer = ShardWriter(tmp_path, kind="raw", samples_per_shard=2)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["raw-00000-00000.tar"]
    assert [shard.samples for shard in writer.shards] == [2]


def test_keys_are_unique_and_plain(tmp_path: Path) -> None:
    with ShardFile(tmp_path / "a.tar") as shard:
        shard.write("one", {"json": {}})
        for key in ("one", "with.dot", "with/slash", "", "ü"):
            with pytest.raises(DataError, match="key"):
                shard.write(key, {"json": {}})


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.75, 0.8])
def test_a_truncated_shard_gives_its_whole_samples(tmp_path: Path, cut: float) -> None:
    write(tmp_path, count=20)
    path = only_shard(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    problems = Problems()
    samples = list(read_shard(path, problems=problems))
    assert 0 < len(samples) < 20
    assert all(sample.parts["mp4"] == bytes([number]) * 1000 for number, sample in enumerate(samples))
    assert problems.counts["broken tar"] == 1


def test_a_flipped_payload_byte_is_found(tmp_path: Path) -> None:
    write(tmp_path, count=3)
    path = only_shard(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes([1]) * 1000) + 500] ^= 4
    path.write_bytes(data)
    problems = Problems()
    assert [sample.key for sample in read_shard(path, problems=problems)] == ["00-0000", "00-0002"]
    assert problems.counts == {"wrong checksum": 1}
    assert problems.names["wrong checksum"][0].endswith("00-0001")


def rewritten(path: Path, change: dict[str, bytes | None]) -> None:
    """Replace members of a tar by name, or drop them (None)."""
    with tarfile.open(path) as tar:
        members = [(info, tar.extractfile(info).read()) for info in tar.getmembers()]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for info, data in members:
            new = change.get(info.name, data)
            if new is not None:
                info.size = len(new)
                tar.addfile(info, io.BytesIO(new))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("00-0001.json", None, "missing json"),
        ("00-0001.mp4", None, "missing mp4"),
        ("00-0001.json", b"{", "broken json"),
        ("00-0001.json", b"[1]", "broken json"),
        ("00-0001.json", b"\xff\xfe", "broken json"),
    ],
)
def test_a_sample_with_a_bad_part_is_skipped(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    write(tmp_path, count=3)
    path = only_shard(tmp_path)
    rewritten(path, {name: content})
    problems = Problems()
    assert [sample.key for sample in read_shard(path, problems=problems)] == ["00-0000", "00-0002"]
    assert problems.counts == {reason: 1}


def test_required_parts(tmp_path: Path) -> None:
    write(tmp_path, count=2)
    problems = Problems()
    assert not list(read_shard(only_shard(tmp_path), required=("json", "codes.npy"), problems=problems))
    assert problems.counts == {"missing codes.npy": 2}


def test_a_shard_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tar"):
        list(read_shard(tmp_path / "absent.tar"))
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    problems = Problems()
    assert not list(read_shard(tmp_path / "junk.tar", problems=problems))
    assert problems.counts == {"broken tar": 1}


def test_manifest_errors_name_the_file(tmp_path: Path) -> None:
    for content in (None, "{", "{}", json.dumps({"format": 99}), "[]"):
        if content is not None:
            (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match=r"manifest\.json"):
            Manifest.load(tmp_path)


def test_problems_cap_their_names() -> None:
    problems = Problems()
    for number in range(50):
        problems.add("too short", f"clip {number}")
    other = Problems()
    other.update(problems)
    other.add("missing", "x")
    assert (other.total, other.counts["too short"], len(other.names["too short"])) == (51, 50, 20)
    assert str(other) == "50 too short (clip 0, clip 1, clip 2, ...); 1 missing (x)"


@given(
    arrays.arrays(
        np.int32,
        arrays.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=5),
        elements=st.sampled_from([0, 1, 63_999, 65_535, 65_536, 2**31 - 1]),
    )
)
def test_codes_round_trip(codes: np.ndarray) -> None:
    again = npy_to_codes(codes_to_npy(codes))
    assert again.dtype == np.int32
    np.testing.assert_array_equal(again, codes)


def test_codes_are_stored_small_and_checked(tmp_path: Path) -> None:
    with ShardFile(tmp_path / "a.tar") as shard:
        shard.write("k", {"codes.npy": np.full((2, 3, 4), 65_535, np.int64), "json": {}})
    (sample,) = read_shard(tmp_path / "a.tar")
    assert b"<u2" in sample.parts["codes.npy"]
    for bad in (np.zeros((2, 2), np.int32), np.full((1, 1, 1), -1), np.zeros((1, 1, 1))):
        with pytest.raises(DataError, match="codes"):
            codes_to_npy(bad)
    for data in (b"", b"junk", codes_to_npy(np.zeros((1, 2, 3), np.int32))[:-4]):
        with pytest.raises(DataError, match="codes"):
            npy_to_codes(data)
