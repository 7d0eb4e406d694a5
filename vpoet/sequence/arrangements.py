"""Arrangements: which spans each task makes of one sample, and how much of a sample training gives as context.

A row of `vpoet.sequence.tasks.TABLE` names one function that arranges, ``(sample, given) -> spans``, and one that
draws, ``(sample, random) -> given``.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vpoet.arrays import Ints, Mask
from vpoet.sequence.actions import NONE, START, UNKNOWN
from vpoet.sequence.conditions import Pairs
from vpoet.sequence.document import FORMS, Part, Span
from vpoet.sequence.vocabulary import Modality

MISREAD = 0.2
"""Share of the cells of a coarse window, at most, that training spoils."""
LATEST = 256 * 256
"""Frames that the header of play tells apart."""


class Painting(NamedTuple):
    """What inpainting or outpainting shows of a clip."""

    task: str
    hidden: Mask
    """[t, h, w]: True where a cell is not shown, at least one and not all."""
    shown: Ints
    """[t, h, w], 0 where hidden: the clip's codes when nobody has seen its hidden pixels. They are others than those of
    the whole clip: an encoder sees beyond a cell."""


class Segment(NamedTuple):
    """One part of a sample that interleaves texts, images and videos."""

    values: Ints
    """Text pieces [n]; or codes [t, h, w], of an image or video that was encoded on its own."""
    fps: int = 0
    """Frames per second of a video."""
    target: bool | None = None
    """Whether it is to be produced, where the sample's maker says so."""


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One clip with its caption, in tokens."""

    text: Ints
    """Text pieces [n]; empty when the caption is dropped."""
    codes: Ints
    """[t, h, w]; an image has t = 1, what consists of segments has t = 0."""
    fps: int
    """Frames per second; 0 for an image."""
    keyframes: Ints | None = None
    """[t, h, w]: the last frame of each cell of time, as an image of its own; row 0 is that of ``codes``."""
    paintings: tuple[Painting, ...] = ()
    """What training draws the hidden cells of inpainting and outpainting from."""
    actions: Ints | None = None
    """[t - 1, a]: what led to each cell but the first, as values of their range (`vpoet.sequence.actions`)."""
    outcomes: Ints | None = None
    """[t - 1]: what came of each action."""
    timeline: tuple[tuple[int, Ints], ...] | None = None
    """Captions that change in time: the first cell of each, ascending from 0, and its pieces."""
    segments: tuple[Segment, ...] | None = None
    room: int = LATEST * LATEST
    """Tokens of the longest document that may be made of it: of a long recording, play takes a stretch."""
    window: int = 0
    """Frames for which one is seen in that document (`vpoet.sequence.windows`); 0: to its end."""
    conditions: Pairs = ()
    """What is told of the clip before all else."""
    coarse: Ints | None = None
    """[t, h, w]: the codes of a window around what is here a tile, half as fine (`vpoet.data.tiles`)."""


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
    """[t, h, w], as in `Painting`, or the window of ``coarse`` as it is read; None: the sample's are those already, as
    in sampling."""
    stretch: tuple[int, int] | None = None
    """The first frame of a stretch of a recording, and the one behind its last (play); None: all of it."""
    time: int = 0
    """When play begins: the time of the stretch's first frame, as its header tells it."""
    changing: bool = True
    """Whether the prompt of play changes where the sample's timeline does; else its caption is all."""
    produced: tuple[bool, ...] = ()
    """Which segments are targets, one at least (interleaved)."""


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


def finer(sample: Sample, given: Given) -> tuple[Span, ...]:
    """A window, and the tile in its middle as if it came after it in time: that is where it is told apart from it."""
    window = sample.coarse if given.shown is None else given.shown
    assert window is not None
    if sample.fps == 0:
        return (_text(sample), _image(window, False), Span(Modality.IMAGE, sample.codes, True, time=len(window)))
    tile = Span(Modality.VIDEO, sample.codes, True, fps=sample.fps, time=len(window))
    return (_text(sample), Span(Modality.VIDEO, window, fps=sample.fps), tile)


def timeline(sample: Sample, given: Given) -> tuple[Span, ...]:
    """Texts and videos in turn, time going on."""
    told = _told(sample, 0, len(sample.codes))
    return tuple(
        span for text, start, stop in told for span in (Span(Modality.TEXT, text), _video(sample, start, stop, True))
    )


def played(produced: Part, sample: Sample, given: Given) -> tuple[Span, ...]:
    """Of a task that plays a recording; the first argument is the row's."""
    sample = sample if given.changing else replace(sample, timeline=None)
    start, stop = given.stretch or (0, len(sample.codes))
    done = _done(sample, start, stop, sample.outcomes)
    rows = np.hstack([done, sample.codes[start:stop].reshape(stop - start, -1)])
    if sample.outcomes is None:
        produced &= ~Part.OUTCOMES
    spans: list[Span] = []
    for text, first, behind in _told(sample, start, stop):
        time, mine = given.time + first - start, rows[first - start : behind - start]
        grid = sample.codes.shape[1], sample.codes.shape[2]
        play = Span(Modality.PLAY, mine, True, fps=sample.fps, time=time, grid=grid, produced=produced)
        spans += [Span(Modality.TEXT, text), play]
    return tuple(spans)


def inverse(sample: Sample, given: Given) -> tuple[Span, ...]:
    """All frames first, for what was done shows in the frame that it led to; then the actions, without frames."""
    start, stop = given.stretch or (0, len(sample.codes))
    video = Span(Modality.VIDEO, sample.codes[start:stop], fps=sample.fps)
    rows = _done(sample, start, stop, None)
    return (_text(sample), video, Span(Modality.PLAY, rows, True, fps=sample.fps, produced=Part.ACTIONS))


def interleaved(sample: Sample, given: Given) -> tuple[Span, ...]:
    assert sample.segments is not None
    spans = []
    for (values, fps, _), target in zip(sample.segments, given.produced, strict=True):
        modality = Modality.TEXT if values.ndim == 1 else Modality.VIDEO if fps else Modality.IMAGE
        spans.append(Span(modality, values, target, fps=fps))
    return tuple(spans)


def _told(sample: Sample, start: int, stop: int) -> Iterator[tuple[Ints, int, int]]:
    """The texts of the cells from ``start`` up to, not with, ``stop``, and of each text its own such cells."""
    changes = ((0, sample.text),) if sample.timeline is None else sample.timeline
    ends = [first for first, _ in changes[1:]] + [len(sample.codes)]
    for (first, text), end in zip(changes, ends, strict=True):
        if max(first, start) < min(end, stop):
            yield text, max(first, start), min(end, stop)


def _done(sample: Sample, start: int, stop: int, outcomes: Ints | None) -> Ints:
    """[t, a + 1]: the actions and outcomes that led to the frames from ``start`` up to, not with, ``stop``; nothing is
    said to have led to the first."""
    assert sample.actions is not None
    done = np.full((stop - start, sample.actions.shape[1] + 1), UNKNOWN, dtype=np.int32)
    done[1:, :-1] = sample.actions[start : stop - 1]
    if outcomes is not None:
        done[1:, -1] = outcomes[start : stop - 1]
    done[:1, :-1], done[:1, -1] = NONE, START
    return done


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


def misread_window(sample: Sample, random: np.random.Generator) -> Given:
    """Some cells of the window hold the code of another of its cells, up to `MISREAD` of them: what is made finer later
    was often drawn by a model itself."""
    assert sample.coarse is not None
    wrong = random.random(sample.coarse.shape) < MISREAD * random.random()
    others = random.permutation(sample.coarse.reshape(-1)).reshape(sample.coarse.shape)
    return Given(shown=np.where(wrong, others, sample.coarse))


def a_stretch(sample: Sample, random: np.random.Generator) -> Given:
    """All of a recording, or where it is too long for a document as much of it as fits, from anywhere.

    It begins at time 0 half of the time, else at any: whatever distance play comes to have from its prompt, training
    has seen. Half of the time its caption is all that is said: words that tell what is done next would spare the model
    to look at the actions.
    """
    assert sample.actions is not None
    frame = int(sample.actions.shape[1]) + 1 + math.prod(sample.codes.shape[1:])
    changing = random.random() < 0.5
    sample = sample if changing else replace(sample, timeline=None)
    texts = [sample.text] if sample.timeline is None else [text for _, text in sample.timeline]
    around = 4 + len(FORMS[Modality.PLAY].header)  # a text's two tokens, and those around play's header

    def tokens(start: int, stop: int) -> int:
        return 3 + sum(len(text) + around + (b - a) * frame for text, a, b in _told(sample, start, stop))

    start, stop = _a_part(sample, (sample.room - 3 - around - max(map(len, texts))) // frame, random)
    while stop > start + 1 and tokens(start, stop) > sample.room:  # its prompt changes on the way
        stop -= 1
    time = int(random.integers(LATEST - (stop - start) + 1)) if random.random() < 0.5 else 0
    return Given(stretch=(start, stop), time=time, changing=changing)


def a_short_stretch(sample: Sample, random: np.random.Generator) -> Given:
    """As much of a recording as fits a document, and the header of a video, from anywhere."""
    return Given(stretch=_a_part(sample, frames_between(sample), random))


def frames_between(sample: Sample) -> int:
    """Of a recording: so many frames fit a document that tells a video, and then what was done between them; with a
    window it holds all of them, for behind it they can't be read."""
    assert sample.actions is not None
    frame = int(sample.actions.shape[1]) + 1 + math.prod(sample.codes.shape[1:])
    headers = sum(2 + len(FORMS[modality].header) for modality in (Modality.VIDEO, Modality.PLAY))
    most = min((sample.room - 3 - 2 - len(sample.text) - headers) // frame, 255)
    return min(most, sample.window) if sample.window else most


def _a_part(sample: Sample, most: int, random: np.random.Generator) -> tuple[int, int]:
    """A stretch of at most so many frames, and two at least where there are."""
    length = min(max(most, 2), len(sample.codes))
    start = int(random.integers(len(sample.codes) - length + 1))
    return start, start + length


def some_segments(sample: Sample, random: np.random.Generator) -> Given:
    """The segments whose maker wants them produced; where none says so, all from any one on."""
    assert sample.segments is not None
    produced = tuple(segment.target is True for segment in sample.segments)
    if not any(produced):
        first = int(random.integers(len(produced)))
        produced = tuple(number >= first for number in range(len(produced)))
    return Given(produced=produced)
