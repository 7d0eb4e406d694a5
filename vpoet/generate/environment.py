"""The learned world: a model that was trained for play, driven as a `vpoet.worlds.world.SteppedWorld` is.

    session.reset(seed, "a robot on grass")       the first frame
    session.begin(seed, prompt, frames, actions)  or frames that were seen, to go on from
    session.step(2)                               the next one, its reward, and whether that is the end
    session.prompt("a robot on snow")             another prompt from here on
    session.fork()                                the same once more, to try something else
    session.save()                                the same as bytes, for `restore` in whatever process

What is drawn in a frame is a function of the seed, the number of the frame and all that went before: a session and its
fork that are told the same show the same.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from vpoet.arrays import Codes, Floats, Frames, Ints
from vpoet.bundle import Bundle
from vpoet.errors import DataError, PromptError, ShapeError
from vpoet.generate.decoder import Decoding
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.generate.sampling import Sampling
from vpoet.generate.threads import few_threads, threads_left
from vpoet.sequence.actions import NONE, OUTCOMES, START, ActionSpace, outcome_values
from vpoet.tokenizer.layers import Past

TASK = "play"
_STATE = "state of a learned world"
_PAST = "past."


@dataclass(frozen=True, kw_only=True, eq=False)
class Game:
    """What a model that plays is beside its weights."""

    model: str
    """Hash of weights and vocabulary."""
    space: ActionSpace
    scene: Scene
    size: tuple[int, int]
    """Height and width of a frame, in pixels."""
    length: int
    """Tokens of a document at most, where the model has no window."""
    encode: Callable[[str], list[int]]
    """A text to its pieces."""
    show: Callable[[Codes, Past], Frames]
    """Codes [1, h, w] of the next frame to that frame [1, H, W, 3] (`VideoTokenizer.decode_next`)."""
    see: Callable[[Frames], Codes]
    """Frames [T, H, W, 3] to codes [T, h, w] (`VideoTokenizer.encode`)."""
    layers: Mapping[str, nn.Module] = field(default_factory=dict)
    """Those of the tokenizer by name: what a `Past` is of."""


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
        model=bundle.hash, space=config.actions, scene=scene, size=(config.height, config.width),
        length=config.length, encode=bundle.text.encode,
        show=tokenizer.decode_next, see=tokenizer.encode, layers=dict(tokenizer.model.named_modules()),
    )  # fmt: skip
    return Session(decoding, game, sampling)


class Session:
    """One world that is played in."""

    def __init__(self, decoding: Decoding, game: Game, sampling: Sampling = Sampling()) -> None:
        self._decoding, self._game, self._sampling = decoding, game, sampling
        self.actions = tuple(game.space.names)
        """By name; an action is an index here. None where actions are vectors."""
        self.fps = float(game.scene.fps)
        self.size = game.size
        """Height and width of a frame, in pixels."""
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
        self._decoder, self._seed, self._past = self._read(prompt), seed, {}
        return self._next(self._decoder, None)

    def begin(
        self,
        seed: int,
        prompt: str,
        frames: Frames,
        actions: Sequence[int | Sequence[float]] = (),
        rewards: Sequence[float] | None = None,
    ) -> Frames:
        """Begin behind frames that were seen, uint8 [T, H, W, 3], and the T - 1 actions and rewards (None: 0 each)
        between them; the last one, as the model's tokenizer shows it.

        ShapeError: the frames are of another size than the model's, or more than a model without a window can see;
        DataError: actions that there are not, or as many as do not lead from one frame to the next.
        """
        rewards = [0.0] * len(actions) if rewards is None else rewards
        if not len(frames) == len(actions) + 1 == len(rewards) + 1:
            told = f"{len(frames)} frames, {len(actions)} actions, {len(rewards)} rewards"
            raise DataError(f"{told}: there is an action and a reward between each two frames")
        codes = self._game.see(frames)
        if codes.shape[1:] != self._game.scene.grid:
            raise ShapeError(
                f"frames of {codes.shape[1]} x {codes.shape[2]} cells, and those of this model have "
                f"{' x '.join(map(str, self._game.scene.grid))}"
            )
        values = np.full((len(frames), self._game.space.arity), NONE, np.int32)
        outcomes = np.full((len(frames), 1), START, np.int32)
        values[1:] = self._game.space.values(actions)
        outcomes[1:, 0] = outcome_values(rewards, [False] * len(rewards))
        rows = np.concatenate([values, outcomes, codes.reshape(len(codes), -1)], 1)
        decoder, past = self._read(prompt), Past()
        with few_threads(self._decoding.transformer):
            for row, seen in zip(rows, codes, strict=True):
                decoder.give(row[None])
                self.frame = self._game.show(seen[None], past)[-1]
        self._decoder, self._seed, self._past, self.codes = decoder, seed, past, codes[-1]
        self.outcome, self.nats = OUTCOMES[int(outcomes[-1, 0])], np.zeros(rows.shape[1], np.float32)
        return self.frame

    def step(self, action: int | Sequence[float]) -> tuple[Frames, float, bool]:
        """The next frame; the sign of its reward, 0 where the model's recordings told none; whether that is the end:
        then only `reset` goes on.

        DataError: an action that there is not, after the end, or before `reset`. ShapeError: a model without a window
        can't go on.
        """
        frame = self._next(self._going(), self._game.space.values([action]))
        return frame, *_came(self.outcome)

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

    def branches(self) -> "Branches | None":
        """Worlds that go on from this frame side by side. DataError: nothing has begun, or this is the end.

        None where passes are built for one world (`Decoding.build_play`), and forks are the only way.
        """
        decoder = self._going()
        if self._decoding.build_play is not None:
            return None
        return Branches(self._decoding, self._game, self._seed, decoder, self._past)

    @property
    def lanes(self) -> int:
        """Groups of `branches` that are stepped at once, in a thread each, sooner than as one."""
        return threads_left(self._decoding.transformer)

    def save(self) -> bytes:
        """The whole state. DataError: nothing has begun."""
        if self._decoder is None:
            raise DataError("nothing has begun: reset first")
        names = {layer: name for name, layer in self._game.layers.items()}
        shown = {"frame": self.frame, "codes": self.codes, "nats": self.nats}
        tensors = self._decoder.state() | {name: torch.from_numpy(x) for name, x in shown.items()}
        tensors |= {_PAST + names[layer]: x for layer, x in self._past.items()}
        told = {"seed": int(self._seed), "outcome": self.outcome, "model": self._game.model}
        data = save(tensors, {_STATE: json.dumps(told)})
        return hashlib.sha256(data).digest() + data

    def restore(self, state: bytes) -> None:
        """Go on from a state that a session of the same model saved. DataError for anything else."""
        told, tensors = _told(state)
        if told.get("model") != self._game.model:
            raise DataError(f"a {_STATE} of model {told.get('model')}; this is {self._game.model}")
        decoder = self._read("")
        try:
            decoder.put(tensors)
        except (KeyError, RuntimeError):
            raise DataError(f"a {_STATE} with another window or guidance than this one's") from None
        self._decoder, self._seed, self.outcome = decoder, told["seed"], told["outcome"]
        self.frame, self.codes, self.nats = (tensors[name].numpy() for name in ("frame", "codes", "nats"))
        layers = self._game.layers
        self._past = {layers[name.removeprefix(_PAST)]: x for name, x in tensors.items() if name.startswith(_PAST)}

    def _going(self) -> PlayDecoder:
        if self._decoder is None:
            raise DataError("nothing has begun: reset first")
        if self.outcome.endswith("end"):
            raise DataError("this is the end: reset, or go on from a fork")
        return self._decoder

    def _read(self, prompt: str) -> PlayDecoder:
        pieces = self._pieces(prompt)
        with few_threads(self._decoding.transformer):
            return PlayDecoder(
                self._decoding, self._game.scene, [pieces], sampling=self._sampling, length=self._game.length
            )

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


class Branches:
    """Worlds that have a beginning in common, on one cache: what a session's forks would show one after the other, in
    one pass a step for all of them.

    The same bits, wherever a token gets the same ones alone and beside others (`vpoet.nn.steady`; what is not sure of
    that guesses nothing); elsewhere a draw between codes that are as probable to rounding may fall the other way.
    """

    def __init__(self, decoding: Decoding, game: Game, seed: int, decoder: PlayDecoder, past: Past) -> None:
        self._decoding, self._game, self._seed = decoding, game, seed
        self._decoder, self._pasts, self._begun = decoder, [past], False

    def step(self, parents: Sequence[int], actions: Sequence[Any]) -> list[tuple[Frames, float, bool]]:
        """The next frame, reward and end of each world, as of `Session.step`: number i goes on from number
        ``parents[i]`` of the step before (in the first one from 0, the session) by ``actions[i]``. None may go on from
        an end.

        DataError: an action that there is not. ShapeError: a model without a window can't go on.
        """
        values = self._game.space.values(list(actions))
        if not self._begun or list(parents) != list(range(len(self._pasts))):
            self._decoder, self._begun = self._decoder.fork(parents), True
            self._pasts = [dict(self._pasts[parent]) for parent in parents]
        generators = [np.random.default_rng([self._seed, self._decoder.frames]) for _ in parents]
        with few_threads(self._decoding.transformer):
            played = self._decoder.step(values, generators)
            shown = zip(played.codes_Bhw, self._pasts, strict=True)
            frames = [self._game.show(codes[None], past)[-1] for codes, past in shown]
        outcomes = [OUTCOMES[int(outcome)] for outcome in played.outcome_B]
        return [(frame, *_came(outcome)) for frame, outcome in zip(frames, outcomes, strict=True)]


def _came(outcome: str) -> tuple[float, bool]:
    """The sign of the reward that an outcome says, and whether it is the end."""
    sign = outcome.removeprefix("reward ").removesuffix(", end")
    return {"negative": -1.0, "positive": 1.0}.get(sign, 0.0), outcome.endswith("end")


def _told(state: bytes) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What `Session.save` wrote: what it says, and its tensors."""
    digest, data = state[:32], state[32:]
    if hashlib.sha256(data).digest() != digest:
        raise DataError(f"this is no saved {_STATE}, or it is damaged")
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return json.loads(header["__metadata__"][_STATE]), tensors
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise DataError(f"this is no saved {_STATE}") from None
