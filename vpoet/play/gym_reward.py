"""An environment of gymnasium whose reward is how probable a model finds what it shows (extra ``gym``).

env = Likelihood(gymnasium.make("CarRacing-v3", render_mode="rgb_array"), vpoet.load("bundle"))
observation, reward, terminated, truncated, info = env.step(action)      info["reward"] is its own
"""

from typing import Any

import numpy as np

from vpoet.errors import BackendError, DataError
from vpoet.generate.model import Model
from vpoet.media.video import resize_frame
from vpoet.play.rewards import Earned, Judge, Terms

try:
    import gymnasium
except ImportError:
    raise BackendError('rewards for environments need gymnasium: pip install "vpoet[gym]"') from None


class Likelihood(gymnasium.Wrapper):
    """Frames are what the environment renders (``rgb_array``), brought to the model's size; a step is a frame.

    With a tokenizer that makes a grid of codes of r frames, every r-th step has a reward, and those between 0.
    """

    def __init__(self, env: Any, model: Model, prompt: str = "", terms: Terms = Terms()) -> None:
        """DataError: it renders no frames; else the errors of `vpoet.play.rewards.Judge`."""
        super().__init__(env)
        if env.render_mode != "rgb_array":
            raise DataError('the environment shows no frames: make it with render_mode="rgb_array"')
        self._told = model, prompt, terms
        self._judge = Judge(*self._told)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """The first frame is told the model, too."""
        observation, info = self.env.reset(**options)
        self._judge = Judge(*self._told)
        self._earned()
        return observation, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        told = self._earned()
        info = info | {"reward": reward} | ({} if told is None else {"nats": told.likely.nats, "new": told.novelty})
        return observation, 0.0 if told is None else told.value, terminated, truncated, info

    def _earned(self) -> Earned | None:
        config = self._told[0].bundle.config
        picture = np.asarray(self.env.render())
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"what the environment renders is no picture (uint8 [H, W, 3]): {picture.shape}")
        return self._judge(resize_frame(picture, config.height, config.width))
