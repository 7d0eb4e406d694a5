"""A toy bundle that plays, its real world, and a server of its page in a thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import vpoet
from vpoet.generate.environment import session
from vpoet.generate.model import Model
from vpoet.sequence.actions import ActionSpace
from vpoet.serve.worlds import Worlds, side_worlds
from vpoet.worlds.playground.physics import ACTIONS

PLAYGROUND = "world:playground"


@pytest.fixture(scope="session")
def playing(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Path:
    """A bundle of random weights that plays frames of 32x32 at 10 a second, with the keys of the playground."""
    settings = {"actions": ActionSpace(names=list(ACTIONS)), "tasks": ["play"], "window": 3}
    folder = make_bundle(
        tmp_path_factory.mktemp("playing"), depth=1, time_stride=1, length=400, height=32, width=32, **settings
    )
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("fps: 8", "fps: 10"))
    return folder


@pytest.fixture(scope="session")
def player(playing: Path) -> Model:
    return vpoet.load(playing, device="cpu")


@pytest.fixture
def open_worlds(player: Model) -> Callable[..., Worlds]:
    """``open_worlds(source)``: a new game."""
    return lambda source=PLAYGROUND: side_worlds(source, session(player.bundle, player.decoding))


@contextmanager
def serving(house: object) -> Iterator[int]:
    """A server of a house on a port of its own: the port."""
    from vpoet.serve.app import listen, server

    with listen(0) as at:
        one = server(house, at)  # type: ignore[arg-type]
        thread = threading.Thread(target=one.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        while not one.started:
            assert thread.is_alive()
            time.sleep(0.01)
        try:
            yield at.getsockname()[1]
        finally:
            one.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def served(open_worlds: Callable[..., Worlds]) -> Iterator[int]:
    """The port of a page of the toy bundle beside the playground, at 50 frames a second."""
    from vpoet.serve.play import House

    about = {
        "model": "toy", "world": PLAYGROUND, "seed": 3, "prompt": "a robot on grass", "name": "toy", "height": 32,
        "width": 32,
    }  # fmt: skip
    with serving(House(open_worlds, about, 50.0)) as port:
        yield port
