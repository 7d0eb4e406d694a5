"""Tasks: how the text and the clip of one sample become a document (VideoPoet, section 3.3).

The same function arranges a sample for training, where all cells are known, and a request for sampling, where the
cells of the target are still blank. `TABLE` holds the tasks that have a token of their own, `COMPOSED` what sampling
makes of several of them or with their headers; `vpoet inspect` and sample/README.md show both. In the drawings of a
sequence, brackets are around what is produced, and numbers are cells of time; the clip has t of them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from vpoet.errors import ConfigError
from vpoet.sequence import arrangements
from vpoet.sequence.arrangements import LATEST, Given, Sample
from vpoet.sequence.conditions import TABLE as TOLD
from vpoet.sequence.conditions import Pairs
from vpoet.sequence.document import Document, Part, Span
from vpoet.sequence.vocabulary import Modality, add_task

PAINTED = ("inpainting", "outpainting")
"""The tasks that give a clip with hidden cells."""


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the task table."""

    name: str
    token: int
    """Its special token; a new task takes the next free one (`add`)."""
    meaning: str
    drawing: str
    flag: str
    """How `vpoet sample` asks for it; empty: not at all."""
    arrange: Callable[[Sample, Given], tuple[Span, ...]]
    draw: Callable[[Sample, np.random.Generator], Given]
    """What training gives of a sample that it `trains` on."""
    cells: int = 1
    """Least number of cells in time that a sample needs."""
    area: int = 1
    """Least number of cells in height times width."""
    keyframes: bool = False
    """Needs a sample's keyframes."""
    needs: str = ""
    """The field of a `Sample`, its actions, timeline, segments or coarse window, that it needs besides."""
    longest: int = 255
    """Most cells in time."""

    def fits(self, sample: Sample) -> bool:
        t, h, w = sample.codes.shape
        there = not self.needs or getattr(sample, self.needs) is not None
        there = there and (sample.coarse is None or self.needs == "coarse")  # captions are of clips, not of their tiles
        sized = self.cells <= t <= self.longest and h * w >= self.area
        return sized and there and (sample.keyframes is not None or not self.keyframes)

    def trains(self, sample: Sample) -> bool:
        """Whether it `fits`, and there is something to `draw` from."""
        painted = self.name not in PAINTED or any(painting.task == self.name for painting in sample.paintings)
        return self.fits(sample) and painted

    def document(self, sample: Sample, given: Given = Given()) -> Document:
        """The document of a sample that `fits`, with as much context as ``given`` says."""
        assert self.fits(sample), (self.name, sample.codes.shape)
        document = Document(self.name, self.arrange(sample, given))
        document = replace(document, conditions=self._told(document, sample.conditions))
        assert any(mask.any() for mask in document.predicted()), (self.name, given, sample.codes.shape)
        return document

    def _told(self, document: Document, conditions: Pairs) -> Pairs:
        """Those that mean something: of an image some don't, and what a task makes of more than a clip is told by that:
        a model that knows how much will move need not look at what is done."""
        moves = any(span.target and span.modality is Modality.VIDEO for span in document.spans)
        return () if self.needs else tuple(pair for pair in conditions if moves or TOLD[pair[0]].still)


@dataclass(frozen=True, slots=True)
class Composition:
    """A row of the table without a token of its own."""

    name: str
    meaning: str
    drawing: str
    flag: str
    of: tuple[str, ...]
    """The tasks that it is made of; empty: it goes with each."""


_ROWS = (
    Task(
        "unconditional", 12, "a clip without a prompt", "[video or image]", "no --prompt",
        arrangements.unconditional, arrangements.nothing,
    ),
    Task(
        "t2i", 13, "text to image", "text -> [image]", "--prompt TEXT --frames 1",
        arrangements.text_to_image, arrangements.nothing,
    ),
    Task(
        "t2v", 14, "text to video", "text -> [video 0..t-1]", "--prompt TEXT",
        arrangements.text_to_video, arrangements.nothing, cells=2,
    ),
    Task(
        "i2v", 15, "a video that starts from an image", "text, image 0 -> [video 1..t-1]", "--image FIRST",
        arrangements.image_to_video, arrangements.first_cell, cells=2,
    ),
    Task(
        "continuation", 16, "the continuation of a video", "text, video 0..n-1 -> [video n..t-1]", "--video FILE",
        arrangements.continuation, arrangements.any_number, cells=2,
    ),
    Task(
        "backward", 17, "a video that leads to an image or video", "text, guides t-n..t-1 -> [video 0..t-n]",
        "--last IMAGE, or --video FILE --task backward",
        arrangements.backward, arrangements.any_number, cells=2, keyframes=True,
    ),
    Task(
        "interpolation", 18, "the video between given frames",
        "text, image 0, guides at some of 1..t-1 -> [video 1..t-1]",
        "--image FIRST --last LAST, or --video FILE --task interpolation",
        arrangements.interpolation, arrangements.some_times, cells=2, keyframes=True,
    ),
    Task(
        "inpainting", 19, "a video or image painted anew where a mask says", "text, video with holes -> [its holes]",
        "--video or --image FILE --mask MASK",
        arrangements.painting, partial(arrangements.one_painting, "inpainting"),
    ),
    Task(
        "outpainting", 20, "a video or image painted on beyond its borders",
        "text, video with blank borders -> [its borders]",
        "--video or --image FILE --outpaint LEFT,TOP,RIGHT,BOTTOM",
        arrangements.painting, partial(arrangements.one_painting, "outpainting"), area=2,
    ),
    Task(
        "play", 25, "what a world shows next, and what comes of an action, frame by frame",
        "text -> {action [outcome] [frame]} ..., text -> ...", "",
        partial(arrangements.played, Part.OUTCOMES | Part.FRAMES), arrangements.a_stretch,
        cells=2, needs="actions", longest=LATEST,
    ),
    Task(
        "inverse", 26, "the actions between the frames of a video", "text, video 0..t-1 -> {[action]} ...", "",
        arrangements.inverse, arrangements.a_short_stretch, cells=2, needs="actions", longest=LATEST,
    ),
    Task(
        "policy", 27, "what to do, with what comes of it", "text -> {[action] [outcome] [frame]} ..., text -> ...", "",
        partial(arrangements.played, Part.ACTIONS | Part.OUTCOMES | Part.FRAMES), arrangements.a_stretch,
        cells=2, needs="actions", longest=LATEST,
    ),
    Task(
        "timeline", 28, "a video whose prompt changes in time", "text -> [video 0..n-1], text -> [video n..t-1], ...",
        "", arrangements.timeline, arrangements.nothing, cells=2, needs="timeline",
    ),
    Task(
        "interleaved", 29, "texts, images and videos in any order", "text, image -> [text], [video], ...", "",
        arrangements.interleaved, arrangements.some_segments, cells=0, area=0, needs="segments",
    ),
    Task(
        "sr", 30, "super-resolution: a tile of a video or image, twice as fine as it is given",
        "text, window 0..t-1 -> [its middle, finer, t..2t-1]", "--video or --image FILE --upscale",
        arrangements.finer, arrangements.misread_window, needs="coarse", longest=127,
    ),
)  # fmt: skip

WHOLE = ("t2v", "unconditional")
"""Tasks whose clip is made whole: they need codes of no image, as a tokenizer that is not causal has none."""

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
