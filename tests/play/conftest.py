"""A model of random weights that serves every task, play and its siblings too."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import vpoet
from vpoet.generate.model import Model
from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.playground.physics import ACTIONS


@pytest.fixture(scope="session")
def toy_bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """Frames of 32x32, a grid of 4x4 codes for each, the playground's actions."""
    folder = tmp_path_factory.mktemp("toy")
    keys = ActionSpace(names=list(ACTIONS))
    return make_bundle(folder, depth=1, time_stride=1, length=1600, frames=9, height=32, width=32, actions=keys)


@pytest.fixture(scope="session")
def toy(toy_bundle: Path) -> Model:
    model = vpoet.load(toy_bundle, device="cpu", precision="fp32")
    with torch.no_grad():
        for parameter in model.bundle.transformer.parameters():
            parameter.mul_(8 if parameter.dim() > 1 else 1)  # so that what is done changes what comes of it
    return model
