"""A protocol is a value: everything that changes a figure changes its id."""

from dataclasses import fields, replace

import pytest

from vpoet.errors import ConfigError
from vpoet.evaluate.compare.protocol import FVD_WEIGHTS, PRESETS, REACH, Protocol, choose

OTHER = {
    "frames": 17, "step": 2, "fps": 8.0, "real_start": "random", "fit": "stretch", "size": 64, "filter": "bilinear",
    "antialias": False, "count": 9, "seed": 1, "network": "a", "network_input": "b",
}  # fmt: skip


def test_every_field_changes_the_id_and_equal_protocols_share_it() -> None:
    assert OTHER.keys() == {field.name for field in fields(Protocol)}
    ids = [Protocol().id, *(replace(Protocol(), **{name: value}).id for name, value in OTHER.items())]
    assert len(set(ids)) == len(ids)
    assert Protocol(**OTHER).id == choose("vpoet-16", OTHER).id


def test_features_are_shared_by_protocols_that_differ_in_which_clips_they_take() -> None:
    alone = {"count", "seed", "real_start"}
    for name, value in OTHER.items():
        assert (replace(Protocol(), **{name: value}).pixels == Protocol().pixels) == (name in alone)


def test_the_id_of_the_default_is_pinned() -> None:
    """A figure of last year is found again by its id."""
    assert Protocol().id == "52c4aeea"


def test_only_known_weights_are_called_fvd() -> None:
    for known in FVD_WEIGHTS:
        assert replace(PRESETS["stylegan-v-16"], network=known).title.startswith("FVD")
    assert PRESETS["stylegan-v-16"].title.startswith("Frechet distance")
    assert replace(Protocol(), network="0" * 64).title == "Frechet distance (features 00000000)"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fit": "pad"}, "fit is one of none, crop, stretch"),
        ({"filter": "lanczos"}, "filter is one of"),
        ({"frames": 0}, "frames is 1 or more"),
        ({"fps": float("nan")}, "fps is 0 or more"),
        ({"fit": "none"}, "the size is 0 with fit none"),
        ({"size": 0}, "the size is 0 with fit none"),
    ],
)
def test_what_cannot_be_is_named(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choose("vpoet-16", changes)


def test_an_unknown_preset_is_told_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no protocol 'fvd'; there are vpoet-16, stylegan-v-16"):
        choose("fvd", {})


def test_the_published_presets_are_pinned() -> None:
    """Each with what its source says, so that its figures stay comparable."""
    taken = {name: (each.frames, each.count, each.real_start, each.fit, each.size) for name, each in PRESETS.items()}
    assert taken == {
        "vpoet-16": (16, 0, "first", "crop", 128),
        "stylegan-v-16": (16, 2048, "random", "none", 0),
        "stylegan-v-128": (128, 2048, "random", "none", 0),
        "videogpt-ucf": (16, 256, "random", "crop", 128),
        "jedi": (16, 5000, "first", "crop", 224),
    }
    assert [each.id for each in PRESETS.values()] == ["52c4aeea", "a5d3e161", "a0cbff09", "7dc4d64d", "2fcb5cbd"]
    assert REACH == {"videogpt-ucf": 0.5}
