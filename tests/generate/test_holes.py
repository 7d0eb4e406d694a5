"""Holes: which cells a mask touches, and that what lies under it is not seen."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpoet.errors import PromptError
from vpoet.generate.holes import border, filled, scaled, touched


def masks(data: st.DataObject, frames: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((frames, height, width), bool)
    for _ in range(data.draw(st.integers(1, 3))):
        t, h, w = (data.draw(st.integers(0, size - 1)) for size in mask.shape)
        mask[t, h : h + data.draw(st.integers(1, height)), w : w + data.draw(st.integers(1, width))] = True
    return mask


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.data())
def test_filling_keeps_what_is_kept_and_sees_nothing_else(t: int, h: int, w: int, data: st.DataObject) -> None:
    mask = masks(data, t, h, w)
    one = np.random.default_rng(0).integers(0, 256, (t, h, w, 3), np.uint8)
    other = np.where(mask[..., None], 255 - one, one)
    assert np.array_equal(filled(one, mask), filled(other, mask))
    assert np.array_equal(filled(one, mask)[~mask], one[~mask])
    for frame, hidden, found in zip(one, mask, filled(one, mask), strict=True):
        if not hidden.all():  # means of what is kept: between its darkest and its brightest
            assert (found >= frame[~hidden].min(axis=0)).all()
            assert (found <= frame[~hidden].max(axis=0)).all()


def test_a_hole_in_a_plain_colour_has_that_colour() -> None:
    frames = np.full((1, 16, 16, 3), (10, 200, 30), np.uint8)
    mask = np.zeros((1, 16, 16), bool)
    mask[0, 3:14, 2:16] = True
    frames[mask] = 255
    assert (filled(frames, mask) == (10, 200, 30)).all()


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.data())
def test_a_cell_is_touched_by_any_of_its_pixels(t: int, h: int, w: int, data: st.DataObject) -> None:
    mask = masks(data, 1 + 2 * (t - 1), 4 * h, 4 * w)
    wanted = np.zeros((t, h, w), bool)
    for frame, row, column in zip(*mask.nonzero(), strict=True):
        wanted[(frame + 1) // 2, row // 4, column // 4] = True
    if wanted.all():
        with pytest.raises(PromptError, match="4x4 pixels and 2 frames: nothing is left to keep"):
            touched(mask, (2, 4, 4))
    else:
        assert np.array_equal(touched(mask, (2, 4, 4)), wanted)


@given(st.integers(5, 30), st.integers(5, 30), st.data())
def test_scaling_lets_nothing_out_from_under_the_mask(height: int, width: int, data: st.DataObject) -> None:
    mask = masks(data, 2, 12, 17)
    one = np.random.default_rng(0).integers(0, 256, (2, 12, 17, 3), np.uint8)
    other = np.where(mask[..., None], 255 - one, one)
    frames, grown = scaled(one, mask, height, width)
    assert np.array_equal(frames, scaled(other, mask, height, width)[0])
    assert frames.shape[:3] == grown.shape == (2, height, width)
    # Beside the mask the picture is nearly as if nothing had been hidden: only bicubic's negative lobes reach there.
    plain, _ = scaled(one, np.zeros_like(mask), height, width)
    assert not (np.abs(frames[~grown].astype(int) - plain[~grown]) > 25).any()


def test_a_border_lies_around_what_is_kept() -> None:
    frames = np.full((2, 10, 10, 3), 9, np.uint8)
    made, mask = border(frames, (3, 0, 1, 4), height=14, width=14)
    assert made.shape == (2, 14, 14, 3)
    assert (made[:, :10, 3:13] == 9).all()
    assert not mask[:, :10, 3:13].any()
    assert mask.sum() == 2 * (14 * 14 - 10 * 10)
