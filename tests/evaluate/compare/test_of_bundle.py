"""A bundle in place of clips: what is made, how it is kept, and that a kill loses only what was unfinished."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

import vpoet
from vpoet.errors import PromptError
from vpoet.evaluate.compare.clips import Clip, frame_by_frame, is_bundle
from vpoet.evaluate.compare.of_bundle import asked_by, make
from vpoet.evaluate.compare.protocol import Protocol
from vpoet.generate.jobs import Job
from vpoet.generate.model import Model
from vpoet.media.video import Video
from vpoet.processes import Processes

RULES = Protocol(frames=5, fit="none", size=0)
LONG = Protocol(frames=9, fit="none", size=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path_factory.mktemp("b") / "bundle", depth=1, length=120, frames=5, height=16, width=16)


@pytest.fixture(scope="module")
def model(bundle: Path) -> Model:
    return vpoet.load(bundle, device="cpu")


def real(count: int = 3) -> list[Clip]:
    video = Video(np.zeros((5, 16, 16, 3), np.uint8), 8.0)
    return [Clip(f"a/{i}", str(i), lambda fps: frame_by_frame(video, 0), f"a robot {i}") for i in range(count)]


def test_each_real_clips_prompt_makes_a_sample_under_its_name(bundle: Path, model: Model, tmp_path: Path) -> None:
    assert is_bundle(bundle)
    assert not is_bundle(tmp_path)
    asked = asked_by(real(), None, 7, RULES, model, tmp_path / "samples")
    clips = make(model, asked, 2, Processes())
    assert [(clip.name, clip.prompt) for clip in clips] == [(f"a/{i}", f"a robot {i}") for i in range(3)]
    for i, clip in enumerate(clips):
        wanted = model.sample(f"a robot {i}", seed=7 + i)
        assert (clip.read(0).frames == wanted.frames).all()  # lossless
        assert clip.read(0).fps == wanted.fps


def test_a_kill_loses_what_was_unfinished_and_nothing_is_made_twice(model: Model, tmp_path: Path) -> None:
    asked = asked_by(real(), None, 0, RULES, model, tmp_path / "samples")

    def killed(groups: Sequence[Sequence[Job]]) -> Iterator[Sequence[Job]]:
        yield groups[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(model, asked, 1, Processes(), killed)
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "samples").glob("*.mp4")}
    assert len(made) == 1
    seen: list[int] = []

    def watched(groups: Sequence[Sequence[Job]]) -> Sequence[Sequence[Job]]:
        seen.append(len(groups))
        return groups

    clips = make(model, asked, 1, Processes(), watched)
    assert seen == [2]
    assert {file: file.stat().st_mtime_ns for file in made} == made
    assert [clip.content for clip in make(model, asked, 1, Processes())] == [clip.content for clip in clips]


def test_prompts_of_a_file_and_samples_as_long_as_the_protocol(model: Model, tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text('a robot\n{"prompt": "a dog", "seed": 3}\n')
    asked = asked_by(real(), file, 2, RULES, model, tmp_path / "samples")
    assert [(each.prompt, each.seed, each.frames) for _, each, _ in asked] == [("a robot", 2, None), ("a dog", 5, None)]
    clips = make(model, asked, 2, Processes())
    assert [clip.prompt for clip in clips] == ["a robot", "a dog"]
    assert [each.frames for _, each, _ in asked_by(real(), None, 0, LONG, model, tmp_path)] == [9, 9, 9]
    file.write_text('{"prompt": 3}\n')
    with pytest.raises(PromptError, match=r"prompts\.txt:1"):
        asked_by(real(), file, 0, RULES, model, tmp_path)
