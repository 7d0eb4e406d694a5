"""Recordings: what is done in a clip survives every step from a list to the documents of a pack, or is told to be lost;
rates, counts, unknown actions and cut files are found out."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.data import recordings
from vpoet.data.clips import ClipSettings
from vpoet.data.encode import Extras, Pace, encode_shard
from vpoet.data.ingest import Result, ingest
from vpoet.data.npy import ints_to_npy
from vpoet.data.shards import Manifest, Problems, Sample, ShardInfo, ShardWriter, read_shard
from vpoet.data.sources import divide, gather
from vpoet.data.token_dataset import TokenDataset, played_space
from vpoet.data.token_documents import Documents
from vpoet.data.token_stream import PackStream, Source, StreamConfig
from vpoet.errors import DataError, HashMismatch
from vpoet.media.video import Video
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.document import Part, parse
from vpoet.sequence.packing import unpack
from vpoet.sequence.vocabulary import Modality, Vocabulary

SETTINGS = ClipSettings(frames=5, fps=10.0, height=16, width=16)
KEYS = {"names": ["noop", "left", "right"]}
SPACE = ActionSpace(names=["noop", "left", "right"])
PLAIN = Vocabulary(text=300, visual=(16, 16), text_hash="text", visual_hash="grey")
VOCABULARY = SPACE.vocabulary(PLAIN)


class Grey:
    """A tokenizer of r frames and 16 x 8 pixels a cell whose codes are the frames' grey."""

    codes = "grey"
    dtype = "fp32"

    def __init__(self, r: int = 1) -> None:
        self.stride = (r, 16, 8)

    def encode(self, video: Any, chunk_cells: int = 4) -> np.ndarray:
        frames = np.asarray(video)[:: self.stride[0]]
        return frames[:, ::16, ::8, 0].astype(np.int32)

    def encode_clips(self, clips: Any, chunk_cells: int = 4) -> list[np.ndarray]:
        return [self.encode(clip) for clip in clips]

    def grid(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        return -(-frames // self.stride[0]), height // self.stride[1], width // self.stride[2]

    def encode_batch(self, clips: Any) -> np.ndarray:
        return np.stack([self.encode(clip) for clip in clips])


def film(path: Path, frames: int = 11, fps: float = 10.0) -> Path:
    """Frame k is grey 10 * k."""
    greys = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 10
    Video(np.broadcast_to(greys, (frames, 16, 16, 3)).copy(), fps).write(path, lossless=True)
    return path


def listed(folder: Path, **fields: Any) -> Path:
    film(folder / "film.mp4")
    (folder / "list.jsonl").write_text(json.dumps({"path": "film.mp4", **fields}))
    return folder / "list.jsonl"


def raw(source: Path, out: Path, settings: ClipSettings = SETTINGS) -> Result:
    return ingest(divide(gather([str(source)])), out, replace(settings, lossless=True))[""]


def samples(folder: Path) -> list[Sample]:
    return [sample for shard in Manifest.load(folder).shards for sample in read_shard(folder / shard.name)]


def encode(folder: Path, out: Path, coder: Any = None) -> Problems:
    problems, manifest = Problems(), Manifest.load(folder)
    out.mkdir()
    for shard in manifest.shards:
        encode_shard(folder, shard, out, coder or Grey(), Extras(), problems, Pace())
    records = [json.loads(path.read_text())["shard"] for path in sorted(out.glob("*.json"))]
    Manifest("tokens", [ShardInfo(**record) for record in records], "grey", manifest.actions).save(out)
    return problems


ACTIONS = [0, 1, 2, 1, 0, 2, 2, 1, 0, 1]
OUTCOMES = {"reward": [0, 0, 1, 0, -1, 0, 0, 0, 0, 0.5], "end": [False] * 9 + [True]}
CAPTIONS = [{"from": 0, "to": 4, "text": "walk"}, {"from": 6, "to": 11, "text": "jump"}]


def documents(folder: Path, tasks: dict[str, float], **settings: Any) -> list[Any]:
    cfg = StreamConfig(sources=[Source(path=str(folder))], tasks=tasks, **{"length": 300, **settings})
    made = Documents(cfg, vocabulary=VOCABULARY, text=lambda text: list(text.encode()), seed=0)
    with PackStream(made, lanes=1, prefetch=0) as stream:
        packs = [pack for _ in range(6) for pack in next(stream)]
    return [parse(sequence.ids, VOCABULARY) for pack in packs for sequence in unpack(pack)]


def test_what_was_done_reaches_the_documents(tmp_path: Path) -> None:
    """From a list, in clips that overlap; each frame keeps the action that led to it, what came of it, its words."""
    told = {"caption": "go", "actions": ACTIONS, "action_space": KEYS, "outcomes": OUTCOMES, "captions": CAPTIONS}
    source = listed(tmp_path, **told)
    result = raw(source, tmp_path / "raw", replace(SETTINGS, frames=6, stride=5))
    assert result.problems.total == 0
    assert Manifest.load(tmp_path / "raw").actions == SPACE
    first, second = (sample.json for sample in samples(tmp_path / "raw"))
    assert (first["actions"], second["actions"]) == (ACTIONS[:5], ACTIONS[5:])
    assert second["outcomes"] == {"reward": [0, 0, 0, 0, 0.5], "end": [False] * 4 + [True]}
    assert first["captions"] == [{"from": 0, "to": 4, "text": "walk"}]
    assert second["captions"] == [{"from": 1, "to": 6, "text": "jump"}]

    assert encode(tmp_path / "raw", tmp_path / "tokens").total == 0
    assert Manifest.load(tmp_path / "tokens").actions == SPACE == played_space([str(tmp_path / "tokens")])
    sample = TokenDataset(tmp_path / "tokens", vocabulary=VOCABULARY).shard(0)[1]
    assert sample.actions is not None
    assert sample.actions.tolist() == [[3], [3], [2], [1], [2]]
    assert sample.timeline == ((0, ""), (1, "jump"))

    found = documents(tmp_path / "tokens", {"play": 1.0}, drop_caption=0.0)
    assert {span.time == 0 for document in found for span in document.spans[1:2]} == {True, False}
    for document in found:
        plays = [span for span in document.spans if span.modality is Modality.PLAY]
        rows = np.concatenate([span.values for span in plays])
        texts = [bytes(span.values.tolist()).decode() for span in document.spans if span.modality is Modality.TEXT]
        assert {span.produced for span in plays} == {Part.OUTCOMES | Part.FRAMES}
        assert {span.grid for span in plays} == {(1, 2)}
        at = rows[0, -1] // 10  # each frame's grey tells its number
        assert rows[:, -1].tolist() == [10 * (at + n) for n in range(len(rows))]
        assert rows[:, 0].tolist() == [0, *(1 + action for action in ACTIONS[at : at + 5])]
        assert rows[:, 1].tolist() == [0, *([3, 3, 4, 3, 2] if at == 0 else [3, 3, 3, 3, 7])]
        assert texts in (["walk", ""] if at == 0 else ["", "jump"], ["go"])
        assert [len(span.values) for span in plays] == ([6] if texts == ["go"] else [4, 2] if at == 0 else [1, 5])


def test_actions_of_files_and_vectors_and_names(tmp_path: Path) -> None:
    """A csv whose cells name a .npy and spell JSON, vectors; names for indices."""
    np.save(tmp_path / "moves.npy", np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2))
    film(tmp_path / "film.mp4")
    text = 'path,actions,action_space\nfilm.mp4,moves.npy,"{""low"": [-1, -1], ""high"": [1, 1]}"\n'
    (tmp_path / "list.csv").write_text(text)
    assert raw(tmp_path / "list.csv", tmp_path / "raw").problems.total == 0
    assert Manifest.load(tmp_path / "raw").actions == ActionSpace(low=[-1, -1], high=[1, 1])
    assert encode(tmp_path / "raw", tmp_path / "tokens").total == 0
    (first, _) = samples(tmp_path / "tokens")
    actions, outcomes = recordings.from_parts(first.parts, ActionSpace(low=[-1, -1], high=[1, 1]))
    assert (actions.shape, outcomes, actions[0].tolist()) == ((4, 2), None, [1, 14])
    (tmp_path / "named.json").write_text(json.dumps([KEYS["names"][action] for action in ACTIONS]))
    raw(listed(tmp_path, actions="named.json", action_space=KEYS), tmp_path / "named")
    encode(tmp_path / "named", tmp_path / "named-tokens")
    assert recordings.from_parts(samples(tmp_path / "named-tokens")[0].parts, SPACE)[0][:, 0].tolist() == [1, 2, 3, 2]


LEFT_OUT = "actions, outcomes and captions in time left out"


@pytest.mark.parametrize(
    ("fields", "fps", "message"),
    [
        (
            {"actions": ACTIONS},
            5.0,
            r"change within the 2 steps of one at 5 frames per second; ingest it at 10 \(--fps 0",
        ),
        ({"actions": ACTIONS}, 4.0, "made at 10 frames per second, which is no multiple of 4; ingest it at 10"),
        ({"actions": ACTIONS}, 20.0, "no multiple of 20"),
        ({"actions": ACTIONS[:9]}, 0.0, "actions: 9 for 11 frames, which have 10 steps"),
        ({"actions": [*ACTIONS, 0]}, 0.0, "11 for 11 frames, which have 10 steps; one is said of each step between"),
        ({"actions": [*ACTIONS[:9], 3]}, 0.0, "step 9: no action 3; there are 0 noop, 1 left, 2 right"),
        ({"actions": "absent.npy"}, 0.0, "absent.npy: No such file"),
        ({"actions": "keys.txt"}, 0.0, "'keys.txt' is no list, no JSON of one, and no name of a .json or .npy"),
        ({"actions": ACTIONS, "action_space": {"names": []}}, 0.0, "action_space: give names"),
        ({"actions": ACTIONS, "outcomes": [0]}, 0.0, 'outcomes is {"reward"'),
        ({"actions": ACTIONS, "outcomes": {"reward": [0] * 10, "end": [False]}}, 0.0, "end: 1 for 11 frames"),
        ({"actions": ACTIONS, "outcomes": {"reward": [None] * 10, "end": [False] * 10}}, 0.0, "a reward is a number"),
        ({"captions": [{"from": 3, "to": 3, "text": "x"}]}, 0.0, "captions: 3 to 3"),
        (
            {"actions": [0] * 10, "outcomes": {"reward": [1e308] * 10, "end": [False] * 10}},
            5.0,
            "rewards too large to add up; ingest it at 10",
        ),
        ({"captions": [*CAPTIONS, {"from": 10, "to": 12, "text": "x"}]}, 0.0, "captions: two speak of frame 10"),
    ],
)
def test_what_does_not_fit_the_frames_is_told_and_the_clips_are_kept(
    tmp_path: Path, fields: dict[str, Any], fps: float, message: str
) -> None:
    result = raw(listed(tmp_path, **{"action_space": KEYS, **fields}), tmp_path / "raw", replace(SETTINGS, fps=fps))
    assert result.problems.counts == {LEFT_OUT: 1}
    (told,) = result.problems.names[LEFT_OUT]
    with pytest.raises(DataError, match=message):
        raise DataError(told)
    for sample in samples(tmp_path / "raw"):
        assert not {"actions", "outcomes", "captions", "action_space"} & sample.json.keys()


def test_a_recording_that_was_cut_short_is_found_out(tmp_path: Path) -> None:
    source = listed(tmp_path, actions=ACTIONS, action_space=KEYS)
    film(tmp_path / "film.mp4", frames=8)
    (told,) = raw(source, tmp_path / "raw").problems.names[LEFT_OUT]
    assert "actions: 10 for 8 frames, which have 7 steps" in told


def test_a_key_that_is_held_through_a_longer_step_is_kept_at_the_lower_rate(tmp_path: Path) -> None:
    held = {"actions": [0, 0, 1, 1, 2, 2, 0, 0, 1, 1], "action_space": KEYS, "outcomes": OUTCOMES, "captions": CAPTIONS}
    raw(listed(tmp_path, **held), tmp_path / "raw", replace(SETTINGS, fps=5.0, frames=6))
    (sample,) = samples(tmp_path / "raw")
    assert sample.json["actions"] == [0, 1, 2, 0, 1]
    assert sample.json["outcomes"] == {"reward": [0, 1, -1, 0, 0.5], "end": [False] * 4 + [True]}
    assert sample.json["captions"] == [{"from": 0, "to": 2, "text": "walk"}, {"from": 3, "to": 6, "text": "jump"}]
    greys = Video.read(sample.video).frames[:, 0, 0, 0]
    assert greys.tolist() == [0, 20, 40, 60, 80, 100]


def test_two_action_spaces_in_one_set_are_refused(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4")
    spaces = [KEYS, {"names": ["noop", "jump", "right"]}]
    rows = [{"path": "film.mp4", "actions": ACTIONS, "action_space": space} for space in spaces]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"different action spaces, .*left.* and .*jump.*: ingest each into a folder"):
        raw(tmp_path / "list.jsonl", tmp_path / "raw")


def test_a_second_run_knows_the_actions_of_the_first(tmp_path: Path) -> None:
    source = listed(tmp_path, actions=ACTIONS, action_space=KEYS)
    first = raw(source, tmp_path / "raw")
    (tmp_path / "raw/manifest.json").unlink()
    assert raw(source, tmp_path / "raw") == first
    assert Manifest.load(tmp_path / "raw").actions == SPACE


def write(folder: Path, spoil: Callable[[dict[str, Any]], None] = lambda parts: None, **manifest: Any) -> Path:
    """Token shards of one recording of 4 frames."""
    parts: dict[str, Any] = {
        "codes.npy": np.arange(8, dtype=np.int32).reshape(4, 1, 2),
        "actions.npy": ints_to_npy(np.array([[1], [2], [3]])),
        "outcomes.npy": ints_to_npy(np.array([3, 3, 7])),
        "json": {"fps": 8, "frames": 4, "actions": [0, 1, 2], "action_space": KEYS, "tokenizer": "grey"},
    }
    spoil(parts)
    with ShardWriter(folder, kind="tokens", tokenizer="grey") as writer:
        writer.write("a", parts)
    Manifest("tokens", writer.shards, "grey", **{"actions": SPACE, **manifest}).save(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("actions.npy", ints_to_npy(np.array([[1], [2], [4]])), "broken actions"),
        ("actions.npy", ints_to_npy(np.array([[1, 1]] * 3)), "broken actions"),
        ("actions.npy", b"", "broken actions"),
        ("actions.npy", ints_to_npy(np.array([[1], [2]])), "broken actions"),
        ("outcomes.npy", ints_to_npy(np.array([3, 3, 8])), "broken actions"),
        ("outcomes.npy", ints_to_npy(np.array([3, 3])), "broken actions"),
        ("json", {"actions": [0], "action_space": {"names": ["a", "b", "c"]}, "fps": 8}, "of another space"),
        ("json", {"captions": [{"from": 0, "to": 9, "text": "x"}], "fps": 8, "frames": 4}, "broken captions"),
    ],
)
def test_broken_recordings_are_skipped_and_counted(tmp_path: Path, name: str, value: Any, reason: str) -> None:
    def spoil(parts: dict[str, Any]) -> None:
        parts[name] = value
        if name == "actions.npy" and value == ints_to_npy(np.array([[1], [2]])):
            del parts["outcomes.npy"]
        if name == "json" and "captions" in value:
            del parts["actions.npy"], parts["outcomes.npy"]

    problems = Problems()
    assert TokenDataset(write(tmp_path / "t", spoil), vocabulary=VOCABULARY, problems=problems).shard(0) == []
    (told,) = problems.counts
    assert reason in told or told == "actions of other codes"


def test_codes_of_several_frames_a_cell_cannot_be_played_and_the_remedy_is_named(tmp_path: Path) -> None:
    source = listed(tmp_path, actions=ACTIONS, action_space=KEYS)
    raw(source, tmp_path / "raw")
    encode(tmp_path / "raw", tmp_path / "tokens", Grey(4))
    with pytest.raises(DataError, match=r"a cell of these codes stands for 4: play cannot .* for instance 1x8x8"):
        documents(tmp_path / "tokens", {"play": 1.0, "t2v": 1.0})
    assert {document.task for document in documents(tmp_path / "tokens", {"t2v": 1.0})} == {"t2v"}


@pytest.mark.parametrize("task", ["play", "inverse", "policy", "timeline", "interleaved"])
def test_tasks_that_no_sample_is_fit_for_are_refused(tmp_path: Path, task: str) -> None:
    def spoil(parts: dict[str, Any]) -> None:
        del parts["actions.npy"], parts["outcomes.npy"]

    with pytest.raises(DataError, match=f"{task}: needs .*, and the first shard of no source has any; `vpoet ingest`"):
        documents(write(tmp_path / "tokens", spoil), {task: 1.0, "t2v": 1.0})


def test_a_model_that_does_not_play_reads_recordings_as_clips(tmp_path: Path) -> None:
    (sample,) = TokenDataset(write(tmp_path / "tokens"), vocabulary=PLAIN).shard(0)
    assert (sample.actions, sample.outcomes, sample.codes.shape) == (None, None, (4, 1, 2))


def test_shards_of_another_action_space_than_the_models_are_refused(tmp_path: Path) -> None:
    other = ActionSpace(low=[0.0], high=[1.0]).vocabulary(PLAIN)
    with pytest.raises(HashMismatch, match=r"its actions are .*left.*, and the vocabulary has others"):
        TokenDataset(write(tmp_path / "tokens"), vocabulary=other)
    another = write(tmp_path / "more", actions=ActionSpace(names=["a"]))
    with pytest.raises(DataError, match=r"more: other actions, .* than those of .*tokens.*: a model has one"):
        played_space([str(tmp_path / "tokens"), str(tmp_path / "absent"), str(another)])


def test_long_recordings_train_by_stretches_and_no_other_task(tmp_path: Path) -> None:
    def long(parts: dict[str, Any]) -> None:
        parts["codes.npy"] = np.arange(600, dtype=np.int32).reshape(300, 1, 2) % 256
        parts["actions.npy"] = ints_to_npy(np.ones((299, 1), dtype=np.int32))
        del parts["outcomes.npy"]

    found = documents(write(tmp_path / "tokens", long), {"play": 1.0, "inverse": 1.0, "t2v": 1.0}, length=120)
    assert {document.task for document in found} == {"play", "inverse"}
    assert len({int(document.codes()[0, 0, 0]) for document in found}) > 3


@pytest.mark.parametrize(
    ("frames", "cells", "told", "expected"),
    [
        (9, 9, [(0, 4, "a"), (4, 9, "b")], ((0, "a"), (4, "b"))),
        (9, 3, [(0, 4, "a"), (4, 9, "b")], ((0, "a"), (2, "b"))),  # cells begin with frames 0, 1 and 5
        (9, 3, [(0, 3, "a"), (3, 9, "b")], ((0, "a"), (1, "b"))),  # 3 is as near to 1: the earlier
        (9, 3, [(3, 6, "a")], ((0, ""), (1, "a"), (2, ""))),
        (9, 3, [(0, 5, "a"), (5, 6, "b"), (6, 9, "c")], ((0, "a"), (2, "c"))),
        (9, 9, [(6, 9, "b"), (0, 2, "a")], ((0, "a"), (2, ""), (6, "b"))),
    ],
)
def test_captions_in_time_begin_with_the_nearest_cell(
    frames: int, cells: int, told: list[tuple[int, int, str]], expected: tuple[tuple[int, str], ...]
) -> None:
    captions = [{"from": first, "to": behind, "text": text} for first, behind, text in told]
    assert recordings.timeline({"captions": captions}, frames, cells) == expected


def test_captions_that_are_no_timeline_are_left_alone(tmp_path: Path) -> None:
    raw(listed(tmp_path, captions=["one", "two"]), tmp_path / "raw")
    assert samples(tmp_path / "raw")[0].json["captions"] == ["one", "two"]
    assert recordings.timeline({"captions": ["one", "two"]}, 5, 5) is None


def test_timelines_train(tmp_path: Path) -> None:
    raw(listed(tmp_path, captions=CAPTIONS), tmp_path / "raw", replace(SETTINGS, frames=11))
    encode(tmp_path / "raw", tmp_path / "tokens")
    found = documents(tmp_path / "tokens", {"timeline": 1.0}, drop_caption=0.5)
    texts = {tuple(bytes(span.values.tolist()).decode() for span in document.spans[::2]) for document in found}
    assert texts == {("walk", "", "jump"), ("", "", "")}
    assert {tuple((span.time, len(span.values)) for span in document.spans[1::2]) for document in found} == {
        ((0, 4), (4, 2), (6, 5))
    }
