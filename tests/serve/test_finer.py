"""Super-resolution, asked of a server: tile by tile, as it is made here, and no larger than it may be."""

import json
from pathlib import Path

import numpy as np
import pytest

from vpoet.errors import PromptError
from vpoet.generate.clip_file import is_made
from vpoet.generate.model import Model, Request
from vpoet.generate.prompt_file import record
from vpoet.media.video import Video
from vpoet.serve import given
from vpoet.serve.client import Remote

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 10, 20, 3), np.uint8)


@pytest.fixture
def remote(studio_port: int) -> Remote:
    return Remote(f"http://127.0.0.1:{studio_port}")


@pytest.mark.parametrize("more", [{}, {"frames": 4}, {"height": 24, "width": 24, "fps": 4}, {"image": 1}], ids=str)
def test_a_finer_clip_is_that_of_the_model_here(
    remote: Remote, samplers: dict[str, Model], tmp_path: Path, more: dict[str, int]
) -> None:
    kind, name = ("image", "small.png") if "image" in more else ("video", "small.mp4")
    file = tmp_path / name
    Video(PIXELS[: 1 if kind == "image" else 9], 0 if kind == "image" else 8.0).write(file)
    request = Request(prompt="a robot", seed=3, upscale=True, **{**more, kind: file})
    model, sampling = samplers["small"], samplers["small"].sampling()
    (wanted,) = model.sample_batch([request], sampling)
    said: list[str] = []
    clip = remote.wait(remote.ask(request), lambda event: said.append(event["event"]))
    assert np.array_equal(remote.frames(clip), wanted.frames)
    assert (clip["height"], clip["width"], clip["fps"]) == (*wanted.frames.shape[1:3], wanted.fps)
    assert "seen" not in said  # a tile is no picture
    assert clip["surprise"] == []
    made = tmp_path / f"large{file.suffix}"
    remote.fetch(request, clip, made)
    assert is_made(made, record(request, sampling, model))
    assert json.loads(made.with_name(f"{made.name}.json").read_text())["upscale"] is True


def test_what_would_be_too_large_is_told(remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Video(PIXELS, 8.0).write(tmp_path / "small.mp4")
    monkeypatch.setattr(given, "MOST_FINER", 9 * 20 * 40 * 3)
    request = Request(upscale=True, video=tmp_path / "small.mp4")
    remote.wait(remote.ask(request))
    with pytest.raises(PromptError, match="upscale: finer frames may take"):
        remote.wait(remote.ask(Request(upscale=True, video=tmp_path / "small.mp4", width=60)))
    with pytest.raises(PromptError, match="give one of them, and nothing else"):
        remote.ask(Request(upscale=True))
