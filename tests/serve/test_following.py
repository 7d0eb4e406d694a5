"""Controls and conditions of a model that has learnt them, and what is warned of: told to who asks a server."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.errors import PromptError
from vpoet.generate.clip_file import is_made
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import record
from vpoet.generate.request import AUTO, ControlClip, read_controls
from vpoet.media.control import MAKERS
from vpoet.media.video import Video
from vpoet.serve.client import Remote

CLIP = Video(np.random.default_rng(0).integers(0, 256, (16, 20, 30, 3), np.uint8), 12.0)


@pytest.fixture
def remote(following_port: int) -> Remote:
    return Remote(f"http://127.0.0.1:{following_port}")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """A clip whose rate and size are not the model's, and controls that fit to it."""
    small = np.random.default_rng(1).integers(0, 256, (9, 16, 24, 3), np.uint8)
    edges, depth = MAKERS["edges"](small), MAKERS["grey"](small)
    CLIP.write(tmp_path / "clip.mp4")
    for name, clip in {
        "edges.webp": Video(edges, 8.0), "depth.webp": Video(depth, 8.0), "still.png": Video(edges[:1], 0),
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(clip.encode(f".{name.partition('.')[2]}", lossless=True))
    return {path.name: path for path in tmp_path.iterdir() if path.is_file()}


def controls(files: dict[str, Path], *texts: str) -> tuple[ControlClip, ...]:
    """As the command line has them, of files by their names."""
    read = read_controls(texts)
    return tuple(each if each.clip == AUTO else replace(each, clip=files[str(each.clip)]) for each in read)


@pytest.mark.filterwarnings("ignore::vpoet.errors.VpoetWarning")
@pytest.mark.parametrize(
    ("texts", "fields"),
    [
        (["edges=edges.webp:0.25"], {}),
        (["edges=still.png"], {"frames": 1, "seed": 6}),
        (["edges=auto:0.7"], {"video": "clip.mp4"}),
        (["edges=auto", "depth=depth.webp:0.00001"], {"video": "clip.mp4", "motion": 1.5}),
        (["depth=depth.webp"], {"image": "clip.mp4"}),
        (["edges=auto", "depth=depth.webp:0.5"], {"edit": "clip.mp4", "was": "a hero", "strength": 1.0, "frames": 9}),
    ],
    ids=str,
)
def test_a_clip_follows_as_it_does_here(
    remote: Remote, follower: Model, files: dict[str, Path], tmp_path: Path, texts: list[str], fields: dict[str, Any]
) -> None:
    given = {"seed": 5} | {name: files.get(str(value), value) for name, value in fields.items()}
    request = Request(prompt="a robot walks", control=controls(files, *texts), **given)
    model, sampling = follower, follower.sampling()
    (wanted,) = model.sample_batch([request], sampling)
    clip = remote.wait(remote.ask(request))
    assert np.array_equal(remote.frames(clip), wanted.frames)
    bare = replace(request, control=(), video=None)
    assert not np.array_equal(wanted.frames, model.sample_batch([bare], sampling)[0].frames)
    remote.fetch(request, clip, tmp_path / "made.mp4")
    told = record(request, sampling, model) | ({"shows": "a hero"} if request.edit else {})
    assert is_made(tmp_path / "made.mp4", told)


def test_what_is_wrong_with_them_is_told(remote: Remote, follower: Model, files: dict[str, Path]) -> None:
    sent = {name: remote.upload(path) for name, path in files.items()}

    def refused(**asked: Any) -> str:
        body = json.dumps({"prompt": "a robot", **asked}).encode()
        with pytest.raises(PromptError) as told:
            remote.wait(json.loads(remote._ask("POST", "/api/jobs", body).read())["jobs"][0]["id"])
        return str(told.value)

    edges = f"edges={sent['edges.webp']}"
    for asked, said in (
        ({"control": [f"flow={sent['edges.webp']}"]}, "control flow: this model does not read it"),
        ({"control": [edges, edges]}, "control edges: given twice"),
        ({"control": ["edges=/etc/passwd"]}, "control edges: no such upload"),
        ({"control": [f"{edges}:2"]}, "control edges: strength 2.0: it must be 0 to 1"),
        ({"control": ["edges"]}, "a control is KIND=FILE"),
        ({"control": [1]}, "control: a clip has at most"),
        ({"control": [f"edges={'a' * 300}"]}, "control: a clip has at most"),
        ({"control": "edges=auto"}, "must be of type list"),
        ({"control": ["edges=auto"]}, "of which clip?"),
        ({"control": ["depth=auto"], "video": sent["clip.mp4"]}, "depth is not made of pixels"),
        ({"control": [f"edges={sent['clip.mp4']}"]}, "has more frames at 8 fps, and the clip 9"),
        ({"control": [f"edges={sent['depth.webp']}"]}, "is no picture of edges"),
        ({"quality": 0.5}, "not learnt to be asked for quality"),
    ):
        assert said in refused(**asked)
    told = remote.models()[0]
    assert (told["controls"], told["makes"]) == (["edges", "depth"], ["edges"])
    choices = told["conditions"]["motion"]["choices"]
    learnt = follower.bundle.config.conditions["motion"]
    assert [learnt.bucket(each["value"]) for each in choices] == [0, 1, 2]
    assert [each["words"] for each in choices] == ["below 1", "1 to 2", "2 to 4"]


def test_what_is_warned_of_is_told_to_who_asks_each_time_and_kept(
    remote: Remote, follower: Model, files: dict[str, Path]
) -> None:
    strange = np.random.default_rng(2).integers(0, 256, (1, 16, 24, 3), np.uint8)
    Video(strange, 0).write(files["still.png"])
    edit = Request(prompt="a xyzzy walks", edit=files["clip.mp4"], was="a hero", motion=9.0)
    for request, more, wanted in (
        (
            edit,
            {"top_k": 1},
            [
                "words that this model never met: xyzzy",
                "the clip: edited from 20x30 to 16x24 pixels, from 12 to 8 frames per second",
                "motion = 9: no clip that this model was trained on has motion 4 or more",
                "the clip: edited the first 9 frames only",
                "18 codes of the clip",
            ],
        ),
        (
            Request(prompt="a robot", control=controls(files, "edges=auto"), video=files["clip.mp4"]),
            {},
            ["first 9 frames only"],
        ),
        (Request(prompt="a robot"), {}, []),
    ):
        for _ in range(2):
            events: list[dict[str, Any]] = []
            clip = remote.wait(remote.ask(request, **more), events.append)
            said = [event["warning"] for event in events if event["event"] == "warning"]
            assert clip["warnings"] == remote.clips()[0]["warnings"] == said
            assert len(said) == len(wanted), said
            for told in wanted:
                assert any(told in each for each in said), said


def test_a_picture_unlike_the_training_data_is_told(
    remote: Remote, follower: Model, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Model, "unfamiliar", lambda model, request: [f"unlike: {request.image.frames.shape}"])
    clip = remote.wait(remote.ask(Request(prompt="a robot", image=files["still.png"])))
    assert clip["warnings"] == ["unlike: (1, 16, 24, 3)"]
