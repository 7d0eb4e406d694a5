"""Arrangements: which spans each task makes of one sample, and how much of a sample training gives as context.

A row of `vpoet.sequence.tasks.TABLE` names one function that arranges, ``(sample, given) -> spans``, and one that
draws, ``(sample, random) -> given``.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vpoet.arrays import Ints, Mask
from vpoet.sequence.document import Span
from vpoet.sequence.vocabulary import Modality


class Painting(NamedTuple):
    """What inpainting or outpainting shows of a clip."""

    task: str
    hidden: Mask
    """[t, h, w]: True where a cell is not shown, at least one and not all."""
    shown: Ints
    """[t, h, w], 0 where hidden: the clip's codes when nobody has seen its hidden pixels. They are others than those of
    the whole clip: an encoder sees beyond a cell."""


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One clip with its caption, in tokens."""

    text: Ints
    """Text pieces [n]; empty when the caption is dropped."""
    codes: Ints
    """[t, h, w]; an image has t = 1."""
    fps: int
    """Frames per second; 0 for an image."""
    keyframes: Ints | None = None
    """[t, h, w]: the last frame of each cell of time, as an image of its own; row 0 is that of ``codes``."""
    paintings: tuple[Painting, ...] = ()
    """What training draws the hidden cells of inpainting and outpainting from."""


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """How much of a sample is context; a task reads what concerns it."""

    cells: int = 0
    """Leading cells (i2v, continuation), or keyframes at the end (backward)."""
    times: tuple[int, ...] = ()
    """Ascending cells whose keyframes are given: the first, the last, and any between (interpolation)."""
    hidden: Mask | None = None
    """[t, h, w], True where a cell is not shown, at least one (inpainting, outpainting)."""
    shown: Ints | None = None
    """[t, h, w], as in `Painting`; None: the sample's codes are those already, as in sampling."""


def unconditional(sample: Sample, given: Given) -> tuple[Span, ...]:
    return (_whole(sample),)


def text_to_image(sample: Sample, given: Given) -> tuple[Span, ...]:
    return (_text(sample), _image(sample.codes, True))


def text_to_video(sample: Sample, given: Given) -> tuple[Span, ...]:
    return (_text(sample), _video(sample, 0, len(sample.codes), True))


def image_to_video(sample: Sample, given: Given) -> tuple[Span, ...]:
    return (_text(sample), _image(sample.codes, False), _rest(sample, given.cells))


def continuation(sample: Sample, given: Given) -> tuple[Span, ...]:
    return (_text(sample), _video(sample, 0, given.cells, False), _rest(sample, given.cells))


def backward(sample: Sample, given: Given) -> tuple[Span, ...]:
    last = len(sample.codes) - given.cells
    guides = (_guide(sample, time) for time in range(last, len(sample.codes)))
    assert 1 <= last < len(sample.codes), (given.cells, sample.codes.shape)
    return (_text(sample), *guides, _video(sample, 0, last + 1, True))


def interpolation(sample: Sample, given: Given) -> tuple[Span, ...]:
    first, *later = given.times
    assert (first, later[-1]) == (0, len(sample.codes) - 1), (given.times, sample.codes.shape)
    guides = (_guide(sample, time) for time in later)
    return (_text(sample), _image(sample.codes, False), *guides, _rest(sample, 1))


def painting(sample: Sample, given: Given) -> tuple[Span, ...]:
    """What is shown stands in the target once more; only the hidden cells are the whole clip's there."""
    assert given.hidden is not None
    modality = Modality.IMAGE if sample.fps == 0 else Modality.VIDEO
    shown = np.where(given.hidden, np.int32(0), sample.codes if given.shown is None else given.shown)
    whole = replace(sample, codes=np.where(given.hidden, sample.codes, shown))
    return (_text(sample), Span(modality, shown, fps=sample.fps, hidden=given.hidden), _whole(whole))


def _text(sample: Sample) -> Span:
    return Span(Modality.TEXT, sample.text)


def _image(codes: Ints, target: bool) -> Span:
    return Span(Modality.IMAGE, codes[:1], target)


def _guide(sample: Sample, time: int) -> Span:
    assert sample.keyframes is not None
    return Span(Modality.IMAGE, sample.keyframes[time : time + 1], time=time)


def _video(sample: Sample, start: int, stop: int, target: bool) -> Span:
    return Span(Modality.VIDEO, sample.codes[start:stop], target, fps=sample.fps, time=start)


def _rest(sample: Sample, given: int) -> Span:
    assert 1 <= given < len(sample.codes), (given, sample.codes.shape)
    return _video(sample, given, len(sample.codes), True)


def _whole(sample: Sample) -> Span:
    return _image(sample.codes, True) if sample.fps == 0 else _video(sample, 0, len(sample.codes), True)


def nothing(sample: Sample, random: np.random.Generator) -> Given:
    return Given()


def first_cell(sample: Sample, random: np.random.Generator) -> Given:
    return Given(1)


def any_number(sample: Sample, random: np.random.Generator) -> Given:
    return Given(int(random.integers(1, len(sample.codes))))


def some_times(sample: Sample, random: np.random.Generator) -> Given:
    """Evenly spaced half of the time, as a slow video's are; else any, each with one chance that is drawn first."""
    last = len(sample.codes) - 1
    if random.random() < 0.5:
        steps = [step for step in range(1, last + 1) if last % step == 0]
        return Given(times=tuple(range(0, last + 1, int(random.choice(steps)))))
    inner = 1 + np.flatnonzero(random.random(last - 1) < random.random())
    return Given(times=(0, *inner.tolist(), last))


def one_painting(task: str, sample: Sample, random: np.random.Generator) -> Given:
    """Of a task that paints; the first argument is the row's."""
    paintings = [painting for painting in sample.paintings if painting.task == task]
    _, hidden, shown = paintings[int(random.integers(len(paintings)))]
    return Given(hidden=hidden, shown=shown)
