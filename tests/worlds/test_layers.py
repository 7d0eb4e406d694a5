"""The platformer's own control signals: each pixel is of the layer that was drawn there last."""

import numpy as np
import pytest

from vpoet.errors import DataError
from vpoet.worlds import find
from vpoet.worlds.platformer.layers import DEPTH, LAYERS, SEGMENTATION, labels, layer_of
from vpoet.worlds.platformer.scenery import ITEMS
from vpoet.worlds.platformer.world import Platformer

NUMBERS = (1, 2, 5, 8, 11)


@pytest.fixture(scope="module")
def world() -> Platformer:
    return Platformer(frames=5)


@pytest.mark.parametrize("number", NUMBERS)
def test_layers_lie_where_the_boxes_say(world: Platformer, number: int) -> None:
    frames, fields = world.clip(number)
    found = world.control(number, "segmentation")
    assert found.shape == frames.shape
    assert {tuple(colour) for colour in found.reshape(-1, 3)} <= set(SEGMENTATION.values())
    each = labels(found)
    truth = fields["truth"]
    for t, (left, top, right, bottom) in enumerate(truth["boxes"]):
        who = each[t] == LAYERS.index("character")
        assert who[top:bottom, left:right].sum() == who.sum() > 0
        rows, columns = np.flatnonzero(who.any(1)), np.flatnonzero(who.any(0))
        assert max(rows[0] - top, bottom - 1 - rows[-1], columns[0] - left, right - 1 - columns[-1]) <= 1
    assert bool((each == LAYERS.index("creature")).any()) <= bool(truth["creatures"])
    assert (each == LAYERS.index("ground")).any()
    assert bool((each == LAYERS.index("ladder")).any()) == (truth["action"] == "climb")
    assert bool((each == LAYERS.index("backdrop")).any()) == bool(truth["backdrop"])


@pytest.mark.parametrize("number", NUMBERS)
def test_depth_is_the_order_of_the_layers_and_a_pose_lies_within_its_figure(world: Platformer, number: int) -> None:
    each = labels(world.control(number, "segmentation"))
    levels = np.array([DEPTH[layer][0] for layer in LAYERS], np.uint8)
    assert np.array_equal(world.control(number, "depth"), levels[each][..., None].repeat(3, -1))
    assert (np.diff(levels.astype(int)) > 0).all()
    pose = world.control(number, "pose")
    drawn = (pose > 0).any(-1)
    assert 0 < drawn.sum() < np.isin(each, [LAYERS.index("character"), LAYERS.index("creature")]).sum()
    assert np.array_equal(labels(pose)[drawn], each[drawn])


def test_where_nothing_moves_the_picture_is_that_of_the_stage(world: Platformer) -> None:
    """What the eye sees changes with the layers: a pixel whose layer is another has another colour."""
    frames, each = world.clip(2)[0].astype(int), labels(world.control(2, "segmentation"))
    moved = each[1:] != each[:-1]
    assert moved.any()
    assert np.abs(np.diff(frames, axis=0)).sum(-1)[moved].mean() > 30


def test_every_picture_has_a_layer() -> None:
    assert {layer_of(path) for path in ITEMS.values()} == {"item"}
    assert layer_of("tiles/waterTop_low") == "water"
    assert layer_of("tiles/grassHalf_mid") == "ground"


def test_what_a_world_does_not_tell_is_an_error(world: Platformer) -> None:
    with pytest.raises(DataError, match="no heat"):
        world.control(1, "heat")
    with pytest.raises(DataError, match="world:playground: it tells no depth"):
        find("playground")(64, 64, 8.0, 5).control(1, "depth")
