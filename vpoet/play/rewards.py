"""A reward for acting as a model's training data do: the likelihood of what is seen (VIPER: Escontrela et al., 2023,
arXiv:2305.14343), and a term for seeing something new.

A still picture is the most probable of all: where nothing moves, nothing is to be foretold. Who is paid by likelihood
alone learns to stand still, in whatever data (section 3.3 there, and `tests/play/test_rewards.py`). Two things are
against it: the entropy that the model expected, which a still picture lacks as much as surprise; and the share of a
frame that no recent frame has shown, which whoever stands still, or goes to and fro, soon gets nothing for.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Frames, Mask
from vpoet.errors import ConfigError
from vpoet.generate.model import Model
from vpoet.generate.reward import Reward, Rewards

PATCH = 8
"""Pixels of a side of what is new or not."""
LEAST = 12
"""Of 255: a patch that is off by less, on average, is the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a reward is made of: log-likelihood + entropy weight * entropy + novelty weight * novelty."""

    entropy: float = 1.0
    """Weight of the nats per token that were expected: with 1 a reward is about 0 on average for who does as the data
    do, and below for who does not."""
    novelty: float = 5.0
    """Nats per token that a frame is worth that is new all over: enough that to stand still pays less than to walk,
    even where the model expects more to happen than does."""
    memory: int = 32
    """Frames that are remembered: what they showed is not new."""

    def __post_init__(self) -> None:
        if not (self.entropy >= 0 and self.novelty >= 0 and self.memory >= 1):
            raise ConfigError(
                f"entropy = {self.entropy} and novelty = {self.novelty} are 0 or more, memory = {self.memory} is 1 or "
                "more"
            )


@dataclass(frozen=True, slots=True)
class Earned:
    """By one cell of a stream."""

    likely: Reward
    novelty: float
    """0 to 1: the mean over its frames of the share that is new."""
    value: float
    """The reward: nats per token."""


class Judge:
    """Rewards of one stream of frames; another episode begins with another judge."""

    def __init__(self, model: Model, prompt: str = "", terms: Terms = Terms()) -> None:
        """The errors are those of `vpoet.generate.reward.Rewards`."""
        self._likelihood, self._terms = Rewards(model.bundle, model.decoding, prompt), terms
        self._memory = Memory(terms.memory)
        self._news: list[float] = []

    def __call__(self, frame: Frames) -> Earned | None:
        """What the cell has earned that a frame uint8 [H, W, 3] makes whole; None if it makes none so."""
        likely = self._likelihood(frame)
        self._news.append(self._memory(frame))
        if likely is None:
            return None
        novelty = sum(self._news) / len(self._news)
        self._news = []
        nats = -likely.nats + self._terms.entropy * likely.entropy
        return Earned(likely, novelty, nats / likely.tokens + self._terms.novelty * novelty)


def earned(model: Model, frames: Iterable[Frames], prompt: str = "", terms: Terms = Terms()) -> Iterator[Earned]:
    """Of each cell of a stream, as soon as its frames are there."""
    judge = Judge(model, prompt, terms)
    yield from (told for frame in frames if (told := judge(frame)) is not None)


class Memory:
    """The share of each frame that is new: of its patches, those that looked otherwise in all that is remembered."""

    def __init__(self, frames: int) -> None:
        self._held = deque[Frames](maxlen=frames)

    def __call__(self, frame: Frames) -> float:
        """0 for the first, to which nothing can be compared."""
        fresh = [_changed(frame, before) for before in self._held]
        self._held.append(frame.copy())
        return float(np.all(fresh, axis=0).mean()) if fresh else 0.0


def _changed(frame: Frames, before: Frames) -> Mask:
    """[h, w]: which patches differ; the last ones of a row or column may be smaller."""
    off = np.abs(frame.astype(np.int16) - before).mean(2)
    rows, columns = (np.arange(0, side, PATCH) for side in off.shape)
    sums = np.add.reduceat(np.add.reduceat(off, rows, axis=0), columns, axis=1)
    sizes = np.outer(*(np.diff([*starts, side]) for starts, side in zip((rows, columns), off.shape, strict=True)))
    return sums >= LEAST * sizes
