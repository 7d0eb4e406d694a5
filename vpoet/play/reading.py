"""Actions read off videos, real or sampled, by what the model was trained for.

play       those that explain the frames best, to a model that plays (`vpoet.play.likeliest`)
inverse    those that the task `inverse` reads (`vpoet.play.inverse`), which knows vectors as well
"""

from pathlib import Path

from vpoet.arrays import Codes
from vpoet.errors import ConfigError, PromptError
from vpoet.generate.model import Model
from vpoet.generate.observe import MOST, fit
from vpoet.media.video import Video
from vpoet.play.inverse import Inferred, between, space_of
from vpoet.play.likeliest import explains, likeliest
from vpoet.sequence.actions import ActionSpace

WAYS = ("play", "inverse")


def infer(model: Model, codes: Codes, prompt: str = "", by: str = "") -> Inferred:
    """The actions between a video's codes [T, h, w], T 2 or more, by one of `WAYS`; "": the first that the model can.

    PromptError: the model was not trained for it. ShapeError: a single frame, or the prompt is too long.
    """
    space(model, by)
    return likeliest(model, codes, prompt) if _way(model, by) == "play" else between(model, codes, prompt)


def actions_of(
    model: Model, video: Video | str | Path, prompt: str = "", by: str = ""
) -> tuple[Inferred, tuple[str, ...]]:
    """`infer` of a whole video, brought to the model's size and rate; and what was done to it.

    DataError, ShapeError: the video can't be read, or has one frame.
    """
    space(model, by)
    fitted = fit(model.bundle, video, most=MOST)
    codes = model.bundle.video.encode(fitted.video)
    return infer(model, codes, prompt, by), fitted.changes


def space(model: Model, by: str = "") -> ActionSpace:
    """Of a model that reads actions by this way. PromptError: it was not trained for it. ConfigError: no such way."""
    if by not in ("", *WAYS):
        raise ConfigError(f"by = {by}: it is {' or '.join(WAYS)}")
    if _way(model, by) == "inverse":
        return space_of(model)
    if not explains(model):
        raise PromptError("by play actions are read that have names, by a model that was trained for play; try inverse")
    found = model.bundle.config.actions
    assert found is not None
    return found


def _way(model: Model, by: str) -> str:
    return by or WAYS[0 if explains(model) else 1]
