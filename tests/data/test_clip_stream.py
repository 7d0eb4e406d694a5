"""The stream of clips: decided by its seed, exact to resume, every sample once an epoch, no crash on damage."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from vpoet.data.clip_stream import GRID, ClipShape, ClipStream, moving_window, random_view
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.errors import DataError
from vpoet.media.video import Video

FRAMES = 3


def write(folder: Path, first: int, count: int, *, frames: int = FRAMES, per_shard: int = 4, fps: float = 8.0) -> Path:
    """Clips of which number n is all of the colour (n, n, n): a batch tells which samples it holds."""
    with ShardWriter(folder, kind="raw", samples_per_shard=per_shard, worker=first) as writer:
        for number in range(first, first + count):
            video = Video(np.full((frames, 16, 16, 3), number, np.uint8), fps)
            suffix = ".mp4" if fps else ".png"
            writer.write(f"k{number:04d}", {suffix[1:]: video.encode(suffix, lossless=True), "json": {"caption": ""}})
    old = Manifest.load(folder).shards if (folder / "manifest.json").exists() else []
    Manifest("raw", old + writer.shards).save(folder)
    return folder


def stream(*folders: Path, frames: int = FRAMES, size: int = 16, **options: int) -> ClipStream:
    shape = ClipShape(frames, size, size, bool(options.pop("augment", False)))
    return ClipStream(folders, shape, **{"batch": 4, "seed": 0, **options})


def numbers(clips: ClipStream, batches: int) -> list[int]:
    return [int(clip[0, 0, 0, 0]) for batch in itertools.islice(clips, batches) for clip in batch]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("raw"), 0, 20)


def test_batches_have_the_declared_shape_and_the_pixels(folder: Path) -> None:
    batch = next(stream(folder))
    assert (batch.shape, batch.dtype) == ((4, FRAMES, 16, 16, 3), np.uint8)
    assert all((clip == clip[0, 0, 0, 0]).all() for clip in batch)
    assert next(stream(folder, size=8)).shape == (4, FRAMES, 8, 8, 3)


def test_every_sample_once_an_epoch_in_new_order(folder: Path) -> None:
    clips = stream(folder)
    epochs = [numbers(clips, 5) for _ in range(3)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(range(20))


def test_the_seed_decides_the_order(folder: Path) -> None:
    assert numbers(stream(folder, seed=1), 5) == numbers(stream(folder, seed=1), 5)
    assert numbers(stream(folder, seed=1), 5) != numbers(stream(folder, seed=2), 5)


def test_the_clips_are_the_same_for_any_number_of_decoders(folder: Path) -> None:
    one, many = (stream(folder, batch=3, decoders=count) for count in (1, 5))
    assert (one._decoders._max_workers, many._decoders._max_workers) == (1, 5)
    for _ in range(8):
        np.testing.assert_array_equal(next(one), next(many))
    many.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(next(one), next(many))


@pytest.mark.parametrize("taken", [0, 1, 5, 7, 12])
def test_resume_is_exact(folder: Path, tmp_path: Path, taken: int) -> None:
    # 8 clips of 5 frames: where in the clip the 3 frames begin must come back, too. Batches of 3 straddle the epochs.
    long = tmp_path / "long"
    with ShardWriter(long, kind="raw", samples_per_shard=4) as writer:
        for number in range(8):
            frames = (
                np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 16, 16, 3), np.uint8) + 10 * number
            )
            video = Video(frames.astype(np.uint8), 8.0)
            writer.write(f"k{number}", {"mp4": video.encode(".mp4", lossless=True), "json": {}})
    writer.manifest().save(long)
    first = stream(folder, long, batch=3)
    for _ in range(taken):
        next(first)
    state = json.loads(json.dumps(first.state_dict()))
    expected = [next(first) for _ in range(12)]
    again = stream(folder, long, batch=3)
    next(again)
    again.load_state_dict(state)
    for batch in expected:
        np.testing.assert_array_equal(next(again), batch)
    assert again.state_dict() == first.state_dict()
    assert {int(clip[0, 0, 0, 0]) % 10 for batch in expected for clip in batch} >= {0, 1, 2}


def test_a_foreign_state_is_refused(folder: Path) -> None:
    state = stream(folder, seed=1).state_dict()
    with pytest.raises(DataError, match="seed"):
        stream(folder, seed=2).load_state_dict(state)


@pytest.mark.parametrize("world", [2, 5, 8])
def test_ranks_share_the_samples(folder: Path, world: int) -> None:
    """There are 5 shards: divided by shard for 2 and 5 ranks, by sample for 8."""
    shares = [numbers(stream(folder, batch=1, rank=rank, world=world), 30) for rank in range(world)]
    epochs = [set(share) for share in shares]
    assert set().union(*epochs) == set(range(20))
    if world <= 5:
        assert sum(len(epoch) for epoch in epochs) == 20
    else:
        heads = [share[: 20 // world] for share in shares]
        assert len(set(itertools.chain(*heads))) == sum(map(len, heads))


def test_images_and_short_clips_are_left_out(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, 100, 2, frames=1, fps=0.0)
    write(tmp_path, 110, 2, frames=2)
    write(tmp_path, 120, 4)
    clips = stream(tmp_path)
    assert sorted(numbers(clips, 2)) == [120, 120, 121, 121, 122, 122, 123, 123]
    assert clips.problems.counts["an image"] >= 2
    assert clips.problems.counts["too short"] >= 2
    assert set(numbers(stream(tmp_path, frames=1), 6)) == {100, 101, 110, 111, 120, 121, 122, 123}


def test_damage_is_skipped_and_counted(tmp_path: Path) -> None:
    write(tmp_path, 0, 8)
    with ShardWriter(tmp_path, kind="raw", worker=99) as writer:
        writer.write("junk", {"mp4": b"junk", "json": {}})
    manifest = Manifest.load(tmp_path)
    Manifest("raw", manifest.shards + writer.shards).save(tmp_path)
    cut = tmp_path / manifest.shards[0].name
    cut.write_bytes(cut.read_bytes()[:9000])
    clips = stream(tmp_path, batch=2)
    assert set(numbers(clips, 20)) >= {0, 4, 5, 6, 7}
    assert clips.problems.counts["broken tar"] >= 1
    assert clips.problems.counts["cannot be decoded"] >= 1


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "short", 0, 3, frames=2)
    with pytest.raises(DataError, match="no clip of 3 frames"):
        next(stream(tmp_path / "short"))
    with pytest.raises(DataError, match=r"manifest\.json"):
        stream(tmp_path)
    Manifest("tokens", [], "0123").save(tmp_path)
    with pytest.raises(DataError, match="raw shards are needed"):
        stream(tmp_path)
    Manifest("raw", []).save(tmp_path)
    with pytest.raises(DataError, match="no shards"):
        stream(tmp_path)


def test_augmented_clips_come_from_the_same_samples_and_resume(folder: Path) -> None:
    """Of clips of one grey each, every view is that grey; the order is that of the plain stream, and so are states."""
    plain, views = stream(folder), stream(folder, size=8, augment=True)
    assert numbers(views, 2) == numbers(plain, 2)
    state = views.state_dict()
    rest = numbers(views, 3)
    again = stream(folder, size=8, augment=True)
    again.load_state_dict(state)
    assert numbers(again, 3) == rest
    with pytest.raises(DataError, match="augment"):
        stream(folder, size=8).load_state_dict(state)


def test_damage_before_a_resume_repeats_and_loses_no_other_clip(tmp_path: Path) -> None:
    folder = write(tmp_path / "raw", 0, 12)
    before = stream(folder, batch=3)
    came = numbers(before, 2)
    for shard in Manifest.load(folder).shards:
        path = folder / shard.name
        content = bytearray(path.read_bytes())
        content[content.index(b"ftyp")] ^= 0xFF  # in the first clip, whose checksum is then another
        path.write_bytes(content)
    lost = {0, 4, 8}

    after = stream(folder, batch=1)
    after._identity = before._identity  # one clip a batch, to stop at the epoch's end
    after.load_state_dict(before.state_dict())
    came += numbers(after, 12 - len(came) - len(lost - set(came)))
    assert sorted(came) == sorted(set(range(12)) - lost | set(came))
    assert set(came) >= set(range(12)) - lost


PICTURES = Video(np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8), 8.0)


def test_a_view_is_a_window_of_the_clip_in_one_of_its_turns_and_all_turns_occur() -> None:
    seen = set()
    for seed in range(200):
        view = random_view(PICTURES, 8, 6, np.random.default_rng(seed))
        assert (view.shape, view.dtype) == ((3, 8, 6, 3), np.uint8)
        for backwards, mirrored in itertools.product((1, -1), repeat=2):
            for colours in itertools.permutations(range(3)):
                turned = PICTURES.frames[::backwards, :, ::mirrored][..., list(colours)]
                windows = np.lib.stride_tricks.sliding_window_view(turned, (8, 6), axis=(1, 2))
                places = np.argwhere((windows == view.transpose(0, 3, 1, 2)[:, None, None]).all((0, 3, 4, 5)))
                seen |= {(backwards, mirrored, colours, *place.tolist()) for place in places}
    kinds = {turn[:3] for turn in seen}
    assert {turn[:2] for turn in kinds} == set(itertools.product((1, -1), repeat=2))
    assert len({turn[2] for turn in kinds}) == 6
    assert {turn[3:] for turn in seen} == set(itertools.product(range(5), range(5)))


def test_most_views_keep_their_colours() -> None:
    red = Video(np.broadcast_to(np.array([255, 0, 0], np.uint8), (1, 4, 4, 3)), 0.0)
    kept = [random_view(red, 4, 4, np.random.default_rng(seed))[0, 0, 0, 0] == 255 for seed in range(300)]
    assert 0.75 < np.mean(kept) < 0.9  # 3/4, and a third of the permutations leave red where it is


def test_a_smaller_clip_is_scaled_to_cover_the_window() -> None:
    view = random_view(PICTURES, 30, 20, np.random.default_rng(0))
    assert view.shape == (3, 30, 20, 3)


def test_the_same_seed_gives_the_same_view() -> None:
    views = [random_view(PICTURES, 8, 6, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*views)


def test_most_windows_lie_around_what_moves_and_at_the_grid() -> None:
    frames = np.zeros((3, 96, 96, 3), np.uint8)
    frames[..., 1], frames[..., 2] = np.mgrid[:96, :96]  # a pixel tells where it was
    frames[1, 70, 20, 0] = 255
    windows = [moving_window(frames, 32, np.random.default_rng(seed)) for seed in range(200)]
    assert {window.shape for window in windows} == {(3, 32, 32, 3)}
    corners = np.array([window[0, 0, 0, 1:] for window in windows])
    assert (corners % GRID == 0).all()
    assert (corners.min(), corners.max()) == (0, 64)
    assert 0.7 < np.mean([bool(window[1, ..., 0].any()) for window in windows]) < 0.95
    again = moving_window(frames, 32, np.random.default_rng(7))
    np.testing.assert_array_equal(again, windows[7])


def test_windows_of_a_still_clip_lie_anywhere() -> None:
    frames = np.stack([np.mgrid[:96, :96].sum(0)] * 2)[..., None].repeat(3, -1).astype(np.uint8)
    corners = {int(moving_window(frames, 32, np.random.default_rng(seed))[0, 0, 0, 0]) for seed in range(100)}
    assert corners == set(range(0, 129, GRID))


def test_several_clips_of_a_video(folder: Path) -> None:
    batch = next(ClipStream([folder], ClipShape(2, 16, 16, clips=2), batch=4, seed=0))
    assert batch.shape == (4, 2, 16, 16, 3)
    assert batch[0, 0, 0, 0, 0] == batch[1, 0, 0, 0, 0] != batch[2, 0, 0, 0, 0] == batch[3, 0, 0, 0, 0]
    with pytest.raises(DataError, match="a batch of 3 clips, 2 of each video"):
        ClipStream([folder], ClipShape(2, 16, 16, clips=2), batch=3, seed=0)
