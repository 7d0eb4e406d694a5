"""Tasks: how the text and the clip of one sample become a document (VideoPoet, section 3.3).

The same function arranges a sample for training, where all cells are known, and a request for sampling, where the
cells of the target are still blank. `TABLE` holds the tasks that have a token of their own, `COMPOSED` what sampling
makes of several of them or with their headers; `vpoet inspect` and sample/README.md show both. In the drawings of a
sequence, brackets are around what is produced, and numbers are cells of time; the clip has t of them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from vpoet.arrays import Ints, Mask
from vpoet.errors import ConfigError
from vpoet.sequence.document import Document, Span
from vpoet.sequence.vocabulary import Modality, add_task

PAINTED = ("inpainting", "outpainting")
"""The tasks that give a clip with hidden cells."""


class Painting(NamedTuple):
    """What a task of `PAINTED` shows of a clip."""

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
    """What training draws the hidden cells of a task of `PAINTED` from."""


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


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the task table."""

    name: str
    token: int
    """Its special token; a new task takes the next free one (`add`)."""
    meaning: str
    drawing: str
    flag: str
    """How `vpoet sample` asks for it."""
    arrange: Callable[[Sample, Given], tuple[Span, ...]]
    draw: Callable[[Sample, np.random.Generator], Given]
    """What training gives of a sample that it `trains` on."""
    cells: int = 1
    """Least number of cells in time that a sample needs."""
    area: int = 1
    """Least number of cells in height times width."""
    keyframes: bool = False
    """Needs a sample's keyframes."""

    def fits(self, sample: Sample) -> bool:
        t, h, w = sample.codes.shape
        return t >= self.cells and h * w >= self.area and (sample.keyframes is not None or not self.keyframes)

    def trains(self, sample: Sample) -> bool:
        """Whether it `fits`, and there is something to `draw` from."""
        painted = self.name not in PAINTED or any(painting.task == self.name for painting in sample.paintings)
        return self.fits(sample) and painted

    def document(self, sample: Sample, given: Given = Given()) -> Document:
        """The document of a sample that `fits`, with as much context as ``given`` says."""
        assert self.fits(sample), (self.name, sample.codes.shape)
        document = Document(self.name, self.arrange(sample, given))
        assert any(mask.any() for mask in document.predicted()), (self.name, given, sample.codes.shape)
        return document


@dataclass(frozen=True, slots=True)
class Composition:
    """A row of the table without a token of its own."""

    name: str
    meaning: str
    drawing: str
    flag: str
    of: tuple[str, ...]
    """The tasks that it is made of; empty: it goes with each."""


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


def _backward(sample: Sample, given: Given) -> tuple[Span, ...]:
    last = len(sample.codes) - given.cells
    guides = (_guide(sample, time) for time in range(last, len(sample.codes)))
    assert 1 <= last < len(sample.codes), (given.cells, sample.codes.shape)
    return (_text(sample), *guides, _video(sample, 0, last + 1, True))


def _interpolation(sample: Sample, given: Given) -> tuple[Span, ...]:
    first, *later = given.times
    assert (first, later[-1]) == (0, len(sample.codes) - 1), (given.times, sample.codes.shape)
    guides = (_guide(sample, time) for time in later)
    return (_text(sample), _image(sample.codes, False), *guides, _rest(sample, 1))


def _painting(sample: Sample, given: Given) -> tuple[Span, ...]:
    """What is shown stands in the target once more; only the hidden cells are the whole clip's there."""
    assert given.hidden is not None
    modality = Modality.IMAGE if sample.fps == 0 else Modality.VIDEO
    shown = np.where(given.hidden, np.int32(0), sample.codes if given.shown is None else given.shown)
    whole = replace(sample, codes=np.where(given.hidden, sample.codes, shown))
    return (_text(sample), Span(modality, shown, fps=sample.fps, hidden=given.hidden), _whole(whole))


def _none(sample: Sample, random: np.random.Generator) -> Given:
    return Given()


def _any_number(sample: Sample, random: np.random.Generator) -> Given:
    return Given(int(random.integers(1, len(sample.codes))))


def _some_times(sample: Sample, random: np.random.Generator) -> Given:
    """Evenly spaced half of the time, as a slow video's are; else any, each with one chance that is drawn first."""
    last = len(sample.codes) - 1
    if random.random() < 0.5:
        steps = [step for step in range(1, last + 1) if last % step == 0]
        return Given(times=tuple(range(0, last + 1, int(random.choice(steps)))))
    inner = 1 + np.flatnonzero(random.random(last - 1) < random.random())
    return Given(times=(0, *inner.tolist(), last))


def _one_painting(sample: Sample, task: str, random: np.random.Generator) -> Given:
    paintings = [painting for painting in sample.paintings if painting.task == task]
    _, hidden, shown = paintings[int(random.integers(len(paintings)))]
    return Given(hidden=hidden, shown=shown)


_ROWS = (
    Task(
        "unconditional", 12, "a clip without a prompt", "[video or image]", "no --prompt",
        lambda s, g: (_whole(s),), _none,
    ),
    Task(
        "t2i", 13, "text to image", "text -> [image]", "--prompt TEXT --frames 1",
        lambda s, g: (_text(s), _image(s.codes, True)), _none,
    ),
    Task(
        "t2v", 14, "text to video", "text -> [video 0..t-1]", "--prompt TEXT",
        lambda s, g: (_text(s), _video(s, 0, len(s.codes), True)), _none, cells=2,
    ),
    Task(
        "i2v", 15, "a video that starts from an image", "text, image 0 -> [video 1..t-1]", "--image FIRST",
        lambda s, g: (_text(s), _image(s.codes, False), _rest(s, g.cells)), lambda s, r: Given(1), cells=2,
    ),
    Task(
        "continuation", 16, "the continuation of a video", "text, video 0..n-1 -> [video n..t-1]", "--video FILE",
        lambda s, g: (_text(s), _video(s, 0, g.cells, False), _rest(s, g.cells)), _any_number, cells=2,
    ),
    Task(
        "backward", 17, "a video that leads to an image or video", "text, guides t-n..t-1 -> [video 0..t-n]",
        "--last IMAGE, or --video FILE --task backward", _backward, _any_number, cells=2, keyframes=True,
    ),
    Task(
        "interpolation", 18, "the video between given frames",
        "text, image 0, guides at some of 1..t-1 -> [video 1..t-1]",
        "--image FIRST --last LAST, or --video FILE --task interpolation", _interpolation, _some_times,
        cells=2, keyframes=True,
    ),
    Task(
        "inpainting", 19, "a video or image painted anew where a mask says", "text, video with holes -> [its holes]",
        "--video or --image FILE --mask MASK", _painting,
        lambda s, r: _one_painting(s, "inpainting", r),
    ),
    Task(
        "outpainting", 20, "a video or image painted on beyond its borders",
        "text, video with blank borders -> [its borders]",
        "--video or --image FILE --outpaint LEFT,TOP,RIGHT,BOTTOM", _painting,
        lambda s, r: _one_painting(s, "outpainting", r), area=2,
    ),
)  # fmt: skip

TABLE: dict[str, Task] = {}
"""The tasks that there are, by name."""


def add(task: Task) -> None:
    """Make a task known: recipes can mix it, and bundles that were trained for it can serve it."""
    add_task(task.name, task.token)
    TABLE[task.name] = task


for _row in _ROWS:
    add(_row)

COMPOSED: tuple[Composition, ...] = (
    Composition(
        "t2i, then i2v", "an image first, then a video that starts from it",
        "text -> [image 0]; text, image 0 -> [video 1..t-1]", "--via-image", ("t2i", "i2v"),
    ),
    Composition(
        "long video", "a sliding window: each continues from the frames made last, encoded again",
        "text -> [video 0..t-1]; text, video 0..n-1 -> [video n..t-1]; ...", "--frames N, --window, --overlap",
        ("continuation",),
    ),
    Composition(
        "story", "a prompt that changes in time", "text 1 -> [video]; text 2, its end -> [video]; ...",
        '--then "FRAME: TEXT"', ("continuation",),
    ),
    Composition(
        "size, length, aspect", "any that the tokenizer has a grid for", "<target:video> fps time [t h w] ...",
        "--height, --width, --frames", (),
    ),
    Composition("frame rate", "a condition", "<target:video> [fps] time t h w ...", "--fps", ()),
)  # fmt: skip


def servable(trained: Collection[str]) -> list[Task | Composition]:
    """The rows of the table that a model can serve which was trained for these tasks."""
    return [row for row in TABLE.values() if row.name in trained] + [
        row for row in COMPOSED if set(row.of) <= set(trained)
    ]


@dataclass(frozen=True, slots=True)
class Mixture:
    """A weighted choice of tasks; weights need not sum to one."""

    weights: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> "Mixture":
        for name, weight in weights.items():
            if name not in TABLE:
                raise ConfigError(f"tasks.{name}: no such task; there are {', '.join(TABLE)}")
            if weight < 0:
                raise ConfigError(f"tasks.{name}: a weight is at least 0, not {weight}")
        if sum(weights.values()) <= 0:
            raise ConfigError("tasks: at least one task needs a weight above 0")
        return cls(tuple(sorted((name, weight) for name, weight in weights.items() if weight > 0)))

    def draw(self, sample: Sample, random: np.random.Generator) -> Document | None:
        """Choose a task among those that the sample trains, and arrange it; None if there is none."""
        fit = [(name, weight) for name, weight in self.weights if TABLE[name].trains(sample)]
        if not fit:
            return None
        total = sum(weight for _, weight in fit)
        task = TABLE[fit[int(random.choice(len(fit), p=[weight / total for _, weight in fit]))][0]]
        return task.document(sample, task.draw(sample, random))
