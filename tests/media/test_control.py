"""Control signals of pixels: edges where edges are, flow of a motion that is known, and files that are no signals."""

import numpy as np
import pytest

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media import control
from vpoet.media.video import Video


def square(step: int = 3, count: int = 4) -> Frames:
    """A textured square that goes right over a plain ground, 3 pixels a frame."""
    frames = np.full((count, 64, 64, 3), 60, np.uint8)
    texture = np.random.default_rng(0).integers(120, 256, (6, 6, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    for t, frame in enumerate(frames):
        frame[20:44, 10 + step * t : 34 + step * t] = texture
    return frames


def test_each_kind_is_a_picture_of_the_clips_size() -> None:
    for kind, make in control.MAKERS.items():
        made = make(square())
        assert (made.dtype, made.shape) == (np.uint8, (4, 64, 64, 3)), kind
        assert np.array_equal(make(square()), made), kind
        assert make(square()[:1]).shape == (1, 64, 64, 3), kind


def test_edges_lie_around_the_square_and_move_with_it() -> None:
    made = control.edges(square())[..., 0] > 0
    rim = np.zeros((64, 64), np.bool_)
    rim[18:46, 8:36] = True
    inside = made[0] & ~rim
    assert not inside.any()
    assert made[0, 20:44, 9:12].any(axis=1).all()
    assert made[0, 19:22, 10:34].any(axis=0).all()
    assert np.array_equal(made[0, :, :40], made[1, :, 3:43])


def test_flow_tells_way_and_direction() -> None:
    made = control.flow(square()).astype(int)
    assert (made[0] == 128).all()
    across, down = made[2, 24:40, 20:36, 0], made[2, 24:40, 20:36, 1]
    assert np.median(across) == pytest.approx(128 + 127 * 3 / 64 * 8, abs=6)
    assert np.median(down) == pytest.approx(128, abs=4)
    assert (made[:, :10] == 128).all()
    assert np.median(control.flow(square(step=0))) == 128


def test_a_sketch_is_white_where_nothing_is_and_grey_keeps_brightness() -> None:
    assert (control.sketch(np.full((1, 32, 32, 3), 90, np.uint8)) == 255).all()
    grey = control.grey(square())
    assert (grey == grey[..., :1]).all()
    assert (grey[0, 0, 0] == 60).all()


def test_edges_that_went_through_a_lossy_file_are_what_they_were(tmp_path) -> None:
    made = control.edges(square())
    Video(made, 8).write(tmp_path / "edges.mp4")
    read = Video.read(tmp_path / "edges.mp4").frames
    assert not np.array_equal(read, made)
    assert (control.taken("edges", read) == made).mean() > 0.999
    assert np.array_equal(control.taken("edges", made), made)


@pytest.mark.parametrize(("kind", "why"), [("edges", "colours"), ("grey", "colours"), ("sketch", "colours")])
def test_a_clip_is_not_taken_for_its_signal(kind: str, why: str) -> None:
    colourful = np.zeros((2, 32, 32, 3), np.uint8)
    colourful[..., 0] = 200
    with pytest.raises(DataError, match=why):
        control.taken(kind, colourful)
    assert np.array_equal(control.taken("segmentation", colourful), colourful)


def test_a_grey_clip_is_not_taken_for_edges() -> None:
    ramp = np.tile(np.linspace(0, 255, 32).astype(np.uint8)[None, None, :, None], (2, 32, 1, 3))
    with pytest.raises(DataError, match="black with white lines"):
        control.taken("edges", ramp)
