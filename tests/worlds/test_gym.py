"""Environments of gymnasium as worlds: tiny ones of this test, and PushT and Breakout where they are installed."""

import json
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from vpoet import worlds
from vpoet.data.folder import read_samples
from vpoet.errors import DataError
from vpoet.media.video import Video
from vpoet.worlds.gym import GymWorld
from vpoet.worlds.world import SteppedWorld

NAME = "vpoet_test/Corridor-v0"


class Corridor(gymnasium.Env[Any, Any]):
    """A light in a row of twelve; the end is at its right. What is rendered is twice as high as wide."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012
    action_space: Any = spaces.Discrete(2, start=3)
    observation_space: Any = spaces.Discrete(12)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cell = int(self.np_random.integers(4))
        return self.cell, {"cell": self.cell}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action in (3, 4)
        self.cell = max(0, self.cell + 2 * int(action) - 7)
        return self.cell, float(self.cell == 11), self.cell == 11, False, {"cell": np.int64(self.cell)}

    def render(self) -> Any:
        picture = np.zeros((48, 24, 3), np.uint8)
        picture[:, 2 * self.cell : 2 * self.cell + 2] = 255
        return picture

    def get_action_meanings(self) -> list[str]:
        return ["LEFT", "RIGHT"]


class Slider(Corridor):
    """Moved by vectors; it is seen by what it observes, as its rendering would show the action."""

    metadata = {"render_modes": [], "render_fps": 5}  # noqa: RUF012
    action_space = spaces.Box(np.float32([-1, 0]), np.float32([1, 0.5]))
    observation_space = spaces.Box(0, 255, (24, 24, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        gymnasium.Env.reset(self, seed=seed)
        self.at = np.float32(self.np_random.random())
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert action.dtype == np.float32
        assert action.shape == (2,)
        self.at = np.clip(self.at + 0.1 * action.sum(), 0, 1)
        return self._seen(), 0.0, False, False, {}

    def _seen(self) -> Any:
        return np.full((24, 24, 3), int(255 * self.at), np.uint8)


class Blind(Corridor):
    metadata = {"render_modes": ["ansi"], "render_fps": 5}  # noqa: RUF012


class Many(Corridor):
    action_space = spaces.MultiDiscrete([2, 2])


class Timeless(Corridor):
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012


class Grey(Corridor):
    def render(self) -> Any:
        return np.zeros((48, 24), np.uint8)


class Undrawn(Corridor):
    """Made without what it draws with, as gymnasium's own are without pygame."""

    def render(self) -> Any:
        raise gymnasium.error.DependencyNotInstalled('pygame is not installed, run `pip install "gymnasium[box2d]"`')


class Rounding(Slider):
    """Rewards whose last digits differ from call to call."""

    count = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Rounding.count += 1
        return *super().step(action)[:1], 0.530778691633886 + Rounding.count % 2 * 1.1e-16, False, False, {}


class Moody(Corridor):
    """Not a function of its seed."""

    count = 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Moody.count += 1
        return super().step(3 + Moody.count // 3 % 2)


ALL = (Corridor, Slider, Blind, Many, Timeless, Grey, Undrawn, Rounding, Moody)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for each in ALL:
        # a time limit, which no frame shows coming
        gymnasium.register(f"vpoet_test/{each.__name__}-v0", each, max_episode_steps=3)
    yield
    for each in ALL:
        del gymnasium.registry[f"vpoet_test/{each.__name__}-v0"]


def test_an_environment_obeys_the_contract(obeys_the_contract: Callable[..., None]) -> None:
    world = GymWorld(NAME, 24, 24)
    assert world.actions == ("left", "right")
    assert (world.fps, world.bounds, world.caption) == (5.0, None, "Corridor")
    obeys_the_contract(world)
    world.reset(1)
    for _ in range(3 + 11):  # further than the time limit
        frame, _, end = world.step(1)
        cell = world.truth["cell"]
        assert frame.shape == (24, 24, 3)
        assert (frame[:, 2 * cell : 2 * cell + 2] == 255).all()
        assert frame.sum() == 24 * 2 * 3 * 255  # the whole picture, squeezed
        if end:
            break
    assert (cell, end) == (11, True)


def test_actions_that_are_vectors() -> None:
    world = GymWorld("vpoet_test/Slider-v0", 24, 24)
    assert (world.actions, world.bounds) == ((), ([-1.0, 0.0], [1.0, 0.5]))
    first = world.reset(0)
    frame, *_ = world.step([1.0, 0.5])
    assert (frame > first).all()
    state = world.save()
    again, *_ = world.step([-1.0, 0.0])
    world.restore(state)
    assert (world.step([-1.0, 0.0])[0] == again).all()
    for wrong in (0, [0.0], [0.0, 0.0, 0.0], [1.5, 0.0], [float("nan"), 0.0]):
        with pytest.raises(DataError, match=r"one is a vector from \[-1.0, 0.0\] to \[1.0, 0.5\]"):
            world.step(wrong)
    rounding = GymWorld("vpoet_test/Rounding-v0", 24, 24)
    assert len({rounding.step([0.0, 0.0])[1] for _ in range(4)}) == 1
    facts = world.clip(0, 9)[1]
    assert facts["action_space"] == {"low": [-1.0, 0.0], "high": [1.0, 0.5]}
    assert all(-1 <= x <= 1 and 0 <= y <= 0.5 for x, y in facts["actions"])
    assert len({tuple(action) for action in facts["actions"]}) > 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("vpoet_test/Nowhere-v0", "doesn't exist in namespace vpoet_test"),
        ("vpoet_test/Corridor-v7", "version `v7` .* doesn't exist"),
        ("nowhere/Corridor-v0", "Namespace nowhere not found"),
        ("nowhere:Corridor-v0", "No module named 'nowhere'"),
        ("", "Malformed environment ID"),
        ("one:two:Corridor-v0", "a name is NAME, NAMESPACE/NAME or PACKAGE:NAME"),
        ("vpoet_test/Blind-v0", "shows no frames"),
        ("vpoet_test/Many-v0", r"its actions are MultiDiscrete\(\[2 2\]\), neither numbered .* nor bounded vectors"),
        ("vpoet_test/Timeless-v0", r"says no rate \(render_fps\)"),
        ("vpoet_test/Undrawn-v0", "pygame is not installed, run `pip install"),
        ("vpoet_test/Grey-v0", r"no picture \(uint8 \[H, W, 3\]\)"),
    ],
)
def test_environments_that_cannot_be_worlds(name: str, problem: str) -> None:
    with pytest.raises(DataError, match=f"env:{name}: .*{problem}"):
        GymWorld(name)


def test_what_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    there = util.find_spec
    missing = {"ale_py", "gym_pusht"}
    monkeypatch.setattr("vpoet.worlds.gym.find_spec", lambda name: None if name in missing else there(name))
    for name, extra in (("ALE/Breakout-v5", "atari"), ("gym_pusht/PushT-v0", "gym")):
        with pytest.raises(DataError, match=rf'env:{name}: it needs the package .*: pip install "vpoet\[{extra}\]"'):
            GymWorld(name)
    missing.add("gymnasium")
    with pytest.raises(DataError, match=r'environments need gymnasium: pip install "vpoet\[gym\]"'):
        GymWorld(NAME)


def test_what_an_environment_cannot_do_is_refused() -> None:
    world = GymWorld(NAME)
    world.reset(0, "Corridor")
    with pytest.raises(DataError, match="no prompt but 'Corridor'"):
        world.reset(0, "a robot")
    with pytest.raises(DataError, match="a seed is 0 or more"):
        world.reset(-1)
    with pytest.raises(DataError, match="it has no judge"):
        world.see(world.reset(0)[None])
    for state in (b"", b"{}", b"[1]", b"\xff"):
        with pytest.raises(DataError, match="no saved state"):
            world.restore(state)
    with pytest.raises(DataError, match="a state of env:vpoet_test/Slider-v0; this is env:vpoet_test/Corridor-v0"):
        world.restore(GymWorld("vpoet_test/Slider-v0").save())
    moody = GymWorld("vpoet_test/Moody-v0")
    moody.reset(0)
    for _ in range(3):
        moody.step(1)
    with pytest.raises(DataError, match="this environment cannot be restored"):
        moody.restore(moody.save())


def test_recordings_end_with_the_episode_and_are_kept(
    tmp_path: Path, program: Callable[..., tuple[int, str, str]]
) -> None:
    def ingest(out: str, *options: object) -> tuple[int, str, str]:
        settings = ("--clips", 16, "--frames", 17, "--height", 24, "--width", 24, "--out", tmp_path / out)
        return program("train/ingest.py", f"env:{NAME}", *settings, *options)

    status, _, err = ingest("raw")
    assert status == 2
    assert f"env:{NAME}: it goes at 5 steps a second, not 8; --fps 0 takes its own rate" in err
    assert ingest("raw", "--fps", 0)[0] == 0  # nothing of the other rate is left in its way
    samples = list(read_samples(tmp_path / "raw"))
    make = worlds.maker(f"env:{NAME}", 24, 24, 0, 17)
    lengths = set()
    for seed, sample in enumerate(samples):
        frames, facts = make(seed)
        assert (Video.read(sample.video).frames == frames).all()
        assert {key: sample.json[key] for key in facts} == json.loads(json.dumps(facts))
        assert sample.json["action_space"] == {"names": ["left", "right"]}
        assert sample.json["fps"] == 5
        ends, rewards = facts["outcomes"]["end"], facts["outcomes"]["reward"]
        lengths.add(len(frames))
        assert len(frames) == facts["frames"] == 1 + len(facts["actions"]) == 1 + len(ends)
        assert not any(ends[:-1])
        assert ends[-1] or len(frames) == 17
        assert rewards == [float(end) for end in ends]
    assert len(samples) == 16
    assert max(lengths) == 17
    assert min(lengths) < 17
    assert ingest("long", "--fps", 0, "--min-frames", 17)[0] == 0
    assert {sample.json["frames"] for sample in read_samples(tmp_path / "long")} == {17}
    report = json.loads((tmp_path / "long" / "report.json").read_text())
    assert "its end comes too soon" in report["sides"]["all"]["skipped"]["counts"]


@pytest.mark.parametrize(
    ("name", "package", "fps"), [("gym_pusht/PushT-v0", "gym_pusht", 10), ("ALE/Breakout-v5", "ale_py", 30)]
)
def test_known_environments(name: str, package: str, fps: float) -> None:
    pytest.importorskip(package)
    world: SteppedWorld = worlds.stepped(f"env:{name}", 32, 32)
    assert isinstance(world, GymWorld)
    frames, facts = world.clip(0, 5)
    again, same = world.clip(0, 5)
    assert (again == frames).all()
    assert same == facts
    assert frames.shape == (5, 32, 32, 3)
    assert world.fps == fps
    state, step = world.save(), facts["actions"][-1]
    after, *_ = world.step(step)
    truth = world.truth
    world.restore(state)
    assert (world.step(step)[0] == after).all()
    assert world.truth == truth
    if package == "ale_py":
        assert world.actions == ("noop", "fire", "right", "left")
        assert len(truth["ram"]) == 128
    else:
        assert world.bounds == ([0.0, 0.0], [512.0, 512.0])
        assert len(truth["block_pose"]) == 3
        assert (frames[..., 0].astype(int) - frames[..., 2]).max() < 10  # no red cross where the action is
