"""How fast a video tokenizer's training goes, and the console's line about it."""

import time
from collections.abc import Mapping

from vpoet.training.codec.recipe import VideoTokenizerRecipe


class Pace:
    """Clips per second, of all processes, since it was made or last told to `restart`."""

    def __init__(self, recipe: VideoTokenizerRecipe, step: int) -> None:
        self._recipe = recipe
        self.restart(step)

    def restart(self, step: int) -> None:
        """What has passed until now, after ``step`` steps, does not count."""
        self._began, self._step = time.perf_counter(), step

    def read(self, step: int) -> float:
        return self._recipe.batch * (step - self._step) / (time.perf_counter() - self._began)

    def line(self, step: int, values: Mapping[str, float], speed: float) -> str:
        """For the person waiting."""
        left = int(self._recipe.batch * (self._recipe.steps - step) / speed)
        return (
            f"step {step}/{self._recipe.steps}  loss {values['loss']:.4f}  l1 {values['l1']:.4f}  "
            f"|g| {values['gradient']:.2f}  lr {values['lr']:.1e}  {speed:.1f} clips/s  "
            f"left {left // 60}:{left % 60:02}"
        )
