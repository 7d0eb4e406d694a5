"""Contact sheets."""

import numpy as np
import pytest

from vpoet.errors import ShapeError
from vpoet.media.sheet import GAP, TEXT_HEIGHT, contact_sheet


def flat(values, height=16, width=24):
    """Frames of one grey each, uint8 [T, H, W, 3]."""
    return np.asarray(values, np.uint8)[:, None, None, None].repeat(height, 1).repeat(width, 2).repeat(3, 3)


def test_sheet_shows_evenly_spaced_frames_first_and_last_among_them():
    values = list(range(10, 27))  # 17 frames
    sheet = np.asarray(contact_sheet([("clip", flat(values))], max_frames=5, scale=1))
    row = sheet[GAP + TEXT_HEIGHT + 8]
    assert [int(row[GAP + i * (24 + GAP) + 12, 0]) for i in range(5)] == [10, 14, 18, 22, 26]


def test_sheet_takes_clips_of_any_size_and_length():
    rows = [("video", flat(range(9))), ("image", flat([7], height=32, width=8))]
    sheet = contact_sheet(rows, max_frames=4, scale=2)
    assert sheet.height == GAP + 2 * (TEXT_HEIGHT + GAP) + 2 * (16 + 32)
    assert sheet.width == GAP + 4 * (48 + GAP)
    assert np.asarray(sheet)[GAP + 2 * TEXT_HEIGHT + GAP + 32 + 5, GAP + 5].tolist() == [7, 7, 7]


def test_sheet_writes_the_labels_whole():
    label = "a red fox runs to the right over the snow while a bird circles above"
    sheet = np.asarray(contact_sheet([(label, flat([255])), ("", flat([255]))], scale=1))
    inked = np.flatnonzero((sheet[GAP : GAP + TEXT_HEIGHT] < 128).any(axis=(0, 2)))
    assert 200 < inked[-1] < sheet.shape[1]
    assert inked[0] >= GAP


def test_small_clips_are_enlarged():
    assert contact_sheet([("", flat([0], height=32, width=32))]).height == GAP + TEXT_HEIGHT + 128 + GAP


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("float", np.zeros((1, 8, 8, 3), np.float32))],
        [("image", np.zeros((8, 8, 3), np.uint8))],
        [("none", flat([]))],
    ],
)
def test_sheet_refuses_what_is_no_clip(rows):
    with pytest.raises(ShapeError):
        contact_sheet(rows)
