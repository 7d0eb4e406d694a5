"""The learned world: a model that was trained for play, driven as a `vpoet.worlds.world.SteppedWorld` is.

    session.reset(seed, "a robot on grass")       the first frame
    session.step(2)                               the next one, its reward, and whether that is the end
    session.prompt("a robot on snow")             another prompt from here on
    session.fork()                                the same once more, to try something else

What is drawn in a frame is a function of the seed, the number of the frame and all that went before: a session and its
fork that are told the same show the same. Frames are shown as codes [h, w].
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vpoet.arrays import Codes, Floats, Ints
from vpoet.errors import DataError, PromptError
from vpoet.generate.decoder import Decoding
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.generate.sampling import Sampling
from vpoet.sequence.actions import OUTCOMES, ActionSpace


class Session:
    """One world that is played in."""

    def __init__(
        self,
        decoding: Decoding,
        space: ActionSpace,
        scene: Scene,
        encode: Callable[[str], list[int]],
        *,
        sampling: Sampling = Sampling(),
        length: int,
        width: int = 1,
    ) -> None:
        """``encode`` makes pieces of a text; ``length``, ``width``: as in `PlayDecoder`."""
        assert space.arity == scene.actions, (space, scene)
        self.actions = tuple(space.names)
        """By name; an action is an index here. None where actions are vectors."""
        self.fps = float(scene.fps)
        self.outcome = OUTCOMES[0]
        """What came of the last step, one of `OUTCOMES`."""
        self.nats: Floats = np.zeros(0, np.float32)
        """[R]: -log p of each token of the last frame, its actions and outcome before its codes; 0 for those given."""
        self._decoding, self._scene, self._space, self._encode = decoding, scene, space, encode
        self._how: dict[str, Any] = {"sampling": sampling, "length": length, "width": width}
        self._decoder: PlayDecoder | None = None
        self._seed = 0

    def reset(self, seed: int, prompt: str = "") -> Codes:
        """Begin again: the first frame. ShapeError: the prompt is too long."""
        self._decoder, self._seed = PlayDecoder(self._decoding, self._scene, [self._pieces(prompt)], **self._how), seed
        return self._next(self._decoder, None)

    def step(self, action: int | Sequence[float]) -> tuple[Codes, float, bool]:
        """The next frame; the sign of its reward, 0 where the model's recordings told none; whether that is the end:
        then only `reset` goes on.

        DataError: an action that there is not, after the end, or before `reset`. ShapeError: a model without a window
        can't go on.
        """
        if self._decoder is None:
            raise DataError("nothing has begun: reset first")
        if self.outcome.endswith("end"):
            raise DataError("this is the end: reset, or go on from a fork")
        codes = self._next(self._decoder, self._space.values([action]))
        reward = {"negative": -1.0, "positive": 1.0}.get(
            self.outcome.removesuffix(", end").removeprefix("reward "), 0.0
        )
        return codes, reward, self.outcome.endswith("end")

    def prompt(self, text: str) -> None:
        """Another prompt from the next frame on. PromptError: it is too long, or nothing has begun."""
        if self._decoder is None:
            raise PromptError("nothing has begun: give the first prompt to reset")
        self._decoder.tell([self._pieces(text)])

    def fork(self) -> "Session":
        """The same at the same frame."""
        other = copy.copy(self)
        other._decoder = self._decoder and self._decoder.fork()
        return other

    def _pieces(self, text: str) -> Ints:
        return np.array(self._encode(text), np.int32)

    def _next(self, decoder: PlayDecoder, action: Ints | None) -> Codes:
        played = decoder.step(action, [np.random.default_rng([self._seed, decoder.frames])])
        self.outcome, self.nats = OUTCOMES[int(played.outcome_B[0])], played.nats_BR[0]
        codes: Codes = played.codes_Bhw[0]
        return codes
