"""Random views of a clip, so that few clips go further in the training of a tokenizer."""

import numpy as np

from vpoet.arrays import Frames
from vpoet.media.video import Video

RECOLOURED = 0.25
"""Share of clips whose colour channels change places."""


def random_view(video: Video, height: int, width: int, chance: np.random.Generator) -> Frames:
    """A clip uint8 [T, height, width, 3] cut from ``video`` at a random place.

    A video that is smaller than the window is first scaled to cover it. With even odds the clip is mirrored, and runs
    backwards; one in four has its colour channels permuted. The same ``chance`` gives the same view.
    """
    if video.height < height or video.width < width:
        scale = max(height / video.height, width / video.width)
        video = video.resize(max(height, round(scale * video.height)), max(width, round(scale * video.width)))
    top = int(chance.integers(video.height - height + 1))
    left = int(chance.integers(video.width - width + 1))
    mirrored, backwards = chance.random(2) < 0.5
    frames = video.frames[:, top : top + height, left : left + width]
    frames = frames[:: -1 if backwards else 1, :, :: -1 if mirrored else 1]
    if chance.random() < RECOLOURED:
        frames = frames[..., chance.permutation(3)]
    return np.ascontiguousarray(frames)
