"""A sample of a user's own of text, image, video and text again: from a list to the documents of a pack, in order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import segments
from vpoet.data.clips import ClipSettings
from vpoet.data.encode import Extras, Pace, encode_shard
from vpoet.data.folder import overview
from vpoet.data.ingest import Result, ingest
from vpoet.data.npy import codes_to_npy
from vpoet.data.shards import Manifest, Problems, Sample, ShardInfo, ShardWriter, read_shard
from vpoet.data.sources import divide, gather
from vpoet.data.token_dataset import TokenDataset, caption_words
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.errors import DataError
from vpoet.media.video import Video
from vpoet.sequence.document import Document, parse
from vpoet.sequence.packing import unpack
from vpoet.sequence.vocabulary import Modality, Vocabulary

SETTINGS = ClipSettings(frames=5, fps=10.0, height=16, width=16, lossless=True)
VOCABULARY = Vocabulary(text=300, visual=(16, 16), text_hash="text", visual_hash="grey")


class Grey:
    """A tokenizer of one frame and 16 x 8 pixels a cell whose codes are the frames' grey."""

    codes = "grey"
    dtype = "fp32"
    stride = (1, 16, 8)

    def encode(self, video: Any, chunk_cells: int = 4) -> np.ndarray:
        return np.asarray(video)[:, ::16, ::8, 0].astype(np.int32)

    def encode_clips(self, clips: Any, chunk_cells: int = 4) -> list[np.ndarray]:
        return [self.encode(clip) for clip in clips]

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return -(-frames // self.stride[0]), height // self.stride[1], width // self.stride[2]

    def encode_batch(self, clips: Any) -> np.ndarray:
        return np.stack([self.encode(clip) for clip in clips])


def listed(folder: Path, *rows: Any) -> Path:
    folder.mkdir(exist_ok=True)
    greys = np.arange(12, dtype=np.uint8)[:, None, None, None] * 10
    Video(np.broadcast_to(greys, (12, 16, 16, 3)).copy(), 10.0).write(folder / "film.mp4", lossless=True)
    Video(np.full((1, 32, 32, 3), 99, np.uint8), 0.0).write(folder / "still.png")
    (folder / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "list.jsonl"


STORY = [
    {"text": "a dog"}, {"image": "still.png"}, {"text": "it runs"}, {"video": "film.mp4", "start": 0.3},
    {"text": "the end"},
]  # fmt: skip


def raw(source: Path, out: Path) -> Result:
    return ingest(divide(gather([str(source)])), out, SETTINGS)[""]


def samples(folder: Path) -> list[Sample]:
    return [sample for shard in Manifest.load(folder).shards for sample in read_shard(folder / shard.name)]


def encode(folder: Path, out: Path) -> Problems:
    problems = Problems()
    out.mkdir()
    for shard in Manifest.load(folder).shards:
        encode_shard(folder, shard, out, Grey(), Extras(), problems, Pace())
    records = [json.loads(path.read_text())["shard"] for path in sorted(out.glob("*.json"))]
    Manifest("tokens", [ShardInfo(**record) for record in records], "grey").save(out)
    return problems


def documents(folder: Path, **settings: Any) -> list[Document]:
    values = {"tasks": {"interleaved": 1.0}, "length": 100, "drop_caption": 0.0, **settings}
    cfg = StreamConfig(sources=[Source(path=str(folder))], **values)
    made = Documents(cfg, vocabulary=VOCABULARY, text=lambda text: list(text.encode()), seed=0)
    with PackStream(made, lanes=1, prefetch=0) as stream:
        packs = [pack for _ in range(30) for pack in next(stream)]
    return [parse(sequence.ids, VOCABULARY) for pack in packs for sequence in unpack(pack)]


def told(document: Document) -> list[Any]:
    """Texts, and the greys of images and videos."""
    return [
        bytes(span.values.tolist()).decode()
        if span.modality is Modality.TEXT
        else (str(span.modality), span.values[:, 0, 0].tolist())
        for span in document.spans
    ]


def test_a_story_reaches_the_documents_in_order(tmp_path: Path) -> None:
    source = listed(tmp_path / "in", {"segments": STORY, "license": "CC0", "lab": "x"})
    result = raw(source, tmp_path / "raw")
    assert (result.sources, result.clips, result.problems.total) == (1, 1, 0)
    (sample,) = samples(tmp_path / "raw")
    assert sorted(sample.parts) == ["segment-1.png", "segment-3.mp4"]
    assert sample.json["segments"] == [
        {"text": "a dog"}, {"image": "still.png", "frames": 1}, {"text": "it runs"},
        {"video": "film.mp4", "start": 0.3, "frames": 5, "fps": 10.0}, {"text": "the end"},
    ]  # fmt: skip
    about = {name: sample.json[name] for name in ("license", "lab", "frames", "fps", "source", "height")}
    assert about == {
        "license": "CC0", "lab": "x", "frames": 6, "fps": 10.0, "source": "list.jsonl, entry 1", "height": 16,
    }  # fmt: skip
    assert len(overview(tmp_path / "raw", 3)) == 1, "there is a picture of it"
    assert sample.words == ["a dog", "it runs", "the end"], "the text tokenizer learns them"

    assert encode(tmp_path / "raw", tmp_path / "tokens").total == 0
    assert caption_words(tmp_path / "tokens", 99) == ["a", "dog", "end", "it", "runs", "the"]
    found = documents(tmp_path / "tokens")
    assert {json.dumps(told(document)) for document in found} == {
        json.dumps(["a dog", ("image", [99]), "it runs", ("video", [30, 40, 50, 60, 70]), "the end"])
    }
    assert {tuple(span.target for span in document.spans) for document in found} == {
        (False,) * first + (True,) * (5 - first) for first in range(5)
    }
    assert {span.fps for document in found for span in document.spans} == {0, 10}


def test_targets_that_are_chosen_and_words_that_are_dropped(tmp_path: Path) -> None:
    chosen = [part | {"target": number in (2, 3)} for number, part in enumerate(STORY)]
    raw(listed(tmp_path / "in", {"segments": chosen}), tmp_path / "raw")
    encode(tmp_path / "raw", tmp_path / "tokens")
    for drop, first, last in ((0.0, "a dog", "the end"), (1.0, "", "")):
        for document in documents(tmp_path / "tokens", drop_caption=drop):
            assert [span.target for span in document.spans] == [False, False, True, True, False]
            assert [told(document)[at] for at in (0, 2, 4)] == [first, "it runs", last]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "segments: a list of 1 to 1000"),
        ([{"text": "a"}], "segments: texts alone"),
        ([{"text": "a", "image": "still.png"}], "segment 0: says one of text, image or video"),
        ([{"image": "still.png"}, {}], "segment 1: says one of"),
        ([{"image": 3}], "segment 0: says one of"),
        (["still.png"], "segment 0: says one of"),
        ([{"image": "still.png", "target": 1}], "segment 0: target is true or false, not 1"),
        ([{"video": "film.mp4", "start": -1}], "segment 0: start is a time in seconds, not -1"),
        ([{"video": "film.mp4", "start": 10**400}], "a number that is too long"),
    ],
)
def test_a_row_of_no_segments_is_a_bad_row(tmp_path: Path, parts: Any, message: str) -> None:
    source = listed(tmp_path / "in", {"segments": parts}, {"segments": STORY})
    result = raw(source, tmp_path / "raw")
    assert result.clips == 1
    (reason,) = result.problems.counts
    assert reason.startswith(f"bad row: {message}")
    assert result.problems.names[reason] == ["list.jsonl, entry 1"]


def test_a_sample_of_segments_has_no_steps(tmp_path: Path) -> None:
    about = {"segments": STORY, "actions": [0], "action_space": 5}
    result = raw(listed(tmp_path / "in", about, {"segments": STORY}), tmp_path / "raw")
    assert result.clips == 1
    assert list(result.problems.counts) == [
        "bad row: segments and actions: a sample of segments has no steps; leave one of the two out"
    ]


@pytest.mark.parametrize("path", [5, "/dev/null"])
def test_a_text_is_of_no_file_whatever_its_columns_say(tmp_path: Path, path: Any) -> None:
    result = raw(listed(tmp_path / "in", {"segments": [STORY[0] | {"path": path}, *STORY[1:]]}), tmp_path / "raw")
    assert (result.clips, result.problems.total) == (1, 0)


@pytest.mark.parametrize("column", [[{"text": "a dog", "start": 0.0}], "two", 3])
def test_a_clip_may_have_a_column_of_that_name(tmp_path: Path, column: Any) -> None:
    source = listed(tmp_path / "in", {"path": "film.mp4", "caption": "a dog", "segments": column})
    assert (raw(source, tmp_path / "raw").problems.total, encode(tmp_path / "raw", tmp_path / "tokens").total) == (0, 0)
    dataset = TokenDataset(tmp_path / "tokens", vocabulary=VOCABULARY)
    assert [sample.segments for sample in dataset.shard(0)] == [None] * len(dataset.shard(0)) != []


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"video": "absent.mp4"}, "missing file"),
        ({"video": "film.mp4", "start": 1.0}, "segment 0: a video of 2 frames; a clip has 5 at least"),
        ({"video": "still.png"}, "segment 0: a video of 1 frames"),
        ({"image": "list.jsonl"}, "segment 0: not a video or image"),
    ],
)
def test_files_that_cannot_be_used_are_told(tmp_path: Path, part: Any, reason: str) -> None:
    result = raw(listed(tmp_path / "in", {"segments": [part]}, {"segments": STORY}), tmp_path / "raw")
    assert (result.sources, result.clips) == (2, 1)
    assert reason in f"{result.problems.counts} {result.problems.names}"


def test_a_file_that_comes_back_is_taken_in_by_the_next_run(tmp_path: Path) -> None:
    source = listed(tmp_path / "in", {"segments": STORY}, {"segments": [{"image": "later.png"}]})
    assert raw(source, tmp_path / "raw").clips == 1
    (tmp_path / "in/later.png").write_bytes((tmp_path / "in/still.png").read_bytes())
    assert raw(source, tmp_path / "raw").clips == 2


CODES = codes_to_npy(np.zeros((2, 1, 2), dtype=np.int32))


@pytest.mark.parametrize(
    ("parts", "about", "reason"),
    [
        ({}, [{"video": "a.mp4", "fps": 8}], "broken segments"),
        ({"segment-0.codes.npy": CODES}, [{"video": "a.mp4"}], "broken segments"),
        ({"segment-0.codes.npy": CODES}, [{"image": "a.png"}], "broken segments"),
        ({"segment-0.codes.npy": b"\x93NUMPY"}, [{"video": "a.mp4", "fps": 8}], "broken segments"),
        ({"segment-0.codes.npy": CODES}, [{"video": "a.mp4", "fps": 999}], "fps or grid too large"),
        ({"segment-0.codes.npy": CODES}, "nothing", "broken segments"),
    ],
)
def test_broken_segments_are_skipped_and_counted(tmp_path: Path, parts: Any, about: Any, reason: str) -> None:
    with ShardWriter(tmp_path, kind="tokens", tokenizer="grey") as writer:
        writer.write("a", {**parts, "json": {"segments": about}})
    Manifest("tokens", writer.shards, "grey").save(tmp_path)
    problems = Problems()
    assert TokenDataset(tmp_path, vocabulary=VOCABULARY, problems=problems).shard(0) == []
    (found,) = problems.counts
    assert reason in found


def test_a_segment_that_was_lost_in_a_raw_shard_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing segment-1\.png"):
        segments.encoded({"segments": STORY}, {}, Grey().encode)
