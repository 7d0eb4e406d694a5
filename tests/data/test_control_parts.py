"""Controls from sources to token shards: without loss, aligned with their clip, and refused where they are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import control_parts
from vpoet.data.clips import ClipSettings
from vpoet.data.encode import Extras, Pace, encode_shard, finished
from vpoet.data.ingest import ingest
from vpoet.data.shards import Manifest, Problems, ShardWriter, read_shard
from vpoet.data.sources import divide, gather
from vpoet.data.token_dataset import TokenDataset
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.errors import ConfigError, DataError, VpoetWarning
from vpoet.evaluate.describe import describe
from vpoet.media import control
from vpoet.media.video import Video
from vpoet.sequence.controls import KINDS
from vpoet.worlds.platformer.world import Platformer

SMALL = {"frames": 5, "height": 32, "width": 32}


def shard_of(folder: Path) -> Path:
    (info,) = Manifest.load(folder).shards
    return folder / info.name


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("controls") / "raw"
    settings = ClipSettings(**SMALL, controls="edges,depth,pose")
    ingest(divide(gather(["world:platformer"], clips=3, seed=7)), out, settings)
    return out


@pytest.fixture(scope="module")
def encoded(raw: Path, tokens: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("encoded")
    manifest, problems = Manifest.load(raw), Problems()
    for info in manifest.shards:
        encode_shard(raw, info, out, tokens.video, Extras(), problems, Pace(batch=2))
    assert problems.total == 0
    infos = [finished(out, info, tokens.video.codes, Extras()) for info in manifest.shards]
    Manifest("tokens", [info for info in infos if info], tokens.video.codes).save(out)
    return out


def test_raw_shards_hold_them_without_loss(raw: Path) -> None:
    world = Platformer(32, 32, 8.0, 5)
    for number, sample in enumerate(read_shard(shard_of(raw))):
        frames, _ = world.clip(7_000_000 + number)
        assert np.array_equal(Video.read(sample.video).frames, frames)
        found = control_parts.read_pictures(sample.parts, frames.shape)
        assert list(found) == ["depth", "edges", "pose"]
        assert np.array_equal(found["edges"], control.edges(frames))
        assert np.array_equal(found["depth"], world.control(7_000_000 + number, "depth"))
        assert np.array_equal(found["pose"], world.control(7_000_000 + number, "pose"))


def test_token_shards_hold_their_codes_on_the_clips_grid(raw: Path, encoded: Path, tokens: Any) -> None:
    pictures = [control_parts.read_pictures(s.parts, (5, 32, 32, 3)) for s in read_shard(shard_of(raw))]
    dataset = TokenDataset(encoded, vocabulary=tokens.vocabulary)
    for sample, shown in zip(dataset.shard(0), pictures, strict=True):
        assert set(sample.controls) == {"edges", "depth", "pose"}
        for kind, codes in sample.controls.items():
            assert codes.shape == sample.codes.shape
            assert np.array_equal(codes, tokens.video.encode(shown[kind]))


def test_inspect_counts_them(raw: Path, encoded: Path) -> None:
    for folder in (raw, encoded):
        facts = describe(shard_of(folder))
        assert {name: count for name, count in facts.items() if name.startswith("with control ")} == {
            f"with control {kind}": 3 for kind in ("depth", "edges", "pose")
        }


def test_training_is_given_them(encoded: Path, tokens: Any) -> None:
    """Alike for the same seed, and not where the recipe asks for none."""
    sources = [Source(path=str(encoded))]
    told = StreamConfig(
        sources=sources, tasks={"t2v": 1}, controls={"edges": 1.0, "depth": 0.5}, drop_controls=0.0,
        drop_caption=0.0, length=200, lookahead=4,
    )  # fmt: skip

    def rows(config: StreamConfig, count: int = 4) -> list[Any]:
        documents = Documents(config, vocabulary=tokens.vocabulary, text=tokens.text.encode, seed=3)
        stream = PackStream(documents, lanes=1, prefetch=0)
        return [next(stream)[0] for _ in range(count)]

    first, again = rows(told), rows(told)
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.layout.flat, other.layout.flat)
        assert one.controls is not None
    edges, depth = KINDS.index("edges"), KINDS.index("depth")
    cells = [cells for row in first for cells in row.controls or () if cells is not None]
    assert all((each.strengths[edges] > 0).all() for each in cells)
    assert 0 < np.mean([(each.strengths[depth] > 0).any() for each in cells]) < 1
    images = replace(told, tasks={"t2i": 1})
    for row in rows(images, 2):
        each = [cells for cells in row.controls or () if cells is not None]
        assert all(cells.codes.shape[1] == len(cells.at) == 16 for cells in each), "of later cells it knows nothing"
    plain = StreamConfig(sources=sources, tasks={"t2v": 1}, drop_caption=0.0, length=200, lookahead=4)
    assert all(row.controls is None for row in rows(plain))
    with pytest.warns(VpoetWarning, match=r"no controls of kind flow.* `vpoet ingest --controls` makes them"):
        rows(StreamConfig(sources=sources, tasks={"t2v": 1}, controls={"flow": 1.0}, length=200), 1)


def test_recipes_name_kinds_and_probabilities(encoded: Path) -> None:
    sources = [Source(path=str(encoded))]
    for wrong, why in (
        ({"controls": {"heat": 0.5}}, "no kind 'heat'"),
        ({"controls": {"edges": 1.5}}, "controls.edges = 1.5 is a probability"),
        ({"drop_controls": -0.1}, "drop_controls = -0.1 is a probability"),
    ):
        with pytest.raises(ConfigError, match=why):
            StreamConfig(sources=sources, tasks={"t2v": 1}, **wrong)


def written(folder: Path, tokens: Any, signal: Video) -> Problems:
    """The problems of encoding a clip with this signal beside it."""
    clip = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), np.uint8), 8)
    about = {"caption": "a ball", "fps": 8, "frames": 5, "height": 16, "width": 16, "source": "x"}
    with ShardWriter(folder / "raw", kind="raw") as writer:
        for key, more in (("a", {}), ("b", {"control.edges.mp4": signal.encode(".mp4", lossless=True)})):
            writer.write(key, {"mp4": clip.encode(".mp4", lossless=True), "json": about, **more})
    problems = Problems()
    (folder / "out").mkdir()
    encode_shard(folder / "raw", writer.shards[0], folder / "out", tokens.video, Extras(), problems, Pace())
    return problems


@pytest.mark.parametrize(("shape", "told"), [((4, 16, 16, 3), "4x16x16"), ((5, 16, 24, 3), "5x16x24")])
def test_a_control_of_another_size_is_told(tmp_path: Path, tokens: Any, shape: tuple[int, ...], told: str) -> None:
    problems = written(tmp_path, tokens, Video(np.zeros(shape, np.uint8), 8))
    assert list(problems.counts) == [f"control edges: {told} frames and pixels, and the clip has 5x16x16"]


def test_codes_of_another_size_are_no_controls(encoded: Path, tokens: Any, tmp_path: Path) -> None:
    (info,) = Manifest.load(encoded).shards
    with ShardWriter(tmp_path, kind="tokens", tokenizer=tokens.video.hash) as writer:
        for sample in read_shard(encoded / info.name):
            parts: dict[str, Any] = {**sample.parts, "json": {k: v for k, v in sample.json.items() if k != "sha256"}}
            if sample.number == 1:
                parts["control.edges.npy"] = np.zeros((1, 4, 4), np.int32)
            writer.write(sample.key, parts)
    writer.manifest().save(tmp_path)
    dataset = TokenDataset(tmp_path, vocabulary=tokens.vocabulary)
    assert len(dataset.shard(0)) == 2
    assert dataset.problems.counts == {"controls of other codes": 1}


def test_what_nobody_knows_is_found_before_anything_is_written(tmp_path: Path) -> None:
    Video(np.zeros((5, 32, 32, 3), np.uint8), 8).write(tmp_path / "clip.mp4")
    film = divide(gather([str(tmp_path / "clip.mp4")]))
    world = divide(gather(["world:playground"], clips=1))
    for sides, why in ((film, "depth is not made of pixels"), (world, "world:playground: it tells no depth")):
        with pytest.raises(DataError, match=why):
            ingest(sides, tmp_path / "raw", ClipSettings(**SMALL, controls="depth"))
    assert not (tmp_path / "raw").exists()
    with pytest.raises(DataError, match="no kind 'heat'; there are edges"):
        control_parts.read_kinds("edges,heat")
    assert control_parts.read_kinds(" depth , edges") == ("edges", "depth")


def test_a_film_and_an_image_have_them_too(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8).repeat(4, 1).repeat(4, 2)
    Video(frames, 8).write(tmp_path / "clip.mp4", lossless=True)
    Video(frames[:1], 0).write(tmp_path / "picture.png")
    for name, size in (("clip.mp4", 5), ("picture.png", 1)):
        out = tmp_path / name.partition(".")[0]
        ingest(divide(gather([str(tmp_path / name)])), out, ClipSettings(**SMALL, controls="edges,grey"))
        (sample,) = read_shard(shard_of(out))
        found = control_parts.read_pictures(sample.parts, (size, 32, 32, 3))
        assert np.array_equal(found["edges"], control.edges(frames[:size]))
        assert np.array_equal(found["grey"], control.grey(frames[:size]))
