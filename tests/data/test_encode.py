"""Encoding a shard: what is written depends on no batch and no thread, clips of one size go together, and the next ones
are decoded meanwhile."""

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from vpoet.arrays import Codes, Frames
from vpoet.data import encode
from vpoet.data.encode import Extras, Pace, encode_shard
from vpoet.data.shards import Manifest, Problems, ShardWriter, read_shard
from vpoet.errors import DataError
from vpoet.media.video import Video

SIZES = [(5, 16, 16)] * 5 + [(1, 16, 16), (4, 16, 16), (5, 16, 24), (5, 16, 16), (9, 16, 16), (5, 16, 16)]
"""Of the clips in the shard, in frames and pixels; the seventh has no grid."""


class Coder:
    """A 4x8x8 tokenizer of clips whose codes are the sums of the pixels so far; it remembers what it was given."""

    codes, dtype, stride = "0123456789abcdef", "fp32", (4, 8, 8)

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        if (frames - 1) % 4:
            raise DataError(f"{frames} frames fill no cells")
        return 1 + (frames - 1) // 4, height // 8, width // 8

    def encode_clips(self, clips: Sequence[Frames], chunk_cells: int = 4) -> list[Codes]:
        self.batches.append([clip.shape for clip in clips])
        return [self._encode(clip) for clip in clips]

    def encode_batch(self, clips: Frames) -> Codes:
        return np.stack([self._encode(clip) for clip in clips])

    def _encode(self, clip: Frames) -> Codes:
        _, h, w = self.grid(*clip.shape[:3])
        sums = clip.astype(np.int64).reshape(len(clip), h, 8, w, 8, 3).sum((2, 4, 5)).cumsum(0)[::4]
        return (sums % 1000).astype(np.int32)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    random = np.random.default_rng(0)
    with ShardWriter(folder, kind="raw", samples_per_shard=len(SIZES) + 1) as writer:
        for number, size in enumerate(SIZES):
            video = Video(random.integers(0, 256, (*size, 3), np.uint8), 8.0 if size[0] > 1 else 0.0)
            suffix = ".mp4" if size[0] > 1 else ".png"
            payload = video.encode(suffix, lossless=suffix == ".mp4")
            writer.write(f"clip-{number}", {suffix[1:]: payload, "json": {"caption": str(number)}})
        writer.write("clip-broken", {"mp4": b"no video", "json": {"caption": ""}})
    writer.manifest().save(folder)
    return folder


def encoded(raw: Path, out: Path, coder: Coder, pace: Pace, extras: Extras) -> tuple[str, Problems]:
    """The digest of what is written, and what was left out."""
    problems = Problems()
    (info,) = Manifest.load(raw).shards
    out.mkdir()
    encode_shard(raw, info, out, coder, extras, problems, pace)
    parts = b"".join((out / info.name).with_suffix(suffix).read_bytes() for suffix in (".tar", ".json"))
    return hashlib.sha256(parts).hexdigest(), problems


@pytest.mark.parametrize("extras", [Extras(), Extras(keyframes=True, paintings=1)], ids=["plain", "all"])
def test_shards_are_the_same_for_any_batch_and_any_number_of_threads(raw: Path, tmp_path: Path, extras: Extras) -> None:
    found = [
        encoded(raw, tmp_path / f"{batch}-{decoders}", Coder(), Pace(batch, decoders), extras)
        for batch, decoders in [(1, 1), (3, 1), (4, 3), (100, 5)]
    ]
    assert len({digest for digest, _ in found}) == 1
    assert {str(problems.to_dict()) for _, problems in found} == {str(found[0][1].to_dict())}
    (info,) = Manifest.load(raw).shards
    kept = [sample.key for sample in read_shard(tmp_path / "4-3" / info.name)]
    assert kept == [f"clip-{number}" for number in range(len(SIZES)) if number != 6]
    assert [reason for reason in found[0][1].counts if "fill no cells" in reason]
    assert found[0][1].total == 2


def test_clips_of_one_size_go_together_no_more_than_a_batch_of_them(raw: Path, tmp_path: Path) -> None:
    coder = Coder()
    encoded(raw, tmp_path / "out", coder, Pace(4, 2), Extras())
    shapes = [[(*size, 3) for size in sizes] for sizes in ([SIZES[0]] * 4, [SIZES[0]], [SIZES[5]], [SIZES[7]])]
    assert coder.batches[:4] == shapes
    assert all(len(set(batch)) == 1 and len(batch) <= 4 for batch in coder.batches)
    assert sum(map(len, coder.batches)) == len(SIZES) - 1
    coder = Coder()
    encoded(raw, tmp_path / "painted", coder, Pace(4, 2), Extras(paintings=1))
    assert max(map(len, coder.batches)) == 4
    assert coder.batches[:3] == [shapes[0]] * 3, "a batch of clips, and their paintings in two more"


def test_the_next_clips_are_decoded_while_these_are_encoded(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer waits, in its first batch, until a clip of the second is read: nobody but a thread can read it."""
    read, lock = [], threading.Lock()
    fifth = threading.Event()
    original = Video.read

    def counted(source: bytes) -> Video:
        with lock:
            read.append(source)
            if len(read) > 4:
                fifth.set()
        return original(source)

    class Patient(Coder):
        def encode_clips(self, clips: Sequence[Frames], chunk_cells: int = 4) -> list[Codes]:
            assert fifth.wait(30)
            return super().encode_clips(clips, chunk_cells)

    monkeypatch.setattr(encode.Video, "read", counted)
    encoded(raw, tmp_path / "out", Patient(), Pace(4, 1), Extras())
    assert len(read) == len(SIZES) + 1


def test_a_record_tells_of_less_exact_arithmetic(raw: Path, tmp_path: Path) -> None:
    (info,) = Manifest.load(raw).shards
    coder = Coder()
    encoded(raw, tmp_path / "exact", coder, Pace(), Extras())
    coder.dtype = "tf32"
    encoded(raw, tmp_path / "less", coder, Pace(), Extras())
    told = [(tmp_path / name / info.name).with_suffix(".json").read_text() for name in ("exact", "less")]
    assert ["dtype" in record for record in told] == [False, True]
    assert '"dtype": "tf32"' in told[1]
