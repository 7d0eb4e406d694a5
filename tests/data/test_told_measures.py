"""Measures in a clip's json become conditions of its documents, and are left out by chance."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data.measures import joined, learnt, measures_of
from vpoet.data.shards import ShardWriter
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.errors import ConfigError, DataError
from vpoet.sequence.conditions import Condition, Learnt
from vpoet.sequence.document import Document, parse
from vpoet.sequence.packing import unpack
from vpoet.sequence.vocabulary import Vocabulary

VOCABULARY = Vocabulary(text=300, visual=(16, 16), text_hash="text", visual_hash="visual")
CLIPS = 40


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Clip i moves by i/10; every fourth was not measured."""
    with ShardWriter(tmp_path / "tokens", kind="tokens", samples_per_shard=16, tokenizer="visual") as writer:
        for i in range(CLIPS):
            told: dict[str, Any] = {"caption": str(i), "fps": 8.0}
            told |= {"measures": {"motion": i / 10, "sharpness": 10.0 * i, "phash": ["0"]}} if i % 4 else {}
            writer.write(f"{i:04d}", {"codes.npy": np.full((3, 2, 2), i, np.int32), "json": told})
    writer.manifest().save(tmp_path / "tokens")
    return str(tmp_path / "tokens")


def config(folder: str, **changes: Any) -> StreamConfig:
    return StreamConfig(sources=[Source(path=folder)], **{"tasks": {"t2v": 1.0}, "length": 96, **changes})


def made(cfg: StreamConfig, epochs: int = 1) -> list[Document]:
    documents = Documents(cfg, vocabulary=VOCABULARY, text=lambda text: list(text.encode()), seed=1)
    sequences = [
        documents.make(0, epoch, sample)
        for epoch in range(epochs)
        for shard in range(3)
        for sample in documents.sources[0].shard(shard)
    ]
    return [parse(sequence.ids, VOCABULARY) for sequence in sequences if sequence is not None]


def test_each_is_told_in_the_bucket_of_its_measure(folder: str) -> None:
    conditions = {"motion": Condition(), "quality": Condition(measure="sharpness", edges=[100.0, 200.0])}
    found = made(config(folder, conditions=conditions, drop_condition=0.0))
    assert len(found) == CLIPS
    for document in found:
        i = int(document.codes().flat[0])
        motion, quality = conditions["motion"].bucket(i / 10), conditions["quality"].bucket(10.0 * i)
        assert document.conditions == ((("motion", motion), ("quality", quality)) if i % 4 else ())


def test_each_is_left_out_by_its_own_chance(folder: str) -> None:
    """240 measured documents: within 4 standard deviations of a third."""
    conditions = {"motion": Condition(), "quality": Condition(measure="sharpness", edges=[100.0])}
    found = made(config(folder, conditions=conditions, drop_condition=1 / 3), epochs=8)
    measured = [document for document in found if int(document.codes().flat[0]) % 4]
    patterns = {tuple(name for name, _ in document.conditions) for document in measured}
    assert patterns == {(), ("motion",), ("quality",), ("motion", "quality")}
    for name in conditions:
        told = sum(name in dict(document.conditions) for document in measured)
        assert abs(told / len(measured) - 2 / 3) < 4 * (2 / 9 / len(measured)) ** 0.5
    assert all(not document.conditions for document in made(config(folder, conditions=conditions, drop_condition=1.0)))


def test_without_any_documents_are_what_they_were(folder: str) -> None:
    plain = made(config(folder, drop_caption=0.5))
    told = made(config(folder, drop_caption=0.5, drop_condition=0.7))
    assert all(a.equals(b) for a, b in zip(plain, told, strict=True))


def test_a_measure_that_no_clip_has_is_an_error_with_the_remedy(folder: str) -> None:
    cfg = config(folder, conditions={"quality": Condition()})
    documents = Documents(cfg, vocabulary=VOCABULARY, text=lambda text: [], seed=1)
    with pytest.raises(DataError, match=r"conditions.quality: .* the measure aesthetic; `vpoet measure` and"):
        PackStream(documents, lanes=1, prefetch=0)


def test_packs_tell_them(folder: str) -> None:
    documents = Documents(
        config(folder, conditions={"motion": Condition()}, drop_condition=0.0, window=2),
        vocabulary=VOCABULARY, text=lambda text: list(text.encode()), seed=1,
    )  # fmt: skip
    with PackStream(documents, lanes=1, prefetch=0) as stream:
        found = [parse(sequence.ids, VOCABULARY) for sequence in unpack(next(stream)[0])]
    assert any(document.conditions for document in found)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_chance_is_a_probability(folder: str, share: float) -> None:
    with pytest.raises(ConfigError, match="drop_condition"):
        config(folder, drop_condition=share)


@pytest.mark.parametrize(
    "told", [{}, {"measures": None}, {"measures": [1]}, {"measures": {"a": "1", "b": True, "c": float("nan")}}]
)
def test_only_numbers_are_measures(told: dict[str, Any]) -> None:
    assert measures_of(told) == {}
    assert measures_of({"measures": {"motion": 1, "phash": ["0"]}}) == {"motion": 1.0}


def test_a_model_knows_the_buckets_that_its_clips_were_in(folder: str) -> None:
    conditions = {"motion": Condition(measure="motion", edges=[1.0, 2.0, 20.0])}
    known = learnt(conditions, [folder])
    assert known == {"motion": Learnt(measure="motion", edges=[1.0, 2.0, 20.0], met=[0, 1, 2])}
    assert learnt(conditions, [folder, "s3://elsewhere"])["motion"].met == []
    before = {"motion": Learnt(measure="motion", edges=[1.0, 2.0, 20.0], met=[3])}
    assert joined(before, known)["motion"].met == [0, 1, 2, 3]
    assert joined({"motion": Learnt(measure="motion", edges=[5.0], met=[1])}, known) == known
    assert joined(before, {}) == before
