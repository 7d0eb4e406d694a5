"""Conditions: what a clip was measured to be, told before its spans as pairs of a name and a number.

    <bos> <task:t2v> <condition:motion> 7 <condition:quality> 4 <context:text> ...

The number is that of the bucket that a measure falls into. Training leaves each pair out at random, so that nothing has
to be said (SDXL, Podell et al., arXiv:2307.01952, section 2.2, tells its network sizes in this way; Stable Video
Diffusion, arXiv:2311.15127, motion). The frame rate is no such pair: the header of a video says it.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from vpoet.errors import ConfigError
from vpoet.sequence.vocabulary import condition_names

Pairs = tuple[tuple[str, int], ...]
"""Names and numbers, in the order of `TABLE`, each name at most once."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table of conditions."""

    meaning: str
    measure: str
    """The measure of `vpoet measure` that it is, unless a recipe names another."""
    edges: tuple[float, ...]
    """Where one bucket ends and the next begins, unless a recipe says it."""
    still: bool
    """Whether it says anything of an image."""


TABLE = {
    "motion": Kind(
        "percent of the picture's height per second, the mean over all pixels", "motion",
        (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40), still=False,
    ),
    "quality": Kind(
        "0 to 1, rather a good photo than a bad one", "aesthetic", (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        still=True,
    ),
}  # fmt: skip
assert list(TABLE) == condition_names()


@dataclass(kw_only=True)
class Condition:
    """Of which measure a condition is told, and how finely."""

    measure: str = ""
    """A name of what `vpoet measure` measures; "": the condition's own (`TABLE`)."""
    edges: list[float] = field(default_factory=list)
    """Ascending: where one bucket ends and the next begins; none: the condition's own, for its own measure."""

    def bucket(self, value: float) -> int:
        """The number that a measured value is told by: 0 to the number of edges."""
        return bisect_right(self.edges, value)


@dataclass(kw_only=True)
class Learnt(Condition):
    """A condition as a trained model knows it."""

    met: list[int] = field(default_factory=list)
    """The buckets that clips of the training data were in, ascending; none: nobody knows."""

    def nearest(self, value: float) -> int:
        """The bucket of a value, or of those that were met the nearest to it."""
        wanted = self.bucket(value)
        return min(self.met, key=lambda bucket: abs(bucket - wanted), default=wanted)

    def ends(self, bucket: int) -> tuple[float | None, float | None]:
        """From where to where a bucket goes; None: it is open."""
        low, high = [None, *self.edges, None][bucket : bucket + 2]
        return low, high

    def inside(self, bucket: int) -> float:
        """A value of a bucket."""
        low, high = self.ends(bucket)
        if low is not None:
            return low if high is None else (low + high) / 2
        assert high is not None, "there is an edge"
        return high / 2 if high > 0 else high - 1

    def about(self, bucket: int) -> str:
        """From where to where a bucket goes, for people."""
        low, high = (None if end is None else f"{end:g}" for end in self.ends(bucket))
        if low is None:
            return f"below {high}"
        return f"{low} or more" if high is None else f"{low} to {high}"


def complete(conditions: Mapping[str, Condition]) -> None:
    """Fill in what the table says where a config says nothing. ConfigError: there is no such condition, or its edges
    don't ascend, are too many for a number, or are those of another measure."""
    for name, condition in conditions.items():
        key = f"conditions.{name}"
        if name not in TABLE:
            raise ConfigError(f"{key}: no such condition; there are {', '.join(TABLE)}")
        row = TABLE[name]
        condition.measure = condition.measure or row.measure
        if not condition.edges and condition.measure != row.measure:
            raise ConfigError(
                f"{key}.edges: the table's are those of {row.measure}; say where the buckets of {condition.measure} end"
            )
        condition.edges = condition.edges or list(row.edges)
        ascend = all(a < b for a, b in zip(condition.edges, condition.edges[1:], strict=False))
        if not ascend or not all(map(math.isfinite, condition.edges)) or len(condition.edges) > 255:
            raise ConfigError(f"{key}.edges = {condition.edges}: at most 255 numbers that ascend")
