"""A protocol for rewards: players who are an expert for a share of the time and press random keys for the rest, and
what a model and the world pay them.

Whoever trains on a reward wants it to rank players as their returns do (VIPER: Escontrela et al., 2023,
arXiv:2305.14343, section 4.2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vpoet.errors import DataError
from vpoet.generate.model import Model
from vpoet.play.rewards import Earned, earned
from vpoet.worlds.recording import Recording, Sticky, record
from vpoet.worlds.world import SteppedWorld, World

FIRST = 2_000_000
"""Number of the first scene: no recording that is trained on comes near it."""
SHARES = tuple(tenth / 10 for tenth in range(11))
"""Of the time, in which keys are random: from an expert to chance."""


@dataclass(frozen=True, eq=False, slots=True)
class Told:
    """Of an episode: what a model says of its frames, and what the world paid."""

    returned: float
    nats: float
    """-log p a token, the mean over its frames but the first, which nobody has a hand in."""
    entropy: float
    """Nats a token that were to be expected, as before."""
    novelty: float
    """0 to 1, as before."""
    steps: int

    def value(self, entropy: float, novelty: float) -> float:
        """The mean reward with these weights (`vpoet.play.rewards.Terms`)."""
        return -self.nats + entropy * self.entropy + novelty * self.novelty


def mixed(expert: Callable[[], int], share: float, actions: int, random: np.random.Generator) -> Callable[[], int]:
    """Who acts as the ``expert`` but for a ``share`` of the time, in which random keys are held as recordings have
    them; it changes between the two when a key would be let go."""
    # -1 is the expert: it is at work for as long as a key would be held
    keys: Sticky[int] = Sticky(lambda: int(random.integers(actions)) if random.random() < share else -1, random)

    def act() -> int:
        key = keys()
        return expert() if key < 0 else key

    return act


def episode(world: SteppedWorld, clips: type[World], seed: int, share: float | None, steps: int) -> Recording[int]:
    """Who is played by an expert but for a ``share`` of the time, or stands still (None), from scene number ``seed``.

    DataError: the world knows no expert.
    """
    random = np.random.default_rng((seed, 3))
    first = world.reset(seed)
    act = (lambda: 0) if share is None else mixed(clips.expert(world, random), share, len(world.actions), random)
    return record(first, world.step, act, steps + 1)


def told(model: Model, recording: Recording[int]) -> Told:
    """What the model says of an episode. PromptError: it makes no videos of no prompt. DataError: too short an episode
    for it to see what came of one step."""
    cells: list[Earned] = list(earned(model, iter(recording.frames)))[1:]
    if not cells:
        raise DataError(
            f"an episode of {len(recording.actions)} steps, and this model sees what came of them from "
            f"{model.bundle.video.frames(2) - 1} on: give more --steps, or another --first if it ended early"
        )
    tokens = sum(cell.likely.tokens for cell in cells)
    return Told(
        returned=sum(recording.rewards),
        nats=sum(cell.likely.nats for cell in cells) / tokens,
        entropy=sum(cell.likely.entropy for cell in cells) / tokens,
        novelty=float(np.mean([cell.novelty for cell in cells])),
        steps=len(recording.actions),
    )
