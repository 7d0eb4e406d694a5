"""The learned world: a model that was trained for play, driven as a `vpoet.worlds.world.SteppedWorld` is.

    session.reset(seed, "a robot on grass")       the first frame
    session.step(2)                               the next one, its reward, and whether that is the end
    session.prompt("a robot on snow")             another prompt from here on
    session.fork()                                the same once more, to try something else

What is drawn in a frame is a function of the seed, the number of the frame and all that went before: a session and its
fork that are told the same show the same.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Codes, Floats, Frames, Ints
from vpoet.bundle import Bundle
from vpoet.errors import DataError, PromptError
from vpoet.generate.decoder import Decoding
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.generate.sampling import Sampling
from vpoet.generate.threads import few_threads
from vpoet.sequence.actions import OUTCOMES, ActionSpace
from vpoet.tokenizer.layers import Past

TASK = "play"


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """What a model that plays is beside its weights."""

    space: ActionSpace
    scene: Scene
    length: int
    """Tokens of a document at most, where the model has no window."""
    encode: Callable[[str], list[int]]
    """A text to its pieces."""
    show: Callable[[Codes, Past], Frames]
    """Codes [1, h, w] of the next frame to that frame [1, H, W, 3] (`VideoTokenizer.decode_next`)."""


def session(bundle: Bundle, decoding: Decoding, sampling: Sampling = Sampling()) -> "Session":
    """A world of a bundle's model. PromptError: it was not trained for play, or its tokenizer does not make a grid of
    codes for each frame."""
    config, tokenizer = bundle.config, bundle.video
    if TASK not in config.tasks or config.actions is None:
        raise PromptError(f"this model was not trained for {TASK}; it was for {', '.join(config.tasks)}")
    if tokenizer.stride[0] != 1:
        raise PromptError(
            f"this model's video tokenizer makes one grid of codes of {tokenizer.stride[0]} frames, and play needs one "
            "for each: train a tokenizer with time_stride 1"
        )
    _, height, width = tokenizer.grid(1, config.height, config.width)
    scene = Scene(fps=config.fps, grid=(height, width), actions=config.actions.arity)
    game = Game(
        space=config.actions, scene=scene, length=config.length, encode=bundle.text.encode, show=tokenizer.decode_next
    )
    return Session(decoding, game, sampling)


class Session:
    """One world that is played in."""

    def __init__(self, decoding: Decoding, game: Game, sampling: Sampling = Sampling()) -> None:
        self._decoding, self._game, self._sampling = decoding, game, sampling
        self.actions = tuple(game.space.names)
        """By name; an action is an index here. None where actions are vectors."""
        self.fps = float(game.scene.fps)
        self.outcome = OUTCOMES[0]
        """What came of the last step, one of `OUTCOMES`."""
        self.nats: Floats = np.zeros(0, np.float32)
        """[R]: -log p of each token of the last frame, its actions and outcome before its codes; 0 for those given."""
        self.codes: Codes = np.zeros(game.scene.grid, np.int32)
        """[h, w], of the last frame."""
        self.frame: Frames = np.zeros((0, 0, 3), np.uint8)
        """[H, W, 3]: the last one."""
        self._decoder: PlayDecoder | None = None
        self._past: Past = {}
        self._seed = 0

    def reset(self, seed: int, prompt: str = "") -> Frames:
        """Begin again: the first frame, uint8 [H, W, 3]. DataError: the seed is below 0; ShapeError: the prompt is too
        long; then all is as it was."""
        if not isinstance(seed, int | np.integer) or seed < 0:
            raise DataError(f"a seed is an integer of 0 or more, not {seed!r}")
        pieces = self._pieces(prompt)
        with few_threads(self._decoding.transformer):
            self._decoder = PlayDecoder(
                self._decoding, self._game.scene, [pieces], sampling=self._sampling, length=self._game.length
            )
        self._seed, self._past = seed, {}
        return self._next(self._decoder, None)

    def step(self, action: int | Sequence[float]) -> tuple[Frames, float, bool]:
        """The next frame; the sign of its reward, 0 where the model's recordings told none; whether that is the end:
        then only `reset` goes on.

        DataError: an action that there is not, after the end, or before `reset`. ShapeError: a model without a window
        can't go on.
        """
        if self._decoder is None:
            raise DataError("nothing has begun: reset first")
        if self.outcome.endswith("end"):
            raise DataError("this is the end: reset, or go on from a fork")
        frame = self._next(self._decoder, self._game.space.values([action]))
        sign = self.outcome.removeprefix("reward ").removesuffix(", end")
        return frame, {"negative": -1.0, "positive": 1.0}.get(sign, 0.0), self.outcome.endswith("end")

    def prompt(self, text: str) -> None:
        """Another prompt from the next frame on. PromptError: it is too long, or nothing has begun."""
        if self._decoder is None:
            raise PromptError("nothing has begun: give the first prompt to reset")
        with few_threads(self._decoding.transformer):
            self._decoder.tell([self._pieces(text)])

    def fork(self) -> "Session":
        """The same at the same frame."""
        other = copy.copy(self)
        other._decoder, other._past = self._decoder and self._decoder.fork(), dict(self._past)
        return other

    def _pieces(self, text: str) -> Ints:
        return np.array(self._game.encode(text), np.int32)

    def _next(self, decoder: PlayDecoder, action: Ints | None) -> Frames:
        generator = np.random.default_rng([self._seed, decoder.frames])
        with few_threads(self._decoding.transformer):
            played = decoder.step(action, [generator])
            self.outcome, self.nats = OUTCOMES[int(played.outcome_B[0])], played.nats_BR[0]
            self.codes = played.codes_Bhw[0]
            self.frame = self._game.show(self.codes[None], self._past)[-1]
        return self.frame
