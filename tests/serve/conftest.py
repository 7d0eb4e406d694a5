"""A toy bundle that plays, its real world, and a server of its page in a thread."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vpoet
from vpoet.generate.environment import session
from vpoet.generate.model import Model
from vpoet.sequence.actions import ActionSpace
from vpoet.sequence.conditions import Learnt
from vpoet.serve.worlds import Worlds, side_worlds
from vpoet.worlds.playground.physics import ACTIONS

PLAYGROUND = "world:playground"
WAIT = 300_000
"""Milliseconds for what is sure to come: a busy machine is no fault."""


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
def _serving(page: Callable[[int], Any], port: int = 0) -> Iterator[int]:
    """A server of a page, made for its port, on a given port or one of its own: the port."""
    from vpoet.serve.app import listen, server

    with listen(port) as at:
        one = server(page(at.getsockname()[1]), at)
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
def serving() -> Callable[..., Any]:
    """``with serving(page) as port``: a server of a page, which is made for its port; ``serving(page, port)``."""
    return _serving


@pytest.fixture
def served(open_worlds: Callable[..., Worlds]) -> Iterator[int]:
    """The port of a page of the toy bundle beside the playground, at 50 frames a second."""
    from vpoet.serve.app import play_page
    from vpoet.serve.play import House

    about = {
        "model": "toy", "world": PLAYGROUND, "seed": 3, "prompt": "a robot on grass", "name": "toy", "height": 32,
        "width": 32,
    }  # fmt: skip
    with _serving(lambda port: play_page(House(open_worlds, about, 50.0), port)) as port:
        yield port


@pytest.fixture(scope="session")
def samplers(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> dict[str, Model]:
    """Two bundles of random weights that make clips of 9 frames of 16x24."""
    models = {}
    for name, depth in (("small", 1), ("large", 2)):
        folder = make_bundle(tmp_path_factory.mktemp(name), depth=depth, length=200, frames=9, height=16, width=24)
        models[name] = vpoet.load(folder, device="cpu")
    return models


@pytest.fixture
def make_studio(samplers: dict[str, Model], tmp_path: Path) -> Callable[..., Any]:
    """A studio of both, on the test's own folder."""
    from vpoet.serve.history import History
    from vpoet.serve.studio import Studio
    from vpoet.serve.uploads import Uploads

    return lambda: Studio(samplers, Uploads(tmp_path / "uploads"), History(tmp_path / "clips"))


@pytest.fixture
def studio_port(make_studio: Callable[..., Any]) -> Iterator[int]:
    """The port of a page of everything."""
    from vpoet.serve.app import studio_page

    with _serving(lambda port: studio_page(make_studio(), None, "", {"port": port})) as port:
        yield port


@pytest.fixture(scope="session")
def follower(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Model:
    """A bundle as those of `samplers`, which reads edges and depth, and can be asked for motion, in words it knows."""
    settings = {
        "conditions": {"motion": Learnt(edges=[1.0, 2.0, 4.0], met=[0, 1, 2])},
        "words": ["a", "robot", "walks", "hero"],
    }
    folder = tmp_path_factory.mktemp("follower")
    made = make_bundle(folder, depth=1, length=200, frames=9, height=16, width=24, controls="edges depth", **settings)
    return vpoet.load(made, device="cpu")


@pytest.fixture
def following_port(follower: Model, tmp_path: Path) -> Iterator[int]:
    """The port of a page of it."""
    from vpoet.serve.app import studio_page
    from vpoet.serve.history import History
    from vpoet.serve.studio import Studio
    from vpoet.serve.uploads import Uploads

    studio = Studio({"follower": follower}, Uploads(tmp_path / "uploads"), History(tmp_path / "clips"))
    with _serving(lambda port: studio_page(studio, None, "", {"port": port})) as port:
        yield port


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    if (chromium := shutil.which("chromium")) is None:
        pytest.skip("needs Chromium (apt install chromium)")
    with playwright.sync_playwright() as driver:
        one = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=300_000)
        yield one
        one.close()


@contextmanager
def _opened(browser: Any, port: int, fine: str = "", **how: Any) -> Iterator[Any]:
    """The page of everything, ready; until the end it must not say that anything is wrong with it, but for what is
    ``fine``."""
    # what the tests evaluate is no part of the page, whose policy allows its own files alone
    how = {"viewport": {"width": 1000, "height": 900}, **how}
    context = browser.new_context(accept_downloads=True, bypass_csp=True, **how)
    context.set_default_timeout(WAIT)
    one = context.new_page()
    faults: list[str] = []
    one.on("pageerror", lambda error: faults.append(str(error)))
    one.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    one.goto(f"http://127.0.0.1:{port}/")
    one.wait_for_function("document.body.dataset.ready === 'all'")
    yield one
    assert [fault for fault in faults if not fine or fine not in fault] == []
    context.close()


@pytest.fixture
def opened(browser: Any) -> Callable[..., Any]:
    """``with opened(port) as page``: the page of everything in a browser; ``fine`` is what it may complain of, other
    names are those of a context of playwright."""
    return partial(_opened, browser)
