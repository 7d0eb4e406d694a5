"""The model that ships: whole, small, and able to do what its card says."""

import numpy as np
import pytest

import vpoet
from vpoet.bundle import PARTS, SHIPPED
from vpoet.generate.model import Model
from vpoet.worlds.platformer.sight import Witness


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
    assert Witness().see(video.frames)["ground"] == "grass"
    assert int(np.abs(np.diff(video.frames.astype(int), axis=0)).max()) > 40  # something moves
