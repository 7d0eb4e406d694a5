"""What can be done in a recording, and the actions and outcomes of its steps as values of their vocabulary ranges.

actions     0 none, of the first frame    1 .. n       the action of index 0 .. n-1
                                          1 .. BINS    bins of equal width from low to high, a value a dimension
outcomes    indices of `OUTCOMES`
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vpoet.arrays import Doubles, Ints
from vpoet.errors import ConfigError, DataError
from vpoet.sequence.vocabulary import Vocabulary

NONE = 0
"""The action of a first frame, to which nothing led."""
BINS = 256
"""Of each dimension of a vector (RT-1, section 5.1)."""
START, UNKNOWN = 0, 1
OUTCOMES = (
    "start",
    "unknown",
    *(f"reward {sign}{end}" for end in ("", ", end") for sign in ("negative", "none", "positive")),
)
"""Of the first frame; of a recording that tells none; and what a step brought: the sign of its reward, and whether the
recording ended with it."""


@dataclass(kw_only=True)
class ActionSpace:
    """The actions that there are: names of indices, or the bounds of vectors."""

    names: list[str] = field(default_factory=list)
    """Of the actions, by index."""
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    """Bounds of each dimension of a vector, both within them."""

    def __post_init__(self) -> None:
        if bool(self.names) == bool(self.low) or len(self.low) != len(self.high):
            raise ConfigError("action_space: give names, or as many bounds low as high")
        if len(set(self.names)) < len(self.names):
            raise ConfigError(f"action_space: a name comes twice in {', '.join(self.names)}")
        if not all(-math.inf < a < b < math.inf for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError(f"action_space: each of low {self.low} must be below its high {self.high}")

    @classmethod
    def of(cls, told: object) -> "ActionSpace":
        """Of what a raw json or a manifest says; DataError if that is none."""
        if not isinstance(told, Mapping) or not told.keys() <= {"names", "low", "high"}:
            raise DataError('action_space is {"names": [...]} or {"low": [...], "high": [...]}')
        lists: dict[str, Any] = {name: value if isinstance(value, list) else [None] for name, value in told.items()}
        if not all(isinstance(name, str) and name for name in lists.get("names", [])):
            raise DataError("action_space: names are texts")
        if not all(_is_number(bound) for name in ("low", "high") for bound in lists.get(name, [])):
            raise DataError("action_space: low and high are numbers")
        try:
            return cls(**lists)
        except ConfigError as error:
            raise DataError(str(error)) from None

    def told(self) -> dict[str, Any]:
        """The inverse of `of`, for JSON."""
        return {name: values for name, values in asdict(self).items() if values}

    @property
    def arity(self) -> int:
        """Action tokens of a frame."""
        return len(self.low) or 1

    @property
    def ranges(self) -> tuple[tuple[str, int], ...]:
        """What play appends to a vocabulary: names and sizes."""
        return ("actions", 1 + (len(self.names) or BINS)), ("outcomes", len(OUTCOMES))

    def vocabulary(self, vocabulary: Vocabulary) -> Vocabulary:
        """With the ranges of actions and outcomes."""
        return replace(vocabulary, appended=(*vocabulary.appended, *self.ranges))

    def values(self, actions: Sequence[object] | npt.NDArray[Any]) -> Ints:
        """Actions to values [n, arity] of their range: indices or names, or vectors. DataError names a wrong one."""
        steps = [self._value(step, action) for step, action in enumerate(actions)]
        return np.array(steps, dtype=np.int32).reshape(-1, self.arity)

    def actions(self, values: Ints) -> list[int] | Doubles:
        """The inverse: indices, or vectors [n, arity] of the middles of their bins."""
        if self.names:
            return [int(value) - 1 for value in values[:, 0]]
        low, high = np.array(self.low), np.array(self.high)
        vectors: Doubles = low + (values - 0.5) / BINS * (high - low)
        return vectors

    def _value(self, step: int, action: Any) -> list[int]:
        if isinstance(action, np.ndarray | np.generic):
            action = action.tolist()
        if self.names:
            index = self.names.index(action) if action in self.names else action
            if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.names):
                there = ", ".join(f"{number} {name}" for number, name in enumerate(self.names))
                raise DataError(f"step {step}: no action {action!r}; there are {there}")
            return [index + 1]
        if not isinstance(action, list) or len(action) != self.arity or not all(map(_is_number, action)):
            raise DataError(f"step {step}: an action is a list of {self.arity} numbers, not {action!r}")
        shares = [(x - a) / (b - a) for x, a, b in zip(action, self.low, self.high, strict=True)]
        if not all(0 <= share <= 1 for share in shares):
            raise DataError(f"step {step}: {action} is outside {self.low} to {self.high}; widen action_space")
        return [1 + min(int(share * BINS), BINS - 1) for share in shares]


def outcome_values(rewards: Sequence[object], ends: Sequence[object]) -> Ints:
    """Values [n] of the outcomes of n steps; DataError if a reward is no number, or an end neither true nor false."""
    if not all(map(_is_number, rewards)) or not all(isinstance(end, bool | np.bool_) for end in ends):
        raise DataError("outcomes: a reward is a number, and an end is true or false")
    classes = np.sign(np.array(rewards, dtype=np.float64)).astype(np.int32) + 1
    return UNKNOWN + 1 + classes + 3 * np.array(ends, dtype=np.int32)


def _is_number(value: object) -> bool:
    """Whether it is one, and floating point has it."""
    try:
        return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False
