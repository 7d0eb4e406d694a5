"""The contract of worlds: how one is found, that its clips are known again, and that one file adds one."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet import cli, worlds
from vpoet.arrays import Frames
from vpoet.data.shards import ShardWriter
from vpoet.errors import DataError
from vpoet.evaluate.adherence import Prompt, prompts, shares, table, world_of
from vpoet.evaluate.drift import lasting
from vpoet.worlds.platformer.world import Platformer
from vpoet.worlds.playground.stepped import Playground
from vpoet.worlds.world import FAULTS, SteppedWorld

TWILIGHT = '''
"""A world of one file: the whole picture is red or blue, and nothing else."""

import numpy as np

from vpoet.worlds.world import FAULTS, World

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}


class Twilight(World):
    name = "twilight"
    judged = ("colour", FAULTS)
    phrasings = 1

    def __init__(self, height=64, width=64, fps=8.0, frames=17):
        self.height, self.width, self.fps, self.frames = height, width, fps, frames

    @staticmethod
    def attributes(seed):
        return {"colour": list(COLOURS)[seed % 2]}

    def clip(self, seed):
        colour = self.attributes(seed)["colour"]
        frames = np.full((self.frames, self.height, self.width, 3), COLOURS[colour], np.uint8)
        facts = {"fps": self.fps, "frames": self.frames, "height": self.height, "width": self.width}
        return frames, facts | {"caption": [f"all is {colour}"], "source": self.source(seed), "colour": colour}

    @staticmethod
    def stated(facts, phrasing):
        return {"colour": facts["colour"], FAULTS: ""}

    def see(self, frames):
        mean = frames.mean((0, 1, 2))
        name = min(COLOURS, key=lambda colour: np.abs(mean - COLOURS[colour]).sum())
        return {"colour": name, FAULTS: "motion" if np.ptp(frames.astype(int), axis=0).max() > 8 else ""}


WORLD = Twilight
'''


@pytest.fixture
def twilight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One more file among the worlds."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "twilight.py").write_text(TWILIGHT)
    monkeypatch.setattr(worlds, "__path__", [*worlds.__path__, str(tmp_path / "more")])
    yield
    sys.modules.pop("vpoet.worlds.twilight", None)
    vars(worlds).pop("twilight", None)


def test_worlds_are_found_by_name() -> None:
    assert "platformer" in worlds.names()
    assert worlds.find("platformer") is Platformer
    for name in worlds.names():
        world = worlds.find(name)
        assert world.name == name
        assert world.judged[-1] == FAULTS
        assert set(world.kept) <= set(world.judged)


@pytest.mark.parametrize("name", ["mars", "", "world", "..data.ingest", "platformer.sight", "../world"])
def test_other_names_are_no_worlds(name: str) -> None:
    with pytest.raises(DataError, match="no such world; there is world:platformer"):
        worlds.find(name)


def test_a_clip_is_known_again_by_its_source() -> None:
    facts = Platformer(16, 16, frames=1).clip(3)[1]
    assert facts["source"] == "vpoet platformer world, clip 3"  # as in all shards that there are
    assert worlds.drawn_by(facts) is Platformer
    for source in ("vpoet mars world, clip 3", "cats.mp4", "vpoet world world, clip 1", None, ["vpoet"]):
        assert worlds.drawn_by({"source": source}) is None
    assert worlds.drawn_by({}) is None


def test_what_the_platformer_sees_has_the_names_of_the_contract() -> None:
    world = Platformer()
    frames, facts = world.clip(1)
    seen = world.see(frames)
    assert tuple(seen) == world.judged
    for phrasing in range(world.phrasings):
        assert world.stated(facts, phrasing).items() <= seen.items()
    assert set(world.kept) <= set(world.stated(facts, 1))


@pytest.mark.usefixtures("twilight")
def test_one_file_adds_a_world_that_is_ingested_and_judged(tmp_path: Path) -> None:
    size = {"frames": 5, "height": 16, "width": 16}
    cli.program("ingest")(["world:twilight"], tmp_path / "raw", clips=12, unseen=["colour=blue"], **size)
    for side, colour in (("train", "red"), ("unseen", "blue")):
        asked = prompts(tmp_path / "raw" / side, 100)
        assert {prompt.text for prompt in asked} == {f"all is {colour}"}
        world = world_of(asked)(16, 16)
        seen = [world.see(prompt.real) for prompt in asked]
        found = shares([prompt.stated for prompt in asked], seen)
        assert {name: one["right"] for name, one in found.items()} == dict.fromkeys(("colour", FAULTS, "jointly"), 6)
        assert table({"real": found}).startswith("|  | colour | no faults | jointly |\n")
    with pytest.raises(DataError, match="nothing in this world goes on for ever"):
        lasting(world, 2)
    mixed = [*asked, Prompt(Platformer, "0", "", {}, np.zeros((1, 16, 16, 3), np.uint8), 8)]
    with pytest.raises(DataError, match="worlds twilight and platformer"):
        world_of(mixed)


@pytest.mark.usefixtures("twilight")
def test_shards_that_are_not_as_their_world_writes_them(tmp_path: Path) -> None:
    def shard(folder: str, **facts: object) -> Path:
        with ShardWriter(tmp_path / folder, kind="raw") as writer:
            writer.write("clip", {"json": facts, "mp4": b"not reached"})
        writer.manifest().save(tmp_path / folder)
        return tmp_path / folder

    source = "vpoet twilight world, clip 1"
    with pytest.raises(DataError, match=r"clip is no clip of a world.*world:NAME"):
        prompts(shard("films", caption=["a cat"], source="cat.mp4"), 1)
    with pytest.raises(DataError, match=r"clip is not as twilight writes it \(KeyError\('colour'\)\)"):
        prompts(shard("torn", caption=["all is red"], source=source), 1)
    with pytest.raises(DataError, match=r"not as twilight writes it"):
        prompts(shard("mute", caption=[], source=source, colour="red"), 1)


class Corridor:
    """A world to step in, of one row of 8 cells: a light that goes left and right, and ends at the right."""

    actions = ("left", "right")
    fps = 8.0

    def reset(self, seed: int, prompt: str = "") -> Frames:
        self._cell, self._prompt = seed % 4, prompt
        return self._frame()

    def step(self, action: int) -> tuple[Frames, float, bool]:
        if action not in (0, 1) or self._cell == 7:
            raise DataError(f"action {action} in cell {self._cell}")
        self._cell = max(0, self._cell + 2 * action - 1)
        return self._frame(), float(self._cell == 7), self._cell == 7

    def save(self) -> bytes:
        return json.dumps([self._cell, self._prompt]).encode()

    def restore(self, state: bytes) -> None:
        self._cell, self._prompt = json.loads(state)

    @property
    def truth(self) -> dict[str, Any]:
        return {"cell": self._cell}

    def see(self, frames: Frames) -> list[dict[str, Any]]:
        return [{"cell": int(frame[0, :, 0].argmax())} for frame in frames]

    def _frame(self) -> Frames:
        frame = np.zeros((1, 8, 3), np.uint8)
        frame[0, self._cell] = 255
        return frame


@pytest.mark.parametrize("world", [Corridor(), Playground()], ids=["corridor", "playground"])
def test_a_world_to_step_in_obeys_the_contract(
    world: SteppedWorld, obeys_the_contract: Callable[[SteppedWorld], None]
) -> None:
    obeys_the_contract(world)


class Forgetful(Corridor):
    """Its state lacks where the light is."""

    def save(self) -> bytes:
        return json.dumps([0, self._prompt]).encode()


class Moody(Corridor):
    """Goes where it likes now and then, whatever was pressed before."""

    count = 0

    def step(self, action: int) -> tuple[Frames, float, bool]:
        Moody.count += 1
        return super().step(action if Moody.count % 7 else 1 - action)


class Endless(Corridor):
    """Goes on after the end, and whatever is pressed."""

    def step(self, action: int) -> tuple[Frames, float, bool]:
        if self._cell == 7:
            return self._frame(), 0.0, True
        return super().step(action)


@pytest.mark.parametrize("world", [Forgetful(), Moody(), Endless()])
def test_a_world_that_breaks_the_contract_is_found(
    world: SteppedWorld, obeys_the_contract: Callable[[SteppedWorld], None]
) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        obeys_the_contract(world)


def test_the_worlds_that_can_be_stepped_are_found_by_their_source() -> None:
    assert worlds.stepped("world:playground", 32, 32).reset(0).shape == (32, 32, 3)
    with pytest.raises(DataError, match="world:platformer: its clips are drawn whole"):
        worlds.stepped("world:platformer")
