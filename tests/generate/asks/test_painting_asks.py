"""Holes: the mask that a border comes to."""

import numpy as np

from vpoet.generate.asks.painting import border


def test_a_border_lies_around_what_is_kept() -> None:
    frames = np.full((2, 10, 10, 3), 9, np.uint8)
    made, mask = border(frames, (3, 0, 1, 4), height=14, width=14)
    assert made.shape == (2, 14, 14, 3)
    assert (made[:, :10, 3:13] == 9).all()
    assert not mask[:, :10, 3:13].any()
    assert mask.sum() == 2 * (14 * 14 - 10 * 10)
