"""Requests with controls: what they come to, what records say, and what is wrong with those that cannot be served."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.errors import DataError, PromptError, VpoetWarning
from vpoet.generate.jobs import linked, requests_of
from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model, load
from vpoet.generate.prompt_file import BEFORE, files_of, names_before, read_prompts, record
from vpoet.generate.request import AUTO, ControlClip, Request, read_controls
from vpoet.media import control
from vpoet.media.video import Video

CLIP = Video(np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8), 8.0)
EDGES = Video(control.edges(CLIP.frames), 8.0)
DEPTH = Video(np.random.default_rng(1).integers(0, 256, (9, 16, 24, 1), np.uint8).repeat(3, -1), 8.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    sizes = {"depth": 1, "length": 200, "frames": 9, "height": 16, "width": 24}
    return load(make_bundle(tmp_path_factory.mktemp("asks"), controls="edges depth flow", **sizes), device="cpu")


def asked(*controls: ControlClip, **more: Any) -> Request:
    return Request(**{"prompt": "a robot", "control": controls, **more})


def edges(strength: float = 1.0, clip: Any = EDGES) -> ControlClip:
    return ControlClip("edges", clip, strength)


def test_a_control_is_read_as_it_is_written() -> None:
    found = read_controls(["edges=clip.mp4:0.7", "depth = a:b.mp4", "flow=auto", "pose=x.mp4:1"])
    assert [(c.kind, c.clip, c.strength) for c in found] == [
        ("edges", Path("clip.mp4"), 0.7),
        ("depth", Path("a:b.mp4"), 1.0),
        ("flow", AUTO, 1.0),
        ("pose", Path("x.mp4"), 1.0),
    ]
    for wrong, why in (
        ("edges", "KIND=FILE"),
        ("=x.mp4", "KIND=FILE"),
        ("edge=x.mp4", "did you mean 'edges'"),
        ("edges=x.mp4:1.5", "must be 0 to 1"),
    ):
        with pytest.raises(PromptError, match=why):
            read_controls([wrong])


def test_the_document_has_the_codes_of_the_pictures(model: Model) -> None:
    document = model.document(asked(edges(0.7), ControlClip("depth", DEPTH)))
    assert [(c.kind, c.strength) for c in document.controls] == [("edges", 0.7), ("depth", 1.0)]
    assert np.array_equal(document.controls[0].codes, model.bundle.video.encode(EDGES))
    assert np.array_equal(document.controls[1].codes, model.bundle.video.encode(DEPTH))
    assert model.document(asked(edges(0.0))).equals(model.document(asked()))


def test_a_file_is_taken_at_the_clips_rate(model: Model, tmp_path: Path) -> None:
    Video(EDGES.frames.repeat(2, 0), 16.0).write(tmp_path / "edges.mp4", lossless=True)
    document = model.document(asked(edges(clip=tmp_path / "edges.mp4")))
    assert np.array_equal(document.controls[0].codes, model.bundle.video.encode(EDGES))


def test_auto_draws_a_video_anew_under_its_own_signal(model: Model) -> None:
    """The video itself is not given; it is made of it, and of an edited clip, as the file would have it."""
    document = model.document(asked(edges(clip=AUTO), video=CLIP))
    assert document.task == "t2v"
    assert document.equals(model.document(asked(edges())))
    with pytest.warns(VpoetWarning, match="made of the first 5 frames only"):
        image = model.document(asked(edges(clip=AUTO), video=CLIP, frames=5))
    assert image.codes().shape == (2, 2, 3)
    one = Video(CLIP.frames[:1], 0.0)
    assert model.document(asked(edges(clip=AUTO), video=one, frames=1, prompt="")).task == "unconditional"
    codes = model.bundle.video.encode(CLIP)
    rollout = model.rollout(asked(edges(clip=AUTO), edit=Source(codes, 8, "a hero"), strength=0.3))
    assert rollout.document is not None
    made = control.edges(model.bundle.video.decode(codes))
    assert np.array_equal(rollout.document.controls[0].codes, model.bundle.video.encode(made))
    assert not isinstance(rollout.seed, int)
    assert rollout.seed.source.controls == rollout.document.controls


def test_each_task_takes_controls_of_its_whole_clip(model: Model) -> None:
    for more in ({"image": CLIP}, {"video": CLIP, "given_frames": 5}, {"last": CLIP}, {"image": CLIP, "last": CLIP}):
        document = model.document(asked(edges(), **more))
        assert np.array_equal(document.controls[0].codes, model.bundle.video.encode(EDGES)), more
    one = model.document(asked(edges(clip=Video(EDGES.frames[:1], 0)), frames=1))
    assert one.controls[0].codes.shape == (1, 2, 3)


def test_a_long_clip_has_its_controls_cut_for_each_window(model: Model) -> None:
    long = Video(np.concatenate([EDGES.frames, EDGES.frames[1:][::-1]]), 8.0)
    rollout = model.rollout(asked(edges(clip=long), frames=17))
    windows = []
    while rollout.document is not None:
        windows.append(rollout.document)
        (decoded,) = model.decode([rollout.document], [rollout.seed])
        list(rollout.take(decoded.document))
    encode = model.bundle.video.encode
    # windows of 9 frames, each of which is given the last 1 + 4 n of those before it
    wanted = [(0, 9), (8, 17)] if len(windows) == 2 else [(0, 9), (4, 13), (8, 17)]
    for document, (first, stop) in zip(windows, wanted, strict=True):
        assert np.array_equal(document.controls[0].codes, encode(Video(long.frames[first:stop], 8.0)))
    again = model.rollout(asked(edges(clip=AUTO), video=Video(np.concatenate([CLIP.frames] * 2)[:17], 8.0), frames=17))
    assert again.document is not None
    assert again.document.task == "t2v"
    picture = model.rollout(asked(edges(), via_image=True, frames=9))
    assert picture.document is not None
    assert picture.document.controls[0].codes.shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (asked(ControlClip("pose", EDGES)), "control pose: this model does not read it, it reads edges, depth, flow"),
        (asked(edges(), edges(0.5)), "control edges: given twice"),
        (asked(edges(clip=Video(EDGES.frames[:5], 8))), "has 5 frames at 8 fps, and the clip 9: they must agree"),
        (asked(edges(), frames=5), "has more frames at 8 fps, and the clip 5"),
        (asked(edges(clip=Video(EDGES.frames[:, :8], 8))), "has 8x24 pixels, and the clip 16x24"),
        (asked(edges(clip=CLIP)), "the clip is no picture of edges: it has colours"),
        (asked(edges(clip=AUTO)), "of which clip"),
        (asked(edges(clip=AUTO), video=CLIP, task="continuation"), "of which clip"),
        (asked(edges(clip=AUTO), image=CLIP), "of which clip"),
        (asked(ControlClip("depth", AUTO), video=CLIP), "depth is not made of pixels"),
        (asked(edges(clip=AUTO), video=Video(CLIP.frames[:5], 8)), "has 5 frames at 8 fps, and the clip 9"),
    ],
)
def test_what_cannot_be_served_is_told(model: Model, request_: Request, why: str) -> None:
    with pytest.raises(PromptError, match=why):
        model.rollout(request_)


def test_a_model_that_reads_none_says_how_it_learns(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bare = load(make_bundle(tmp_path / "bare", depth=1, frames=9, height=16, width=24, length=200), device="cpu")
    with pytest.raises(PromptError, match=r"it reads none; `vpoet finetune --controls` teaches"):
        bare.document(asked(edges()))


def test_a_file_that_is_not_there_is_told(model: Model, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.mp4: no such file"):
        model.document(asked(edges(clip=tmp_path / "gone.mp4")))


def test_records_tell_controls_and_say_nothing_where_there_are_none(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "edges.mp4"
    EDGES.write(file)
    told = record(asked(edges(0.7, file), ControlClip("flow", AUTO)), model.sampling(), model)
    first, second = told["control"]
    assert (first["kind"], first["strength"], first["clip"]["file"]) == ("edges", 0.7, str(file))
    assert len(first["clip"]["sha256"]) == 64
    assert second == {"kind": "flow", "clip": AUTO, "strength": 1.0}
    assert "control" not in record(asked(), model.sampling(), model)
    assert files_of(asked(edges(clip=file), ControlClip("flow", AUTO))) == [file]
    with pytest.raises(DataError, match="edges not readable"):
        record(asked(edges(clip=tmp_path / "gone.mp4")), model.sampling(), model)


def test_prompt_files_name_controls_relative_to_themselves_and_in_chains(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    lines: list[Any] = [
        {"prompt": "a robot", "control": ["edges=e.mp4:0.5", "flow=auto"], "video": "v.mp4"},
        [{"prompt": "a robot"}, {"prompt": "a hero", "control": ["edges=auto"], "video": "-"}],
        [{"prompt": "a robot"}, {"prompt": "a hero", "control": ["grey=-:0.4"]}],
        {"prompt": "a robot", "control": ["edges"]},
        {"prompt": "a robot", "control": "edges=e.mp4"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    found, problems = read_prompts(file, {})
    first = found[0][1].control
    assert [(c.kind, c.clip, c.strength) for c in first] == [("edges", tmp_path / "e.mp4", 0.5), ("flow", AUTO, 1.0)]
    assert (found[2][1].video, found[2][1].control[0].clip) == (BEFORE, AUTO)
    assert names_before(found[4][1]) == ["control"]
    assert [problem.partition(": ")[0].rpartition(":")[2] for problem in problems] == ["4", "5"]
    several, _ = requests_of([], file, {}, 2)
    files = [tmp_path / f"{i}.mp4" for i in range(len(several))]
    each = [request for _, request in linked(several, files)]
    after = next(i for i, request in enumerate(each) if request.control and request.control[0].kind == "grey")
    assert (each[after].control[0].clip, each[after].control[0].strength) == (files[after - 1], 0.4)
    assert replace(each[0]).control == each[0].control
