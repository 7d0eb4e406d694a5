"""`sample/complete.py` as a user runs it, and `Model.complete` and `Model.play`, on bundles of random weights."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vpoet
from vpoet.errors import BackendError, DataError, PromptError, ShapeError, VpoetError
from vpoet.generate.live import live
from vpoet.generate.model import Model, Request, StepCompiler
from vpoet.media.video import Video
from vpoet.sequence.actions import ActionSpace

Program = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.filterwarnings("ignore:a text was not ended:vpoet.errors.VpoetWarning")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("complete")
    return make_bundle(folder, depth=1, length=200, frames=5, height=16, width=16, tasks=["interleaved"])


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return vpoet.load(bundle, device="cpu")


def clip(frames: int, fps: float) -> Video:
    return Video(np.random.default_rng(frames).integers(0, 256, (frames, 24, 20, 3), np.uint8), fps)


def test_text_image_video_and_text_again_are_sampled_back_in_order(
    bundle: Path, tmp_path: Path, program: Program
) -> None:
    clip(1, 0).write(tmp_path / "robot.png")
    segments = [{"text": "a robot"}, {"image": "robot.png"}, {"text": None}, {"video": None}, {"text": None}]
    (tmp_path / "story.json").write_text(json.dumps(segments))
    out, again = tmp_path / "out", tmp_path / "again"
    for folder in (out, again):
        arguments = (tmp_path / "story.json", "--model", bundle, "--out", folder, "--longest", 9, "--seed", 4, "--json")
        status, stdout, err = program("sample/complete.py", *arguments)
        assert status == 0, err
    told = json.loads((out / "segments.json").read_text())
    assert json.loads(stdout)["segments"] == told
    assert [next(iter(each)) for each in told] == ["text", "image", "text", "video", "text"]
    assert [each["target"] for each in told] == [False, False, True, True, True]
    assert told[0]["text"] == "a robot"
    assert Video.read(out / told[1]["image"]).frames.shape == (1, 16, 16, 3)
    video = Video.read(out / told[3]["video"])
    assert (video.frames.shape, video.fps) == ((5, 16, 16, 3), 8)
    assert "3 made: " in err
    for name in ("segments.json", "3.mp4"):
        assert (out / name).read_bytes() == (again / name).read_bytes()


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_score_of_a_completion_is_what_it_was_sampled_with(model: Model, guidance: float) -> None:
    segments = [
        {"text": None},
        {"video": clip(5, 8.0)},
        {"image": None},
        {"text": "a hero"},
        {"video": None, "frames": 9},
    ]
    made = model.complete(segments, seed=2, longest=8, guidance=guidance)
    (nats,) = model.token_nats([made.decoded.document])
    np.testing.assert_allclose(nats, made.decoded.nats, atol=1e-4)
    shapes = [part.frames.shape if isinstance(part, Video) else part for part in made.parts]
    assert shapes[1:] == [(5, 16, 16, 3), (1, 16, 16, 3), "a hero", (9, 16, 16, 3)]
    other = model.complete(segments, seed=3, longest=8, guidance=guidance)
    assert not other.decoded.document.equals(made.decoded.document)


@pytest.mark.parametrize(
    ("segments", "error", "message"),
    [
        ([{"text": "a"}, {"image": clip(1, 0)}], PromptError, "nothing is to be made"),
        ([{"text": "a", "image": None}], PromptError, "segment 0: says one of text, image and video"),
        ([{"text": None}, {"image": None, "frames": 3}], PromptError, "segment 1: says one of"),
        ([{"sound": None}], PromptError, "segment 0: says one of"),
        ([{"text": 3}], PromptError, "segment 0: a text is given as one, not as 3"),
        ([{"video": 7}], PromptError, "segment 0: the video is a file's name"),
        ([{"video": None, "frames": 3}], VpoetError, "segment 0: .*3"),
        ([{"video": "missing.mp4"}, {"text": None}], DataError, "segment 0: missing.mp4"),
        ([{"video": None, "frames": 4 * 10**12 + 1}], ShapeError, "segment 0: length = 1000000000001 does not fit"),
        ([{"video": None, "frames": 401}], ShapeError, r"take \d+ tokens, and this model was trained on at most 200"),
    ],
)
def test_what_cannot_be_completed_is_told(
    model: Model, segments: list[dict[str, object]], error: type[VpoetError], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.complete(segments)


def test_a_video_whose_frames_are_null_has_those_of_the_model(model: Model) -> None:
    assert len(model.complete([{"video": None, "frames": None}]).parts[0]) == 5


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"longest": 1.5}, {"longest": True}])
def test_a_seed_or_length_that_is_none_is_told(model: Model, wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(PromptError, match=f"{name} = "):
        model.complete([{"text": None}], **wrong)


def test_a_file_that_is_no_list_of_segments_is_told(bundle: Path, tmp_path: Path, program: Program) -> None:
    for text, message in (("{}", "a list of segments"), ("[1]", "a list of segments"), ("[", "json")):
        (tmp_path / "story.json").write_text(text)
        status, _, err = program(
            "sample/complete.py", tmp_path / "story.json", "--model", bundle, "--out", tmp_path / "x"
        )
        assert status == 2
        assert message in err.lower()
    status, _, err = program("sample/complete.py", tmp_path / "no.json", "--model", bundle, "--out", tmp_path / "x")
    assert (status, "no.json: No such file" in err) == (2, True)


def test_a_model_that_was_trained_for_other_tasks_says_so(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    model = vpoet.load(make_bundle(tmp_path, depth=1), device="cpu")
    with pytest.raises(PromptError, match="not trained for play; it was for"):
        model.play("a robot")
    model.bundle.config.tasks = ["t2v"]
    with pytest.raises(PromptError, match=r"not trained for interleaved .* it was for t2v"):
        model.complete([{"text": None}])
    model.bundle.config.tasks, model.bundle.config.actions = ["play"], ActionSpace(names=["left"])
    with pytest.raises(PromptError, match="train a tokenizer with time_stride 1"):
        model.play("a robot")


def test_what_steps_in_batches_cannot_do_is_told(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    folder = make_bundle(tmp_path, depth=1, frames=5, height=16, width=16, window=1)
    request = Request(prompt="a robot")
    compiled = vpoet.load(folder, device="cpu", compiler=StepCompiler())
    with pytest.raises(BackendError, match="decode this uncompiled"):
        compiled.decode([compiled.document(request)], [0])
    model = vpoet.load(folder, device="cpu")
    with pytest.raises(PromptError, match="trained with a window cannot be watched"):
        next(live(model, request))
    video = model.sample("a robot")
    assert video.frames.shape == (5, 16, 16, 3)
    (one,) = model.decode([model.document(request)], [0])
    (score,) = model.likelihoods([one.document])
    assert score.total.nats == pytest.approx(float(one.nats.sum()), abs=1e-3)


def test_a_world_is_played_from_its_bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    space = ActionSpace(names=["left", "right"])
    folder = make_bundle(
        tmp_path, depth=1, time_stride=1, length=100, height=16, width=16, tasks=["play"], actions=space, window=3
    )
    model = vpoet.load(folder, device="cpu")
    world, same, other = (model.play("a robot", seed=seed, temperature=0.9) for seed in (1, 1, 2))
    assert world.actions == ("left", "right")
    assert world.frame.shape == (16, 16, 3)
    assert np.array_equal(world.frame, same.frame)
    shown = []
    for one in (world, same, other):
        frames, forked = [], []
        for step in range(12):
            one.outcome = "unknown"  # random weights say at random that this is the end
            if step == 9:
                fork = one.fork()
                forked = [fork.step(step % 2)[0] for _ in range(1)]
            frames.append(one.step(step % 2)[0])
        assert np.array_equal(forked[0], frames[9])
        shown.append(np.stack(frames))
    assert np.array_equal(shown[0], shown[1])
    assert not np.array_equal(shown[0], shown[2])
    whole = model.bundle.video.decode(np.stack([world.codes, world.codes]))
    assert whole.shape[1:] == world.frame.shape
