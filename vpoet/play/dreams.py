"""Learned worlds at the last frame of what was seen in a real one: what a planner imagines futures in."""

from vpoet.generate.environment import Session, session
from vpoet.generate.model import Model
from vpoet.generate.sampling import Sampling
from vpoet.play.control import Seen

_AROUND = 32
"""Tokens at most around the frames of a document, beside its prompt."""


class Dreams:
    """Of a model that was trained for play."""

    def __init__(
        self, model: Model, prompt: str = "", *, seed: int = 0, horizon: int, sampling: Sampling = Sampling()
    ) -> None:
        """``horizon``: frames that are imagined from a place at most. PromptError: the model was not trained for it."""
        self.model, self.prompt, self.seed, self._sampling = model, prompt, seed, sampling
        session(model.bundle, model.decoding, sampling)
        config = model.bundle.config
        _, height, width = model.bundle.video.grid(1, config.height, config.width)
        arity = config.actions.arity if config.actions else 1
        room = config.length - _AROUND - len(model.bundle.text.encode(prompt))
        self.most = max(room // (arity + 1 + height * width) - horizon, 1)
        """Frames that are told the model: the last ones that its document has room for, or that its window holds."""
        if config.window:
            self.most = config.window

    def __call__(self, seen: Seen) -> Session:
        """What is drawn of a plan is a function of the seed, the number of frames that were told, and the plan."""
        world = session(self.model.bundle, self.model.decoding, self._sampling)
        last = seen.last(self.most)
        world.begin(self.seed, self.prompt, last.frames, last.actions.tolist(), last.rewards)
        return world
