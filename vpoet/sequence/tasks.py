"""Tasks: how the text and the clip of one sample become a document (VideoPoet, section 3.3).

The same function arranges a sample for training, where all cells are known, and a request for sampling, where the
cells of the target are still blank. ``given`` is the number of leading cells in time that are context.

    unconditional   [video or image]
    t2i             text -> [image]
    t2v             text -> [video]
    i2v             text, image -> [video from cell 1 on]
    continuation    text, video of `given` cells -> [video from cell `given` on]
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vpoet.errors import ConfigError
from vpoet.sequence.document import Document, Span
from vpoet.sequence.vocabulary import TASKS, Ints, Modality


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One clip with its caption, in tokens."""

    text: Ints
    """Text pieces [n]; empty when the caption is dropped."""
    codes: Ints
    """[t, h, w]; an image has t = 1."""
    fps: int
    """Frames per second; 0 for an image."""


@dataclass(frozen=True, slots=True)
class Task:
    """One row of the task table."""

    name: str
    arrange: Callable[[Sample, int], tuple[Span, ...]]
    cells: int
    """Least number of cells in time that a sample needs."""
    given: Callable[[int], tuple[int, int]]
    """From the number of cells to the smallest and largest number that may be given as context."""

    def document(self, sample: Sample, given: int) -> Document:
        least, most = self.given(sample.codes.shape[0])
        assert least <= given <= most, (self.name, given, sample.codes.shape)
        return Document(self.name, self.arrange(sample, given))


def _text(sample: Sample) -> Span:
    return Span(Modality.TEXT, sample.text)


def _image(codes: Ints, target: bool) -> Span:
    return Span(Modality.IMAGE, codes[:1], target)


def _video(sample: Sample, start: int, stop: int, target: bool) -> Span:
    return Span(Modality.VIDEO, sample.codes[start:stop], target, fps=sample.fps, time=start)


def _whole(sample: Sample) -> Span:
    cells = sample.codes.shape[0]
    return _image(sample.codes, True) if sample.fps == 0 else _video(sample, 0, cells, True)


def _rest(sample: Sample, given: int) -> Span:
    return _video(sample, given, sample.codes.shape[0], True)


TABLE: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task("unconditional", lambda s, n: (_whole(s),), 1, lambda t: (0, 0)),
        Task("t2i", lambda s, n: (_text(s), _image(s.codes, True)), 1, lambda t: (0, 0)),
        Task("t2v", lambda s, n: (_text(s), _video(s, 0, s.codes.shape[0], True)), 2, lambda t: (0, 0)),
        Task("i2v", lambda s, n: (_text(s), _image(s.codes, False), _rest(s, 1)), 2, lambda t: (1, 1)),
        Task("continuation", lambda s, n: (_text(s), _video(s, 0, n, False), _rest(s, n)), 2, lambda t: (1, t - 1)),
    )
}
assert tuple(TABLE) == TASKS


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
        """Choose a task among those that the sample is long enough for, and arrange it; None if there is none."""
        cells = sample.codes.shape[0]
        fit = [(name, weight) for name, weight in self.weights if cells >= TABLE[name].cells]
        if not fit:
            return None
        total = sum(weight for _, weight in fit)
        task = TABLE[fit[int(random.choice(len(fit), p=[weight / total for _, weight in fit]))][0]]
        least, most = task.given(cells)
        return task.document(sample, int(random.integers(least, most + 1)))
