"""What is to be scored, as the model takes it: a clip at its rate and size, and the task that could have made it."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.bundle import Bundle
from vpoet.errors import DataError, PromptError
from vpoet.media.video import Video, at_rate, frame_rate, resize_frame
from vpoet.sequence.arrangements import Given, Sample

MOST = 100_000
"""Of frames, pixels of a side, and frames per second: no model has seen more."""


@dataclass(frozen=True, eq=False, slots=True)
class Fitted:
    """A clip of whole cells."""

    video: Video
    changes: tuple[str, ...]
    """What was done to it, for people; empty if it was taken as it is."""


def fit(
    bundle: Bundle,
    clip: Video | str | Path,
    *,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    fps: int | None = None,
    most: int | None = None,
) -> Fitted:
    """The first ``frames`` frames at ``fps``, scaled to cover ``height x width`` with the centre taken.

    What is None is as the training data were; ``frames`` None makes do with fewer, as many as fill cells, and takes up
    to ``most`` where that is given. A file is read no further than needed, frame by frame. DataError: it can't be read,
    or has fewer frames than asked for.
    """
    config = bundle.config
    wanted, height, width, rate = (
        default if asked is None else asked
        for asked, default in (
            (frames, most or config.frames),
            (height, config.height),
            (width, config.width),
            (fps, config.fps),
        )
    )
    name = "the clip" if isinstance(clip, Video) else str(clip)
    if not 1 <= min(wanted, height, width, rate) <= max(wanted, height, width, rate) <= MOST:
        raise DataError(
            f"{name}: {wanted} frames of {height}x{width} at {rate} fps were asked for: each is 1 to {MOST}"
        )
    found, source = frame_rate(clip), at_rate(clip, rate)
    size = height, width
    held: list[Frames] = []
    for frame in islice(source, wanted + 1):  # one more, to know whether any is left out
        size = size if held else (frame.shape[0], frame.shape[1])
        held.append(resize_frame(frame, height, width))
    if len(held) < (frames or 1):
        raise DataError(f"{name}: {len(held)} frames at {rate} fps, and {frames or 1} were asked for")
    whole = min(len(held), wanted)
    if frames is None:
        first, r = bundle.video.first, bundle.video.stride[0]
        whole = first + max(0, whole - first) // r * r
    cut = [f"the first {whole} frames only"] if whole < len(held) else []
    video = Video(np.stack(held[:whole]), rate if whole > 1 else 0)
    return Fitted(video, (*rescaled(size, (height, width), found, rate), *cut))


def rescaled(size: tuple[int, int], wanted: tuple[int, int], fps: float, rate: float) -> list[str]:
    """What brings a clip to another size, (height, width), and rate, for people; a rate of 0 is that of an image."""
    changes = [f"from {size[0]}x{size[1]} to {wanted[0]}x{wanted[1]} pixels"] if size != wanted else []
    return changes + ([f"from {fps:g} to {rate:g} frames per second"] if fps and abs(fps - rate) > 1e-3 else [])


def observe(bundle: Bundle, codes: Ints, fps: float, prompt: str, given_frames: int) -> tuple[Sample, str, Given]:
    """A clip's codes [t, h, w] and its prompt, the task that makes such a clip, and how much of the clip is given.

    One given frame is an image, if the model was trained for `i2v`; several are a video that is continued. PromptError:
    a number of frames that can't be given.
    """
    tasks, tokenizer = bundle.config.tasks, bundle.video
    text = np.array(bundle.text.encode(prompt), np.int32)
    choices = [0, *(tokenizer.frames(cells) for cells in range(1, len(codes) if tokenizer.causal else 0))]
    if given_frames not in choices:
        there = f"for a clip of {tokenizer.frames(len(codes))} frames it is {', '.join(map(str, choices))}"
        raise PromptError(f"given_frames = {given_frames}: {there}")
    given = choices.index(given_frames)
    task = "t2i" if len(codes) == 1 else "t2v"
    if given:
        task = "i2v" if given == 1 and "i2v" in tasks else "continuation"
    elif not len(text) and "unconditional" in tasks:
        task = "unconditional"
    return Sample(text, codes, 0 if len(codes) == 1 else round(fps)), task, Given(given)
