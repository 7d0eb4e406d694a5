"""The playground, played by somebody who changes their mind: half of the keys are any, the others lead to the coin.

Who goes for the coin is often on the ladder or in the air, but presses there what leads on; whose keys are random
seldom gets there. A model that saw these two alone does not learn what the other keys do in such places.
"""

from collections.abc import Callable

import numpy as np

from vpoet.worlds.playground.physics import ACTIONS
from vpoet.worlds.playground.recordings import Recordings
from vpoet.worlds.playground.stepped import scene

RANDOM = 0.5
"""Of the keys."""


class Restless(Recordings):
    """Clip number n plays in the scene of the playground's number n."""

    name = "restless"

    @staticmethod
    def attributes(seed: int) -> dict[str, str]:
        return scene(seed) | {"policy": "restless"}

    def _player(self, policy: str, random: np.random.Generator) -> Callable[[], int]:
        expert = super()._player(policy, random)
        return lambda: int(random.integers(len(ACTIONS))) if random.random() < RANDOM else expert()


WORLD = Restless
