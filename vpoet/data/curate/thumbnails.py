"""Thumbnails of clips, and how two clips may be laid over each other.

Shapes: N clips, K thumbnails, h = w = `vpoet.data.curate.clip_measures.SIDE`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Floats, Longs
from vpoet.data.curate.clip_measures import SIDE
from vpoet.media.signals import opencv

Thumbnails = npt.NDArray[np.uint8]
"""[N, K, h, w]; of one clip [K, h, w]."""
CROP = 0.8
"""Of a copy that shows a crop of the other: sides of the crop."""
SHIFTS = (0, 1, -1, 2, -2)
"""Thumbnails by which a copy may begin later."""
NOISE = 3.0
"""Grey levels by which thumbnails of copies differ: changes below it say nothing."""
FIRST_LOOK = 0.75
"""The least correlation of mean pictures of a pair that is looked at more closely."""
ROUNDING = 5e-3
"""Of a cosine or a correlation, more than all rounding, fp16's too."""


def shown(thumbnails: Thumbnails) -> Longs:
    """How many thumbnails a clip has without those that only repeat its last, [N] of [N, K, h, w]: a short clip is
    filled up with these (`vpoet.data.curate.clip_measures.thumbnails`)."""
    count = thumbnails.shape[1]
    changes = (thumbnails[:, 1:] != thumbnails[:, :-1]).any((2, 3))
    last: Longs = (changes * np.arange(2, count + 1)).max(1, initial=1)
    return last


def shrunk(pictures: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[N, h, w] to the size of a crop."""
    cv2, size = opencv(), round(CROP * SIDE)
    return np.stack([cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA) for picture in pictures])


def windows_of(pictures: Floats, size: int) -> Floats:
    """A view of all square windows: [..., h, w] to [..., H', W', size, size]."""
    views: Floats = np.lib.stride_tricks.sliding_window_view(pictures, (size, size), (-2, -1))
    return views
