"""The model that ships: whole, small, and able to do what its card says."""

import numpy as np
import pytest

import vpoet
from vpoet.bundle import PARTS, SHIPPED
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.worlds.platformer.world import Platformer


@pytest.fixture(scope="module")
def shipped() -> Model:
    return vpoet.load(device="cpu")


def test_the_shipped_bundle_is_whole_and_small(shipped: Model) -> None:
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted(PARTS)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 25e6
    assert shipped.bundle.hash in (SHIPPED / "card.md").read_text()
    assert shipped.unknown("a robot rides a dragon") == ["rides", "dragon"]


def test_the_shipped_bundle_draws_what_a_prompt_says(shipped: Model) -> None:
    video = shipped.sample("a robot walks right on grass at night", seed=0)
    assert video.frames.shape == (17, 64, 64, 3)
    assert video.fps == 8
    assert Platformer().see(video.frames)["ground"] == "grass"
    assert int(np.abs(np.diff(video.frames.astype(int), axis=0)).max()) > 40  # something moves


def test_a_picture_unlike_the_world_is_told_and_those_of_the_world_are_not(shipped: Model) -> None:
    """Also by another prompt than its own, mirrored, or through a lossy file: only what the world never shows."""
    frames, fields = Platformer(height=64, width=64, fps=8, frames=17).clip(10**9)
    clip = Video(frames, 8)
    mirrored = Video(frames[:, :, ::-1].copy(), 8)
    for prompt in (fields["caption"][0], "", "a zombie jumps on sand"):
        for known in (clip, mirrored):
            assert shipped.unfamiliar(Request(prompt=prompt, video=known)) == []
    noise = Video(np.random.default_rng(0).integers(0, 256, frames.shape, np.uint8), 8)
    for other in (noise, Video(frames[:, ::-1].copy(), 8), Video(frames // 2, 8)):
        assert "unlike anything" in shipped.unfamiliar(Request(prompt="a robot walks right", image=other))[0]
    both = shipped.unfamiliar(Request(image=clip, last=noise))
    assert [told.split(":")[0] for told in both] == ["the last"]
