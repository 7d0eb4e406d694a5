"""What a text says, as a goal: how much more probable it makes a future."""

from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Codes, Doubles
from vpoet.generate.asks.table import served
from vpoet.generate.model import Model
from vpoet.play.futures import Future
from vpoet.sequence.actions import outcome_values
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document


@dataclass(frozen=True, eq=False)
class GoalText:
    """A cost in nats: -log p(frames | text) + log p(frames), that is, up to a constant, -log p(text | frames).

    Frames are scored as a clip by a model that was trained to make videos of texts, as `Model.score` does; by one that
    was trained for play alone, as played, given the actions.
    """

    model: Model
    text: str

    def __call__(self, future: Future) -> Doubles:
        count, stride = len(future), self.model.bundle.video.stride[0]
        whole = 1 + (count - 1) // stride * stride
        if whole < 2:
            return np.full(count, np.inf)  # a single frame is no video
        codes = self.model.bundle.video.encode(future.frames[:whole])
        told, untold = self.model.likelihoods([self._document(future, codes, text) for text in (self.text, "")])
        gained = (told.by_time - untold.by_time).cumsum()
        cells: Doubles = gained[np.minimum((np.arange(count) + stride - 1) // stride, len(gained) - 1)]
        return cells

    def _document(self, future: Future, codes: Codes, text: str) -> Document:
        bundle, config = self.model.bundle, self.model.bundle.config
        if "t2v" in config.tasks or config.actions is None:
            return self.model.observed(codes, float(config.fps), text)
        ends = [False] * (len(codes) - 2) + [future.ended]
        sample = Sample(
            np.array(bundle.text.encode(text), np.int32), codes, config.fps,
            actions=config.actions.values(future.taken[1:].tolist()),
            outcomes=outcome_values(future.rewards[1:].tolist(), ends),
        )  # fmt: skip
        return served(bundle, sample, "play", Given())
