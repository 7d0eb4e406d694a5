"""Control signals: pictures of how a clip moves and where things are in it, which leave open how it looks.

Those of `MAKERS` are made of the pixels of any clip, by OpenCV (extra ``curate``); what else there is, a world knows
(`vpoet.worlds.world.World.control`). All are pictures of the clip's own size, uint8 [T, H, W, 3], so that the video
tokenizer of the clip encodes them too.

    edges    white on black, where Canny's detector sees an edge
    flow     where each pixel came from: red across, green down, grey (128) for what stands
    grey     brightness alone
    sketch   dark lines on white, where something is darker than what is around it
"""

from collections.abc import Callable

import numpy as np

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.media.signals import CHANGED, difference, greys, opencv, optical_flow

CANNY = (60, 120)
"""Grey levels: an edge begins at the second, and goes on down to the first."""
THICK = 3
"""Pixels of an edge's line: thinner ones are lost in the cells of a tokenizer."""
FASTEST = 1 / 8
"""Of the picture's height, the way from frame to frame that is drawn in full colour."""
_LINES = 21
"""Pixels around that a sketch compares with."""
_COLOURED, _HALF = 24.0, 0.1
"""Levels between channels from which a picture has colours; share of pixels that are neither black nor white from which
it is not one of edges."""


def edges(frames: Frames) -> Frames:
    """Canny (1986), each frame by itself."""
    cv2 = opencv()
    around = np.ones((THICK, THICK), np.uint8)
    return _rgb(np.stack([cv2.dilate(cv2.Canny(grey, *CANNY), around) for grey in _greys(frames)]))


def flow(frames: Frames) -> Frames:
    """The way that led to each frame from the one before (`optical_flow`), nowhere where the picture is as it was; the
    first stands."""
    cv2 = opencv()
    height, width = frames.shape[1:3]
    pictures = greys(frames)
    ways = optical_flow(pictures) / pictures.shape[1] / FASTEST
    made = np.full(frames.shape, 128, np.uint8)
    for picture, way, a, b in zip(made[1:], ways, pictures, pictures[1:], strict=False):
        seen = way * (difference(a, b) > CHANGED)[..., None]
        sized = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
        picture[..., :2] = (128 + 127 * sized).round().clip(0, 255)
    return made


def grey(frames: Frames) -> Frames:
    """ITU-R BT.601's luma, three times."""
    return _rgb(_greys(frames))


def sketch(frames: Frames) -> Frames:
    """Brightness divided by what is around it, as a pencil draws."""
    cv2 = opencv()
    made = [cv2.divide(each, cv2.GaussianBlur(each, (_LINES, _LINES), 0), scale=255) for each in _greys(frames)]
    return _rgb(np.stack(made))


MAKERS: dict[str, Callable[[Frames], Frames]] = {"edges": edges, "flow": flow, "grey": grey, "sketch": sketch}
"""Kinds that are made of any clip."""


def taken(kind: str, frames: Frames) -> Frames:
    """A signal uint8 [T, H, W, 3] that somebody brings, as those here are: a file that lost something on its way is
    what it was. DataError: it is no picture of this kind, but what one could be made of."""
    if kind in ("edges", "grey", "sketch", "depth") and float(np.ptp(frames, axis=-1).mean()) > _COLOURED:
        raise DataError(f"it has colours, and a picture of {kind} has none")
    if kind == "edges":
        level = frames.mean(axis=-1)
        if ((level > 64) & (level < 192)).mean() > _HALF:
            raise DataError("it is not black with white lines, as a picture of edges is")
        return _rgb((level >= 128).astype(np.uint8) * np.uint8(255))
    return frames


def _greys(frames: Frames) -> Frames:
    cv2 = opencv()
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def _rgb(pictures_THW: Frames) -> Frames:
    return np.repeat(pictures_THW[..., None], 3, axis=-1)
