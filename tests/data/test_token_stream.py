"""The stream of packs: every document once an epoch, exact resume, the same batches at every world size, bad samples
skipped and counted, and a process that works ahead and neither outlives its parent nor hides errors."""

import gc
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import token_dataset, token_stream
from vpoet.data.lanes import Lane
from vpoet.data.painting import to_npz
from vpoet.data.shards import Manifest, ShardWriter
from vpoet.data.token_dataset import TokenDataset
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig, heldout_packs
from vpoet.errors import CheckpointError, ConfigError, DataError, HashMismatch, VpoetWarning
from vpoet.sequence.arrangements import Painting
from vpoet.sequence.document import Document, parse
from vpoet.sequence.packing import Pack, unpack
from vpoet.sequence.vocabulary import Modality, Vocabulary

VOCABULARY = Vocabulary(text=300, visual=(16, 16), text_hash="text", visual_hash="visual")


def encode_text(text: str) -> list[int]:
    return list(text.encode())


def write_shards(
    folder: Path,
    samples: int,
    *,
    per_shard: int = 8,
    cells: Callable[[int], int] = lambda i: 1 + i % 3,
    spoil: Callable[[int, dict[str, Any]], None] = lambda i, parts: None,
    first: int = 0,
    tokenizer: str = "visual",
) -> str:
    """Sample i has i in every code, captions ``i:a`` and ``i:b``, and a grid of cells(i) x 2 x 2."""
    with ShardWriter(folder, kind="tokens", samples_per_shard=per_shard, tokenizer=tokenizer) as writer:
        for i in range(first, first + samples):
            parts: dict[str, Any] = {
                "codes.npy": np.full((cells(i), 2, 2), i, dtype=np.int32),
                "json": {"caption": [f"{i}:a", f"{i}:b"], "fps": 8.0, "tokenizer": tokenizer},
            }
            spoil(i, parts)
            writer.write(f"sample-{i:04d}", parts)
    writer.manifest().save(folder)
    return str(folder)


def config(*paths: str, **changes: Any) -> StreamConfig:
    tasks = {"unconditional": 1.0, "t2i": 1.0, "t2v": 1.0, "i2v": 1.0, "continuation": 1.0}
    values: dict[str, Any] = {"tasks": tasks, "length": 96, "lookahead": 6, **changes}
    return StreamConfig(sources=[Source(path=path) for path in paths], **values)


def stream(cfg: StreamConfig, **changes: Any) -> PackStream:
    made_of = {"vocabulary": VOCABULARY, "text": encode_text, "seed": 1}
    made_of |= {name: changes.pop(name) for name in made_of.keys() & changes}
    return PackStream(Documents(cfg, **made_of), **{"lanes": 4, "prefetch": 0, **changes})


def documents(packs: list[Pack]) -> Iterator[Document]:
    for row in packs:
        for sequence in unpack(row):
            yield parse(sequence.ids, VOCABULARY)


def number(document: Document) -> int:
    """Which sample a document was made of."""
    return int(document.codes().flat[0])


def caption(document: Document) -> str | None:
    """None where the task has no text."""
    texts = [span.values for span in document.spans if span.modality is Modality.TEXT]
    return bytes(texts[0].tolist()).decode() if texts else None


def same(one: list[Pack], other: list[Pack]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(getattr(a, field), getattr(b, field))
        for a, b in zip(one, other, strict=True)
        for field in ("ids", "positions", "kinds", "targets", "lengths", "prefixes")
    )


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_shards(tmp_path / "tokens", 44)  # 6 shards, the last of 4


@pytest.mark.parametrize(("lanes", "shard_size"), [(1, 8), (3, 8), (4, 20), (7, 44)])
def test_every_sample_comes_exactly_once_an_epoch_over_all_lanes(tmp_path: Path, lanes: int, shard_size: int) -> None:
    """As many lanes as shards or more or fewer; cut by epoch with the cursors that the lanes' states tell."""
    cfg = config(write_shards(tmp_path / "tokens", 44, per_shard=shard_size), lookahead=1)
    made = Documents(cfg, vocabulary=VOCABULARY, text=encode_text, seed=1)
    seen: dict[int, Counter[int]] = {}
    for index in range(lanes):
        lane = Lane(made, index, lanes)
        walk = lane.walks[0]
        while walk.at.epoch < 4:
            cursor, sequence = walk.next()
            seen.setdefault(cursor.epoch, Counter())[number(parse(sequence.ids, VOCABULARY))] += 1
    for epoch in range(3):
        assert seen[epoch] == Counter(range(44)), f"epoch {epoch}"


def test_packs_lose_and_repeat_nothing_of_what_is_drawn(folder: str) -> None:
    """One lane, one source: the documents packed and those that still wait are the first documents of the walk."""
    packs = stream(config(folder), lanes=1)
    drawn: list[int] = []
    walk = Lane(Documents(config(folder), vocabulary=VOCABULARY, text=encode_text, seed=1), 0, 1).walks[0]
    out = [number(document) for _ in range(40) for document in documents(next(packs))]
    state = packs.state()["0"]
    while len(drawn) < state["drawn"]:
        drawn.append(number(parse(walk.next()[1].ids, VOCABULARY)))
    assert len(out) == len(drawn) - len(state["waiting"])
    assert not Counter(out) - Counter(drawn)


@pytest.mark.parametrize("shard_size", [1, 8, 44])
def test_order_differs_from_epoch_to_epoch_and_between_seeds(tmp_path: Path, shard_size: int) -> None:
    path = write_shards(tmp_path / "tokens", 44, per_shard=shard_size)
    orders = []
    for seed in (1, 2):
        walk = Lane(Documents(config(path), vocabulary=VOCABULARY, text=encode_text, seed=seed), 0, 1).walks[0]
        orders += [[number(parse(walk.next()[1].ids, VOCABULARY)) for _ in range(44)] for _ in range(2)]
    assert all(sorted(order) == list(range(44)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize("prefetch", [0, 3])
@pytest.mark.parametrize("steps", [0, 1, 7, 30])
def test_resumed_stream_goes_on_exactly(folder: str, tmp_path: Path, steps: int, prefetch: int) -> None:
    other = write_shards(tmp_path / "other", 9, first=100)
    cfg = config(folder, other)
    with stream(cfg, prefetch=prefetch) as whole:
        for _ in range(steps):
            next(whole)
        saved = json.loads(json.dumps(whole.state()))
        with stream(cfg, prefetch=prefetch, state=saved) as resumed:
            assert resumed.state() == whole.state()
            for _ in range(12):
                assert same(next(whole), next(resumed))
                assert resumed.state() == whole.state()


def test_global_batches_are_the_same_at_every_world_size(folder: str) -> None:
    cfg = config(folder)
    whole = stream(cfg)
    for world in (2, 4):
        ranks = [stream(cfg, rank=rank, world=world) for rank in range(world)]
        alone = stream(cfg)
        for _ in range(10):
            shares = [next(rank) for rank in ranks]
            assert same([shares[lane % world][lane // world] for lane in range(4)], next(alone))
        merged = {lane: state for rank in ranks for lane, state in rank.state().items()}
        assert merged == alone.state()
        resumed = stream(cfg, state=merged)  # saved by several processes, continued by one
        assert same(next(resumed), next(alone))
    assert len(next(whole)) == 4


def test_prefetching_changes_nothing(folder: str) -> None:
    plain = stream(config(folder))
    with stream(config(folder), prefetch=3) as ahead:
        for _ in range(20):
            assert same(next(plain), next(ahead))
            assert plain.state() == ahead.state()
            assert plain.problems == ahead.problems


def test_document_depends_on_seed_epoch_and_key_alone(folder: str, tmp_path: Path) -> None:
    """The same samples in other shards and another number of lanes give the same documents."""
    other = write_shards(tmp_path / "other", 44, per_shard=11)

    def first_epoch(path: str, lanes: int, seed: int) -> dict[int, list[int]]:
        made = Documents(config(path), vocabulary=VOCABULARY, text=encode_text, seed=seed)
        found = {}
        for lane in range(lanes):
            walk = Lane(made, lane, lanes).walks[0]
            cursor, sequence = walk.next()
            while cursor.epoch == 0:
                found[number(parse(sequence.ids, VOCABULARY))] = sequence.ids.tolist()
                cursor, sequence = walk.next()
        return found

    assert first_epoch(folder, 1, seed=1) == first_epoch(other, 3, seed=1)
    assert first_epoch(folder, 1, seed=1) != first_epoch(folder, 1, seed=2)


def test_samples_keep_their_captions_and_lose_them_by_probability(folder: str) -> None:
    """Over 2,000 documents with text: shares within 4 standard deviations (three: wrong once in 5,000 seeds)."""
    packs = stream(config(folder, drop_caption=0.25))
    made = [document for _ in range(300) for document in documents(next(packs))]
    texts = [(number(document), text) for document in made if (text := caption(document)) is not None]
    n = len(texts)
    assert n > 2000
    assert all(text in ("", f"{i}:a", f"{i}:b") for i, text in texts)
    for ending, share in (("", 0.25), ("a", 0.375), ("b", 0.375)):
        found = sum(text.endswith(ending) if ending else not text for _, text in texts)
        assert abs(found - share * n) < 4 * (n * share * (1 - share)) ** 0.5
    assert {document.task for document in made} == {"unconditional", "t2i", "t2v", "i2v", "continuation"}


@pytest.mark.parametrize(("probability", "dropped"), [(0.0, False), (1.0, True)])
def test_captions_are_never_or_always_dropped_at_the_ends(folder: str, probability: float, dropped: bool) -> None:
    packs = stream(config(folder, drop_caption=probability, tasks={"t2i": 1.0}))
    assert {caption(document) == "" for _ in range(10) for document in documents(next(packs))} == {dropped}


def test_sources_and_tasks_are_drawn_by_weight(folder: str, tmp_path: Path) -> None:
    """Over 2,000 documents: shares within 4 standard deviations of the weights (two: wrong once in 8,000 seeds)."""
    other = write_shards(tmp_path / "other", 20, first=100)
    unused = write_shards(tmp_path / "unused", 3, first=200)
    cfg = config(folder, other, unused, tasks={"t2i": 1, "unconditional": 3})
    for source, weight in zip(cfg.sources, (3, 1, 0), strict=True):
        source.weight = weight
    packs = stream(cfg)
    made = [document for _ in range(150) for document in documents(next(packs))]
    n = len(made)
    assert n > 2000
    for found in (
        sum(number(document) >= 100 for document in made),
        sum(document.task == "t2i" for document in made),
    ):
        assert abs(found - 0.25 * n) < 4 * (n * 0.25 * 0.75) ** 0.5
    assert max(number(document) for document in made) < 200


def test_images_and_videos_become_their_own_spans(folder: str) -> None:
    packs = stream(config(folder, tasks={"unconditional": 1.0}))
    for document in (document for _ in range(10) for document in documents(next(packs))):
        (span,) = document.spans
        cells = 1 + number(document) % 3
        assert (span.modality, span.fps) == ((Modality.IMAGE, 0) if cells == 1 else (Modality.VIDEO, 8))
        assert span.values.shape == (cells, 2, 2)


def test_prefix_of_a_bidirectional_config_reaches_to_the_target(folder: str) -> None:
    (row, *_) = next(stream(config(folder, bidirectional=True)))
    sequences = unpack(row)
    assert list(row.prefixes[: len(sequences)]) == [sequence.prefix for sequence in sequences]
    (row, *_) = next(stream(config(folder)))
    assert set(row.prefixes) == {0}


def test_a_window_of_a_config_reaches_the_packs(folder: str) -> None:
    (row, *_) = next(stream(config(folder, window=1)))
    sequences = unpack(row)
    assert all(sequence.until is not None for sequence in sequences)
    assert any((sequence.until < len(sequence)).any() for sequence in sequences)
    assert next(stream(config(folder)))[0].until is None


def spoil(i: int, parts: dict[str, Any]) -> None:
    if i == 3:
        parts["codes.npy"][0, 0, 0] = 256
    if i == 5:
        del parts["json"]["fps"]
    if i == 6:
        parts["codes.npy"] = b"not an array"
    if i == 7:
        parts["json"]["tokenizer"] = "another"
    if i == 8:
        parts["codes.npy"] = np.zeros((1, 0, 2), dtype=np.int32)
    if i == 9:
        del parts["codes.npy"]
    if i == 10:
        parts["codes.npy"] = np.full((1, 1, 256), i, dtype=np.int32)
    if i == 11:
        parts["json"]["caption"] = None
    if i == 13:
        parts["codes.npy"] = np.full((3, 4, 5), i, dtype=np.int32)


def test_bad_samples_are_skipped_and_counted_by_reason_and_shard(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "tokens", 16, spoil=spoil)
    packs = stream(config(path, length=64, tasks={"unconditional": 1.0}), lanes=1)
    assert packs.problems.total == 0
    seen = {number(document) for _ in range(30) for document in documents(next(packs))}
    assert seen == {0, 1, 2, 4, 11, 12, 14, 15}
    too_long = packs.problems.counts.pop("longer than a pack of 64")  # by document, so once an epoch
    assert too_long > 1
    assert packs.problems.counts == {
        "codes of another tokenizer": 2,
        "no fps": 1,
        "broken codes": 1,
        "no codes": 1,
        "missing codes.npy": 1,
        "fps or grid too large for a span's header": 1,
    }
    (name,) = packs.problems.names["no fps"]
    assert name.startswith(path)
    assert name.endswith(": sample-0005")


def test_damaged_shard_costs_only_its_own_samples(folder: str) -> None:
    name = Manifest.load(folder).shards[2].name
    shard = Path(folder) / name
    shard.write_bytes(shard.read_bytes()[:-5000])
    packs = stream(config(folder, tasks={"unconditional": 1.0}), lanes=2)
    seen = {number(document) for _ in range(30) for document in documents(next(packs))}
    assert set(range(44)) - seen <= set(range(16, 24))
    assert set(range(44)) - seen
    assert all(name in where for names in packs.problems.names.values() for where in names)


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("prefetch", [0, 2])
def test_source_without_a_usable_sample_is_an_error_and_not_a_loop(tmp_path: Path, lanes: int, prefetch: int) -> None:
    def break_all(i: int, parts: dict[str, Any]) -> None:
        parts["codes.npy"] = b"not an array"

    path = write_shards(tmp_path / "tokens", 10, spoil=break_all)
    with stream(config(path), lanes=lanes, prefetch=prefetch) as packs:
        for _ in range(2):
            with pytest.raises(DataError, match=r"tokens: no usable document in .* 10 broken codes"):
                next(packs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 8}, "no usable document in .* longer than a pack of 8"),
        ({"tasks": {"continuation": 1.0}}, "no usable document in .* too short for every task"),
    ],
)
def test_samples_that_no_pack_or_task_can_take_are_an_error(tmp_path: Path, changes: Any, message: str) -> None:
    path = write_shards(tmp_path / "tokens", 10, cells=lambda i: 1)
    with pytest.raises(DataError, match=message):
        next(stream(config(path, **changes)))


def with_keyframes(i: int, parts: dict[str, Any]) -> None:
    """A sample's cells in time hold i, and its later keyframes i + 100."""
    parts["keyframes.npy"] = parts["codes.npy"].copy()
    parts["keyframes.npy"][1:] += 100


def test_keyframes_are_the_guides_of_the_tasks_that_need_them(tmp_path: Path) -> None:
    """Samples with keyframes serve interpolation and backward extension; those without serve the other tasks."""
    keyed = write_shards(tmp_path / "keyed", 8, cells=lambda i: 4, spoil=with_keyframes)
    plain = write_shards(tmp_path / "plain", 8, cells=lambda i: 4, first=50)
    tasks = {"t2v": 1.0, "interpolation": 1.0, "backward": 1.0}
    packs = stream(config(keyed, plain, tasks=tasks, length=200), lanes=8)
    found = [document for _ in range(6) for document in documents(next(packs))]
    assert {document.task for document in found if number(document) < 50} == set(tasks)
    assert {document.task for document in found if number(document) >= 50} == {"t2v"}
    for document in found:
        guides = [span for span in document.spans if span.modality is Modality.IMAGE and span.time > 0]
        assert bool(guides) == (document.task != "t2v")
        assert all((guide.values == number(document) + 100).all() for guide in guides)


def test_tasks_that_need_keyframes_are_refused_where_no_sample_has_them(folder: str) -> None:
    for others in ({}, {"t2v": 1.0}):
        with pytest.raises(DataError, match=r"interpolation: needs keyframes, .* `vpoet encode --keyframes`"):
            stream(config(folder, tasks={"interpolation": 1.0, **others}))
    stream(config(folder, tasks={"interpolation": 0.0, "t2v": 1.0}))
    with pytest.raises(DataError, match="without what it needs"):
        heldout_packs(config(folder, tasks={"interpolation": 1.0}), vocabulary=VOCABULARY, text=encode_text, count=1)


@pytest.mark.parametrize(
    ("keyframes", "reason"),
    [
        (np.full((2, 2, 2), 1, np.int32), "keyframes of other codes"),
        (np.full((3, 2, 2), 9, np.int32), "keyframes of other codes"),
        (np.full((3, 2, 2), 1, np.int32) + 255 * np.arange(3, dtype=np.int32)[:, None, None], "codes of another tok"),
        (b"nonsense", "broken keyframes"),
    ],
)
def test_keyframes_that_do_not_belong_are_reported(tmp_path: Path, keyframes: Any, reason: str) -> None:
    def spoil(i: int, parts: dict[str, Any]) -> None:
        if i == 1:
            parts["keyframes.npy"] = keyframes

    path = write_shards(tmp_path / "tokens", 4, cells=lambda i: 3, spoil=spoil)
    dataset = TokenDataset(path, vocabulary=VOCABULARY)
    assert [sample.key for sample in dataset.shard(0)] == ["sample-0000", "sample-0002", "sample-0003"]
    (found,) = dataset.problems.counts
    assert reason in found


def with_paintings(i: int, parts: dict[str, Any]) -> None:
    """A sample's cells hold i, and those that its painting shows i + 100; the second cell in time is hidden."""
    hidden = np.zeros(parts["codes.npy"].shape, np.bool_)
    hidden[1] = True
    parts["painting-0.npz"] = to_npz(Painting("inpainting", hidden, np.where(hidden, 0, np.int32(i + 100))))
    parts["json"]["paintings"] = ["inpainting"]


def test_painting_trains_on_what_paintings_show_and_shards_without_any_are_told(tmp_path: Path) -> None:
    painted = write_shards(tmp_path / "painted", 8, cells=lambda i: 3, spoil=with_paintings)
    plain = write_shards(tmp_path / "plain", 8, cells=lambda i: 3, first=50)
    mixed = config(painted, plain, tasks={"t2v": 1.0, "inpainting": 1.0, "outpainting": 0.0}, length=200)
    with pytest.warns(VpoetWarning) as told:
        packs = stream(mixed, lanes=8)
    (warning,) = told
    assert re.search("plain: no paintings for inpainting, .* `vpoet encode --paintings 1` makes", str(warning.message))
    found = [document for _ in range(6) for document in documents(next(packs))]
    assert {document.task for document in found if number(document) % 100 < 50} == {"t2v", "inpainting"}
    assert {document.task for document in found if number(document) % 100 >= 50} == {"t2v"}
    for document in found:
        if document.task == "inpainting":
            _, given, wanted = document.spans
            i = int(wanted.values[1].flat[0])
            assert given.hidden is not None
            assert (given.values[[0, 2]] == i + 100).all()
            assert np.array_equal(wanted.values, np.where(given.hidden, i, given.values))
    with pytest.warns(VpoetWarning):
        one, other = stream(mixed, lanes=8), stream(mixed, lanes=8, rank=1, world=2)
    for _ in range(3):
        assert same(next(one)[1::2], next(other))
    stream(config(plain))
    with pytest.raises(DataError, match=r"without what it needs \(keyframes, paintings"):
        heldout_packs(config(plain, tasks={"inpainting": 1.0}), vocabulary=VOCABULARY, text=encode_text, count=1)


def test_paintings_that_do_not_belong_are_reported(tmp_path: Path) -> None:
    """Another clip's, nonsense, a missing one, an unknown task, a code that the tokenizer has not; foreign names are no
    matter."""

    def spoil(i: int, parts: dict[str, Any]) -> None:
        with_paintings(i, parts)
        hidden = np.zeros((3, 2, 2), np.bool_)
        hidden[0] = True
        if i == 1:
            parts["painting-0.npz"] = to_npz(Painting("inpainting", hidden[:, :1], np.zeros((3, 1, 2), np.int32)))
        if i == 2:
            parts["painting-0.npz"] = b"nonsense"
        if i == 3:
            parts["json"]["paintings"] = ["inpainting", "outpainting"]
        if i == 4:
            parts["json"]["paintings"] = ["t2v"]
        if i == 5:
            parts["json"]["paintings"] = {"0": 1}
        if i == 6:
            shown = np.where(hidden, 0, np.int32(256))
            parts["painting-0.npz"] = to_npz(Painting("inpainting", hidden, shown))
        if i == 7:
            del parts["painting-0.npz"]
            parts["json"]["paintings"] = "by Klimt"

    path = write_shards(tmp_path / "tokens", 9, per_shard=9, cells=lambda i: 3, spoil=spoil)
    dataset = TokenDataset(path, vocabulary=VOCABULARY)
    assert {sample.key: len(sample.paintings) for sample in dataset.shard(0)} == {
        "sample-0000": 1,
        "sample-0007": 0,
        "sample-0008": 1,
    }
    assert dataset.problems.counts == {"broken paintings": 5, "codes of another tokenizer": 1}


def test_one_sample_feeds_many_lanes(tmp_path: Path) -> None:
    """Most of the parts of its only shard are empty, and still every lane meets it in some epoch."""
    packs = next(stream(config(write_shards(tmp_path / "tokens", 1, first=5), lookahead=1), lanes=8))
    assert len(packs) == 8
    assert {number(document) for document in documents(packs)} == {5}


def test_folder_of_another_tokenizer_is_refused_with_both_hashes(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "tokens", 3, tokenizer="another")
    with pytest.raises(HashMismatch, match=r"tokens: .* tokenizer another, .* that of visual"):
        stream(config(path))


def test_folders_that_are_no_token_shards_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing/manifest\.json"):
        stream(config(str(tmp_path / "missing")))
    Manifest("raw", []).save(tmp_path)
    with pytest.raises(DataError, match="raw shards; `vpoet encode` makes token shards"):
        stream(config(str(tmp_path)))
    Manifest("tokens", [], "visual").save(tmp_path)
    with pytest.raises(DataError, match="lists no samples"):
        stream(config(str(tmp_path)))


def test_shard_that_is_listed_and_not_there_is_an_error(folder: str) -> None:
    for shard in Manifest.load(folder).shards:
        (Path(folder) / shard.name).unlink()
    with pytest.raises(DataError, match="cannot be opened"):
        next(stream(config(folder)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": 0}, "length = 0"),
        ({"lookahead": 0}, "lookahead = 0"),
        ({"window": -1}, "window = -1 frames: must be 0"),
        ({"drop_caption": 1.5}, "drop_caption = 1.5 is a probability"),
        ({"tasks": {"t2x": 1.0}}, "tasks.t2x: no such task"),
    ],
)
def test_impossible_configs_are_refused(changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("somewhere", **changes)


def test_impossible_arguments_are_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="a global batch of 4 packs cannot be shared by 3 processes"):
        stream(config(folder), world=3)
    with pytest.raises(ConfigError, match="at least one folder"):
        stream(config())
    with pytest.raises(ConfigError, match="weight of somewhere is -1"):
        StreamConfig(sources=[Source(path="somewhere", weight=-1)], tasks={"t2v": 1.0})
    with pytest.raises(ConfigError, match="seed = -1"):
        stream(config(folder), seed=-1)


def test_state_of_other_data_is_refused(folder: str, tmp_path: Path) -> None:
    packs = stream(config(folder))
    next(packs)
    state = packs.state()
    other = write_shards(tmp_path / "other", 44, first=1)
    for cfg, changes in ((config(other), {}), (config(folder), {"seed": 2}), (config(folder, other), {})):
        with pytest.raises(CheckpointError, match="is one in other data"):
            stream(cfg, state=state, **changes)
    with pytest.raises(CheckpointError, match="lacks lanes"):
        stream(config(folder), lanes=8, state=state)
    with pytest.raises(CheckpointError, match="is one in other data"):
        stream(config(folder), lanes=2, state=state)


def test_shards_are_shared_while_held_and_released_after(folder: str) -> None:
    dataset = TokenDataset(folder, vocabulary=VOCABULARY)
    first = dataset.shard(0)
    assert dataset.shard(0) is first
    assert (len(dataset), dataset.samples, len(first)) == (6, 44, 8)
    assert first[0].codes.dtype == np.uint8
    others = [weakref.ref(dataset.shard(index)) for index in range(1, 6)]
    assert dataset.shard(0) is first
    gc.collect()
    assert [shard() is not None for shard in others] == [False, False, True, True, True]


def test_the_process_gives_what_is_made_here(folder: str) -> None:
    """Batches, states and problems, from the start and from a place, whatever was made ahead."""
    here, lanes = stream(config(folder)), config(folder)
    with stream(lanes, prefetch=3) as there:
        assert there.state() == here.state()
        for _ in range(12):
            assert same(next(there), next(here))
            assert (there.state(), there.problems) == (here.state(), here.problems)
        place = there.state()
    with stream(lanes, state=place, prefetch=2) as there:
        assert there.state() == place
        for _ in range(12):
            assert same(next(there), next(here))


def test_what_is_skipped_is_told_by_the_process_too(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "tokens", 24, spoil=spoil)
    here = stream(config(path), lanes=1)
    with stream(config(path), lanes=1, prefetch=2) as there:
        for _ in range(60):
            next(here), next(there)
        assert there.problems == here.problems
        assert there.skipped == here.skipped != {}


def test_closed_stream_ends_and_its_process_is_gone(folder: str) -> None:
    packs = stream(config(folder), prefetch=2)
    next(packs)
    state, process = packs.state(), pid(packs)
    assert alive(process)
    packs.close()
    packs.close()
    assert not alive(process)
    assert list(packs) == []
    assert packs.state() == state


def test_forgotten_stream_ends_its_process(folder: str) -> None:
    packs = stream(config(folder), prefetch=1)
    next(packs)
    process = pid(packs)
    del packs
    gc.collect()
    assert not alive(process)


def pid(packs: PackStream) -> int:
    assert packs._ahead is not None
    return packs._ahead.pid


def alive(process: int) -> bool:
    """Running, and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Failing:
    """Spells text, and raises at the fourth batch of one lane."""

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __call__(self, text: str) -> list[int]:
        self.calls -= 1
        if self.calls == 0:
            raise KeyError("no such piece")
        return encode_text(text)


def test_error_in_the_process_is_raised_here_after_the_good_batches(folder: str) -> None:
    reference = stream(config(folder), lanes=1, text=Failing(60))
    expected = []
    with pytest.raises(KeyError):
        expected.extend(next(reference) for _ in range(60))
    assert len(expected) > 3
    with stream(config(folder), lanes=1, text=Failing(60), prefetch=5) as packs:
        for batch in expected:
            assert same(next(packs), batch)
        for _ in range(2):
            with pytest.raises(KeyError, match="no such piece") as raised:
                next(packs)
        assert any("test_token_stream.py" in note for note in raised.value.__notes__), "where it was raised there"
        assert packs.state() == reference.state()


def test_an_error_of_the_users_comes_as_it_is(folder: str) -> None:
    cfg = config(folder, length=8, tasks={"unconditional": 1.0})
    with stream(cfg, prefetch=2) as packs, pytest.raises(DataError, match="no usable document") as raised:
        next(packs)
    assert not hasattr(raised.value, "__notes__")


def test_a_place_in_other_data_is_refused_before_anything_starts(folder: str) -> None:
    with stream(config(folder), prefetch=1) as packs:
        next(packs)
        state = packs.state()
    with pytest.raises(CheckpointError, match="is one in other data"):
        stream(config(folder), seed=2, state=state, prefetch=1)


def test_what_cannot_be_sent_to_the_process_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be sent to another process.*or prefetch=0"):
        stream(config(folder), text=lambda text: encode_text(text), prefetch=1)


class Gone:
    """Can be sent, and not be made again there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, ("a_module_of_yesterday",)

    def __call__(self, text: str) -> list[int]:
        raise AssertionError


def test_what_cannot_be_made_again_there_is_told(folder: str) -> None:
    wanted = pytest.raises(ConfigError, match=r"cannot be sent.*a_module_of_yesterday.*or prefetch=0")
    with stream(config(folder), text=Gone(), prefetch=1) as packs, wanted:
        next(packs)


def test_a_process_that_is_killed_is_told(folder: str) -> None:
    with stream(config(folder), prefetch=1) as packs:
        next(packs)
        os.kill(pid(packs), signal.SIGKILL)
        with pytest.raises(DataError, match=r"ended with SIGKILL.*go on with --resume"):
            list(packs)


def test_the_process_imports_no_torch(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """It would cost seconds at each start, and hundreds of megabytes for each rank."""
    ask = "import sys, vpoet.data.token_stream, vpoet.tokenizer.text; print(*sys.modules)"
    loaded = python("-c", ask).stdout.split()
    assert "vpoet.data.prefetch" in loaded
    assert not {"torch", "webdataset", "deepspeed"} & set(loaded)


def test_ctrl_c_is_for_the_trainer_alone(folder: str) -> None:
    with stream(config(folder), prefetch=1) as packs:
        next(packs)
        assert os.getpgid(pid(packs)) != os.getpgid(0)


@pytest.mark.parametrize("busy", [False, True])
def test_the_process_ends_with_its_parent_however_that_ends(folder: str, tmp_path: Path, busy: bool) -> None:
    """SIGKILL, while a fork of the parent keeps its end of the pipe open; ``busy``: while a shard is not coming."""
    told = tmp_path / "pid"
    script = f"""
import os, sys, time
sys.path[:] = {sys.path!r}
from {__name__} import *
text = Patched("{tmp_path}/never") if {busy} else encode_text
packs = stream(config("{folder}"), text=text, prefetch=1)
if not {busy}:
    next(packs)
if os.fork() == 0:
    Path("{told}.fork").write_text(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
Path("{told}").write_text(str(pid(packs)))
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        assert within(30, lambda: told.exists() and told.read_text() and Path(f"{told}.fork").exists())
        process = int(told.read_text())
        assert alive(process)
        parent.kill()
        parent.wait()
        assert within(10, lambda: not alive(process))
    finally:
        parent.kill()
        if Path(f"{told}.fork").exists():
            os.kill(int(Path(f"{told}.fork").read_text()), signal.SIGKILL)


def within(seconds: float, happened: Callable[[], object]) -> bool:
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(happened())


def test_heldout_packs_are_the_same_every_time_and_hold_each_document_once(folder: str, tmp_path: Path) -> None:
    other = write_shards(tmp_path / "other", 9, first=100)
    cfg = config(folder, other, drop_caption=0.0)
    every = heldout_packs(cfg, vocabulary=VOCABULARY, text=encode_text, count=1000)
    assert Counter(map(number, documents(every))) == Counter([*range(44), *range(100, 109)])
    some = heldout_packs(cfg, vocabulary=VOCABULARY, text=encode_text, count=3)
    assert same(some, every[:3])
    assert {number(document) >= 100 for document in documents(some)} == {False, True}


def test_heldout_source_without_documents_is_an_error(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "tokens", 4)
    with pytest.raises(DataError, match="no usable document"):
        heldout_packs(config(path, length=8), vocabulary=VOCABULARY, text=encode_text, count=3)


class Patched:
    """Spells text; wherever it is loaded, shards are read when a file is there, and not before."""

    def __init__(self, released: str) -> None:
        self.released = released

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        read = token_dataset.read_shard

        def stalled(*args: Any, **kwargs: Any) -> Any:
            while not Path(self.released).exists():
                time.sleep(0.01)
            return read(*args, **kwargs)

        token_dataset.read_shard = stalled

    def __call__(self, text: str) -> list[int]:
        return encode_text(text)


def test_a_stalled_source_is_named(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard comes when the warning was given, and the stream goes on as if nothing had been."""
    expected, released, said = next(stream(config(folder))), tmp_path / "released", []

    def warn(message: str, *_: object, **__: object) -> None:
        said.append(message)
        if "reading" in message:
            released.touch()

    monkeypatch.setattr(token_stream, "STALLED", 0.01)
    monkeypatch.setattr(token_stream.warnings, "warn", warn)
    with stream(config(folder), text=Patched(str(released)), prefetch=2) as packs:
        assert same(next(packs), expected)
    assert all(line.startswith("no data for ") for line in said)
    assert re.search(rf"the stream is reading {folder}/tokens-.*\.tar; waiting on", said[-1])


def test_what_is_skipped_is_counted_for_each_shard(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "tokens", 24, spoil=spoil)
    packs = stream(config(path), lanes=1)
    assert packs.skipped == {}
    for _ in range(60):
        next(packs)
    first, second, _ = (f"{path}/{shard.name}" for shard in Manifest.load(path).shards)
    assert packs.skipped == {first: 4, second: 3}


def test_words_of_captions_are_told_where_they_are_few(tmp_path: Path) -> None:
    def caption(i: int, parts: dict[str, Any]) -> None:
        parts["json"]["caption"] = ["A robot, walking.", "a ROBOT on sand"] if i % 2 else "a robot's key"

    folder = write_shards(tmp_path, 10, spoil=caption)
    assert token_dataset.caption_words(folder, 7) == ["a", "key", "on", "robot", "s", "sand", "walking"]
    assert token_dataset.caption_words(folder, 6) == []


def zero(path: Path, number: int) -> None:
    """Spoil the codes of one sample."""
    with tarfile.open(path) as shard:
        member = [member for member in shard if member.name.endswith(".codes.npy")][number]
    content = bytearray(path.read_bytes())
    content[member.offset_data + member.size - 1] ^= 0xFF
    path.write_bytes(content)


def cut(path: Path, number: int) -> None:
    """Spoil the header of a sample's first file: a tar ends there."""
    with tarfile.open(path) as shard:
        member = [member for member in shard if member.name.endswith(".json")][number]
    content = bytearray(path.read_bytes())
    content[member.offset] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("spoiled", [zero, cut])
@pytest.mark.parametrize("lanes", [1, 4, 8])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_shard_damaged_before_a_resume_repeats_and_loses_nothing_that_is_sound(
    folder: str, spoiled: Callable[[Path, int], None], lanes: int, steps: int
) -> None:
    """In one epoch over all lanes: what came before the checkpoint, what waits in it, and what comes afterwards. With
    eight lanes a shard is shared by two, of which one may have read it before and the other reads it now."""
    cfg = config(folder, tasks={"unconditional": 1.0}, length=48, lookahead=2)
    before = Told(cfg, vocabulary=VOCABULARY, text=encode_text, seed=1)
    states = []
    for index in range(lanes):
        lane = Lane(before, index, lanes)
        states.append(json.loads(json.dumps([next(lane)[1] for _ in range(steps)][-1])))
    names = [shard.name for shard in Manifest.load(folder).shards]
    for shard in (0, 2, 5):
        spoiled(Path(folder) / names[shard], 2)
    lost = {2, 18, 42} if spoiled is zero else {*range(2, 8), *range(18, 24), 42, 43}

    after = Told(cfg, vocabulary=VOCABULARY, text=encode_text, seed=1)
    for index, state in enumerate(states):
        lane = Lane(after, index, lanes, state)
        while any(0 in (walk.at.epoch, *waiting(lane)) for walk in lane.walks):
            next(lane)
    came = before.first_epoch + after.first_epoch
    assert {sample: came[sample] for sample in range(44) if sample not in lost} == dict.fromkeys(
        sorted(set(range(44)) - lost), 1
    )
    assert all(came[sample] <= 1 for sample in lost)


class Told(Documents):
    """Counts the samples of the first epoch that get into packs."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.first_epoch: Counter[int] = Counter()

    def pack(self, row: list[Any]) -> Pack:
        self.first_epoch.update(number(parse(made.ids, VOCABULARY)) for at, made in row if at.epoch == 0)
        return super().pack(row)


def waiting(lane: Lane) -> set[int]:
    """The epochs of the documents that wait for a pack."""
    return {epoch for _, epoch, _, _ in lane.state()["waiting"]}


def test_a_document_that_waits_and_is_damaged_before_a_resume_is_told(folder: str) -> None:
    cfg = config(folder, tasks={"unconditional": 1.0}, lookahead=20)
    before = stream(cfg, lanes=1)
    next(before)
    state = before.state()
    shards = [Path(folder) / shard.name for shard in Manifest.load(folder).shards]
    for shard in shards:
        for sample in range(4):
            zero(shard, sample)
    after = stream(cfg, lanes=1, state=state)
    next(after)
    told = after.problems
    assert 0 < told.counts["unsound since the checkpoint"] <= len(state["0"]["waiting"])
    assert all(
        re.fullmatch(rf"{folder}/.*\.tar: sample \d", name) for name in told.names["unsound since the checkpoint"]
    )
