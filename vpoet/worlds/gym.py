"""Any environment of gymnasium (https://gymnasium.farama.org) as a world to act in: ``env:NAME``.

Frames are its pixel observations, or else what it renders, squeezed to the asked size whole: a centre cut out of a game
would lose its edges. The rate is its own, a step a frame. A time limit of its registration is left out: no frame shows
it coming.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from zlib import crc32

import numpy as np
from PIL import Image

from vpoet.arrays import Frames
from vpoet.errors import DataError
from vpoet.worlds.environments import MODULES, known
from vpoet.worlds.environments.known import Environment
from vpoet.worlds.recording import Recording, Sticky, record

ENV = "env:"
PACKAGES = {"ALE": ("ale_py", "atari"), "gym_pusht": ("gym_pusht", "gym")}
"""Of each namespace of environments: the package that registers it, and the extra of vpoet that installs that."""
POLICIES = "random", "player"
"""Of those that vpoet knows, half of the recordings are played by each."""
_BEFORE = 48
"""Steps at most that a recording begins after its episode does."""


class GymWorld:
    """A `vpoet.worlds.world.SteppedWorld`. Where actions are vectors, `actions` is empty and `bounds` are theirs.

    A saved state is the seed and the actions since: `restore` plays them again, in as long a time, and refuses an
    environment that does not come to the same frame. Rewards have nine digits: the last ones of PushT's depend on
    where in memory its shapes lie.
    """

    def __init__(self, name: str, height: int = 64, width: int = 64) -> None:
        """DataError: it is not installed, not known, shows no frames, or its actions are no list or bounded vector."""
        self.name, self._size = name, (height, width)
        self.known = known(name)
        """What vpoet knows of it, if it does (`vpoet.worlds.environments`)."""
        self._env = _make(name)
        self._observed = _is_picture(self._env.observation_space)
        self.fps = float(self._env.metadata.get("render_fps") or 0)
        if not self.fps > 0:
            raise DataError(f"{ENV}{name}: it says no rate (render_fps)")
        self.actions, self.bounds = _actions(self._env, name)
        with _refusals(name):  # what it draws with may be missing, which it first says when it draws
            self.reset(0)

    def reset(self, seed: int, prompt: str = "") -> Frames:
        """DataError: a prompt, as an environment is told nothing but its seed, which is 0 or more."""
        if prompt not in ("", self.caption):
            raise DataError(f"{ENV}{self.name}: it can be told a seed, and no prompt but {self.caption!r}")
        if seed < 0:
            raise DataError(f"{ENV}{self.name}: a seed is 0 or more, not {seed}")
        observation, self._info = self._env.reset(seed=seed)
        self._seed, self._taken, self._ended = seed, list[Any](), False
        self._frame = self._shown(observation)
        return self._frame

    @property
    def caption(self) -> str:
        """Its name, without namespace and version."""
        return str(self._env.spec.name)

    def step(self, action: int | Sequence[float]) -> tuple[Frames, float, bool]:
        if self._ended:
            raise DataError(f"{ENV}{self.name}: the end is reached; reset or restore")
        observation, reward, terminated, truncated, self._info = self._env.step(self._given(action))
        self._taken.append(action if isinstance(action, int) else [float(value) for value in action])
        self._ended = bool(terminated or truncated)
        self._frame = self._shown(observation)
        return self._frame, float(f"{reward:.9g}"), self._ended

    def save(self) -> bytes:
        state = {"env": self.name, "seed": self._seed, "actions": self._taken, "frame": crc32(self._frame.tobytes())}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        try:
            told = json.loads(state)
            name, seed, actions, frame = (told[key] for key in ("env", "seed", "actions", "frame"))
        except (ValueError, TypeError, KeyError):
            raise DataError(f"this is no saved state of {ENV}{self.name}") from None
        if name != self.name:
            raise DataError(f"a state of {ENV}{name}; this is {ENV}{self.name}")
        self.reset(seed)
        for action in actions:
            self.step(action)
        if crc32(self._frame.tobytes()) != frame:
            raise DataError(
                f"{ENV}{name}: the same seed and actions came to another frame (or the state was saved at another "
                "size): this environment cannot be restored"
            )

    @property
    def truth(self) -> dict[str, Any]:
        """The numbers that the environment tells beside its frames, and the memory (``ram``) of an Atari console; of
        those that vpoet knows, what is where, by name."""
        told = {key: np.asarray(value).tolist() for key, value in self._info.items()}
        if (console := getattr(self._env.unwrapped, "ale", None)) is not None:
            told["ram"] = console.getRAM().tolist()
        return told | (self.known.truth(told) if self.known else {})

    def see(self, frames: Frames) -> list[dict[str, Any]]:
        """What each of the frames uint8 [T, H, W, 3] shows, by the names that `Measure.keys` say; None for what is not
        to be seen. DataError: vpoet does not know what the frames of this environment show."""
        return self._judge.see(frames)

    @cached_property
    def _judge(self) -> Environment:
        if self.known is None:
            raise DataError(
                f"{ENV}{self.name}: it has no judge; {', '.join(ENV + name for name in MODULES)} and worlds of vpoet "
                "(world:NAME) have"
            )
        return self.known(partial(_make, self.name), self._squeezed)

    def clip(self, seed: int, frames: int) -> tuple[Frames, dict[str, Any]]:
        """A recording of ``frames`` frames, or fewer if the end comes before, of random actions, each held for a while;
        of an environment that vpoet knows, every other one is of somebody who plays for something.

        It begins some steps after its episode. ``state``, in hex, is what `save` gave at its first frame, and ``truth``
        what is where in each, where that is known.
        """
        random = np.random.default_rng(seed)
        policy = POLICIES[seed % 2 if self.known else 0]
        sticky: Sticky[Any] = Sticky(lambda: self._draw(random), random)
        act: Callable[[], Any] = sticky
        if self.known and policy == "player":
            player = self.known.player(random)
            act = lambda: player(self.truth)  # noqa: E731
        first = self.reset(seed)
        before: Recording[Any] = record(first, self.step, act, int(random.integers(_BEFORE + 1)) + 1)
        first = self.reset(seed) if before.ended else before.frames[-1]
        state, truths = self.save().hex(), [self.truth]

        def step(action: Any) -> tuple[Frames, float, bool]:
            told = self.step(action)
            truths.append(self.truth)
            return told

        recording: Recording[Any] = record(first, step, act, frames)
        low, high = self.bounds or ([], [])
        names = [key for measure in self.known.measures for key in measure.keys] if self.known else []
        return recording.frames, {
            "caption": self.caption,
            "fps": self.fps,
            "height": self._size[0],
            "width": self._size[1],
            "source": f"{ENV}{self.name}, recording {seed}",
            "license": "",
            "policy": policy,
            "state": state,
            **recording.fields(),
            "action_space": {"names": list(self.actions)} if self.actions else {"low": low, "high": high},
            **({"truth": {name: [truth[name] for truth in truths] for name in names}} if names else {}),
        }

    def _draw(self, random: np.random.Generator) -> int | list[float]:
        if self.bounds is None:
            return int(random.integers(len(self.actions)))
        return [float(value) for value in random.uniform(*self.bounds).astype(np.float32)]

    def _given(self, action: int | Sequence[float]) -> Any:
        """An action as the environment takes it; DataError if there is none such."""
        if self.bounds is None:
            if not isinstance(action, int) or not 0 <= action < len(self.actions):
                there = ", ".join(self.actions)
                raise DataError(f"{ENV}{self.name}: no action {action}; there are {there}, from 0 on")
            return action + int(self._env.action_space.start)
        low, high = self.bounds
        vector = [] if isinstance(action, int) else list(action)
        if len(vector) != len(low) or not all(a <= x <= b for a, x, b in zip(low, vector, high, strict=True)):
            raise DataError(f"{ENV}{self.name}: no action {action}; one is a vector from {low} to {high}")
        space = self._env.action_space
        return np.array(vector, dtype=space.dtype).reshape(space.shape)

    def _shown(self, observation: Any) -> Frames:
        picture = observation if self._observed else self._env.render()
        if not (isinstance(picture, np.ndarray) and _is_picture(picture)):
            raise DataError(f"{ENV}{self.name}: what it renders is no picture (uint8 [H, W, 3])")
        return self._squeezed(picture)

    def _squeezed(self, picture: Frames) -> Frames:
        if picture.shape[:2] == self._size:
            return picture.copy()
        size = self._size[1], self._size[0]
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def _make(name: str) -> Any:
    if find_spec("gymnasium") is None:
        raise DataError(f'{ENV}{name}: environments need gymnasium: pip install "vpoet[gym]"')
    import gymnasium

    if name.count(":") > 1:
        raise DataError(f"{ENV}{name}: a name is NAME, NAMESPACE/NAME or PACKAGE:NAME")
    namespace = name.rpartition("/")[0]
    package, extra = PACKAGES.get(namespace, ("", ""))
    if package and find_spec(package) is None:
        raise DataError(f'{ENV}{name}: it needs the package {package}: pip install "vpoet[{extra}]"')
    if package:
        gymnasium.register_envs(import_module(package))
    options = {
        "max_episode_steps": -1,
        "disable_env_checker": True,
        **(found.options if (found := known(name)) else {}),
    }
    with _refusals(name):
        env = gymnasium.make(name, **options)
        if "rgb_array" in env.metadata.get("render_modes", []):
            return gymnasium.make(name, render_mode="rgb_array", **options)
    if not _is_picture(env.observation_space):
        raise DataError(f"{ENV}{name}: it shows no frames: it renders no rgb_array, and observes no pixels")
    return env


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """What gymnasium, or a package that is not there, says against an environment, as a DataError that names it."""
    import gymnasium

    try:
        yield
    except (gymnasium.error.Error, ImportError) as error:
        raise DataError(f"{ENV}{name}: {' '.join(str(error).split())}") from None


def _is_picture(space: Any) -> bool:
    """Of an array, or of a space of arrays."""
    return bool(space.dtype == np.uint8 and len(space.shape or ()) == 3 and space.shape[2] == 3)


def _actions(env: Any, name: str) -> tuple[tuple[str, ...], tuple[list[float], list[float]] | None]:
    """Names, or bounds of vectors."""
    from gymnasium.spaces import Box, Discrete

    space = env.action_space
    if isinstance(space, Discrete):
        meanings = getattr(env.unwrapped, "get_action_meanings", None)
        names = [word.lower() for word in meanings()] if meanings else [str(index) for index in range(int(space.n))]
        return tuple(names), None
    if isinstance(space, Box) and all(map(math.isfinite, [*space.low.flat, *space.high.flat])):
        return (), (space.low.ravel().astype(float).tolist(), space.high.ravel().astype(float).tolist())
    raise DataError(f"{ENV}{name}: its actions are {space}, neither numbered (Discrete) nor bounded vectors (Box)")
