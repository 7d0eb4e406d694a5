"""Tiles for super-resolution: where they lie, what lies around them, and that shards hold both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import tiles
from vpoet.data.encode import Extras, Pace, encode_shard, finished
from vpoet.data.shards import Manifest, Problems, ShardWriter, read_shard
from vpoet.data.token_dataset import TokenDataset
from vpoet.errors import DataError
from vpoet.media.video import Video


def clip(height: int = 32, width: int = 48, frames: int = 5) -> np.ndarray:
    """Blocks of four by four pixels, each of a colour of its own, so that a half of it is exact but at their rims."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (frames, height // 4, width // 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)


def test_a_window_shows_a_tile_in_its_middle_and_a_quarter_around_it() -> None:
    coarse = np.arange(32 * 48).astype(np.uint8).reshape(1, 32, 48, 1).repeat(3, -1)
    seen = tiles.window(coarse, 8, 20, 16, 16)
    assert np.array_equal(seen, coarse[:, 4:20, 16:32])
    corner = tiles.window(coarse, 0, 40, 16, 16)
    assert np.array_equal(corner[:, 4:, :12], coarse[:, :12, 36:])
    assert np.array_equal(corner[:, :4, :12], coarse[:, :1, 36:].repeat(4, 1))
    assert np.array_equal(corner[:, 4:, 12:], coarse[:, :12, -1:].repeat(4, 2))


def test_tiles_are_drawn_from_anywhere_with_the_half_of_what_they_show() -> None:
    frames = clip()
    half = Video(frames, 0).resize(16, 24).frames
    drawn = tiles.draw(frames, 16, "a", seed=0, count=40)
    places = set()
    for fine, window in drawn:
        at = [
            (y, x)
            for y in range(0, 17, 2)
            for x in range(0, 33, 2)
            if np.array_equal(fine, frames[:, y : y + 16, x : x + 16])
        ]
        assert len(at) == 1
        (y, x) = at[0]
        assert np.array_equal(window[:, 4:12, 4:12], half[:, y // 2 : y // 2 + 8, x // 2 : x // 2 + 8])
        places.add((y, x))
    assert {y for y, _ in places} == set(range(0, 17, 2))
    again = tiles.draw(frames, 16, "a", seed=0, count=40)
    assert all(np.array_equal(a.fine, b.fine) for a, b in zip(drawn, again, strict=True))
    other = tiles.draw(frames, 16, "b", seed=0, count=40)
    assert not all(np.array_equal(a.fine, b.fine) for a, b in zip(drawn, other, strict=True))


@pytest.mark.parametrize(("height", "width"), [(12, 48), (34, 31)])
def test_frames_without_a_tile_or_a_half_are_refused(height: int, width: int) -> None:
    with pytest.raises(DataError, match=f"{height}x{width} pixels have no tile of 16x16, or no half"):
        tiles.draw(np.zeros((1, height, width, 3), np.uint8), 16, "a", seed=0, count=1)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two clips, and one that is too small."""
    with ShardWriter(tmp_path / "raw", kind="raw") as writer:
        for key, frames in (("a", clip()), ("small", clip(8, 8)), ("b", clip()[:1])):
            told = {"caption": f"a ball, {key}", "fps": 8 if len(frames) > 1 else 0}
            ending = "mp4" if len(frames) > 1 else "png"
            media = Video(frames, told["fps"]).encode(f".{ending}", lossless=ending == "mp4")
            writer.write(key, {ending: media, "json": told})
    writer.manifest().save(tmp_path / "raw")
    return tmp_path / "raw"


def test_a_shard_holds_tiles_with_their_windows_in_place_of_clips(raw: Path, tokens: Any, tmp_path: Path) -> None:
    (info,) = Manifest.load(raw).shards
    out, problems = tmp_path / "out", Problems()
    out.mkdir()
    extras, pace = Extras(tiles=2, tile=16, seed=3), Pace(2)
    encode_shard(raw, info, out, tokens.video, extras, problems, pace)
    done = finished(out, info, tokens.video.codes, extras)
    assert done is not None
    assert list(problems.counts) == ["8x8 pixels have no tile of 16x16, or no half"]
    Manifest("tokens", [done], tokens.video.codes).save(out)

    drawn = {key: tiles.draw(clip()[:frames], 16, key, seed=3, count=2) for key, frames in (("a", 5), ("b", 1))}
    shard = TokenDataset(out, vocabulary=tokens.vocabulary).shard(0)
    assert [(one.key, one.captions) for one in shard] == [
        (f"{key}-{i}", (f"a ball, {key}",)) for key in "ab" for i in (0, 1)
    ]
    for one, tile in zip(shard, [*drawn["a"], *drawn["b"]], strict=True):
        assert one.coarse is not None
        assert np.array_equal(one.codes, tokens.video.encode(tile.fine))
        assert np.array_equal(one.coarse, tokens.video.encode(tile.window))

    for other in (
        Extras(),
        Extras(tiles=3, tile=16, seed=3),
        Extras(tiles=2, tile=8, seed=3),
        Extras(tiles=2, tile=16),
    ):
        assert finished(out, info, tokens.video.codes, other) is None


@pytest.mark.parametrize(
    ("window", "told"),
    [
        (np.zeros((2, 2, 3), np.int32), "window of other codes"),
        (np.full((2, 2, 2), 10**6, np.int32), "codes of another tokenizer"),
        (b"nonsense", "broken window"),
    ],
)
def test_a_broken_window_leaves_its_tile_out(
    raw: Path, tokens: Any, tmp_path: Path, window: np.ndarray | bytes, told: str
) -> None:
    (info,) = Manifest.load(raw).shards
    (tmp_path / "out").mkdir()
    encode_shard(raw, info, tmp_path / "out", tokens.video, Extras(tiles=1, tile=16), Problems(), Pace())
    with ShardWriter(tmp_path / "cut", kind="tokens", tokenizer=tokens.video.codes) as writer:
        for sample in read_shard(tmp_path / "out" / info.name):
            parts: dict[str, Any] = {**sample.parts, "json": {k: v for k, v in sample.json.items() if k != "sha256"}}
            writer.write(sample.key, parts | ({"coarse.npy": window} if sample.number == 0 else {}))
    writer.manifest().save(tmp_path / "cut")
    dataset = TokenDataset(tmp_path / "cut", vocabulary=tokens.vocabulary)
    assert [one.key for one in dataset.shard(0)] == ["b-0"]
    assert dataset.problems.counts == {told: 1}
