"""The page of play in a browser: Debian's Chromium, driven by playwright. `.ci/run` installs it, and runs these."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.media.video import Video

WAIT = 300_000
"""Milliseconds for what is sure to come: a busy machine is no fault."""
pytestmark = pytest.mark.browser
PIXELS = "name => [...document.querySelector(`[aria-label='the ${name} world']`).getContext('2d')" + (
    ".getImageData(0, 0, 32, 32).data]"
)


@pytest.fixture
def page(browser: Any, served: int) -> Iterator[Any]:
    # what the tests evaluate is no part of the page, whose policy allows its own files alone
    context = browser.new_context(viewport={"width": 900, "height": 900}, accept_downloads=True, bypass_csp=True)
    context.set_default_timeout(WAIT)
    one = context.new_page()
    faults: list[str] = []
    asked: list[str] = []
    one.on("pageerror", lambda error: faults.append(str(error)))
    one.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    one.on("request", lambda request: asked.append(request.url))
    one.goto(f"http://127.0.0.1:{served}/")
    one.wait_for_function("document.body.dataset.frame > 0")
    yield one
    assert faults == []
    assert all(url.startswith((f"http://127.0.0.1:{served}/", "blob:")) for url in asked)
    context.close()


def frame(page: Any) -> int:
    return int(page.evaluate("document.body.dataset.frame"))


def seen(page: Any, name: str) -> np.ndarray:
    return np.array(page.evaluate(PIXELS, name), np.uint8).reshape(32, 32, 4)[..., :3]


def after(page: Any, more: int) -> None:
    page.wait_for_function(f"document.body.dataset.frame >= {frame(page) + more}")


def begin(page: Any, seed: int) -> None:
    page.fill("#seed", str(seed))
    page.click("#restart")
    page.wait_for_function(f"document.querySelector('#status').textContent.endsWith('seed {seed}')")


def hold(page: Any) -> None:
    """Pause, and wait until no frame is on its way."""
    page.keyboard.press("p")
    page.wait_for_function("document.body.dataset.paused === 'true'")


def test_the_page_runs_under_its_own_policy(browser: Any, served: int) -> None:
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    one, faults = context.new_page(), list[str]()
    one.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    one.goto(f"http://127.0.0.1:{served}/")
    one.locator("#measures", has_text="a second").wait_for()
    assert one.locator("canvas").count() == 2
    assert faults == []
    context.close()


def test_keys_change_frames_and_the_real_world_shows_what_the_simulator_shows(page: Any) -> None:
    from vpoet.worlds import stepped

    # in which the robot that walks right for ever does not drown: with both worlds over, no frame comes
    begin(page, 12)
    hold(page)
    real = stepped("world:playground", 32, 32, 10)
    shown = [real.reset(12, "a robot on grass")]
    shown += [real.step(0)[0] for _ in range(frame(page))]
    assert np.array_equal(seen(page, "real"), shown[-1])
    before, at = {name: seen(page, name) for name in ("real", "model")}, frame(page)
    ended = page.locator("figure.ended").count()
    page.keyboard.press("p")
    page.keyboard.down("ArrowRight")
    after(page, 5)
    page.keyboard.up("ArrowRight")
    assert not np.array_equal(seen(page, "real"), before["real"])
    if not ended:  # which an untrained model says at random
        assert not np.array_equal(seen(page, "model"), before["model"])
    assert "down" not in (page.get_attribute("[data-action=right]", "class") or "")
    assert at < frame(page)
    assert "key to pixel" in page.inner_text("#measures")


def test_a_finger_on_a_button_is_a_key(page: Any) -> None:
    button = page.locator("[data-action=jump]")
    button.dispatch_event("pointerdown", {"pointerId": 1, "isPrimary": True, "button": 0})
    page.wait_for_function("document.querySelector('[data-action=jump]').classList.contains('down')")
    after(page, 3)
    button.dispatch_event("pointerup", {"pointerId": 1, "isPrimary": True, "button": 0})
    page.wait_for_function("!document.querySelector('[data-action=jump]').classList.contains('down')")


def test_everything_is_reached_by_the_keyboard_alone(page: Any) -> None:
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert {"prompt", "tell", "seed", "restart", "next", "pause", "view", "pace", "record"} <= set(reached)
    page.focus("#prompt")
    page.keyboard.press("Control+a")
    page.keyboard.type("a hero on sand")  # no key of the world, nor of the page
    assert page.get_attribute("#pause", "aria-pressed") == "false"
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#status').textContent.includes('a hero on sand')")
    assert page.evaluate("document.activeElement.id") == ""
    page.keyboard.press("v")
    assert page.evaluate("[...document.querySelectorAll('figure')].map(each => each.hidden)") == [True, False]
    page.keyboard.press("n")
    page.wait_for_function("document.querySelector('#seed').value === '4'")
    hold(page)
    still = frame(page)
    page.wait_for_timeout(300)
    assert frame(page) == still


def test_a_film_and_its_keys_are_kept(page: Any, tmp_path: Path) -> None:
    page.click("#record")
    page.wait_for_function("document.querySelector('#record').ariaPressed === 'true'")
    after(page, 6)
    page.click("#record")
    page.wait_for_selector("#films a")
    for link, name in ((0, "film.mp4"), (1, "film.mp4.json")):
        with page.expect_download() as download:
            page.click(f"#films a >> nth={link}")
        download.value.save_as(tmp_path / name)
    film = Video.read(tmp_path / "film.mp4")
    assert film.frames.shape[1:] == (128, 264, 3)
    assert len(film) >= 6
    assert '"keys"' in (tmp_path / "film.mp4.json").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_light_and_dark(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for name in ("pictures", "keys", "controls"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 400
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    paper, ink = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert (paper > 600 and ink < 200) if scheme == "light" else (paper < 150 and ink > 600)


def test_a_server_that_comes_back_is_found_again(page: Any) -> None:
    page.evaluate("socket.close()")
    page.wait_for_function("document.querySelector('#status').textContent.includes('trying again')")
    page.wait_for_function("!document.querySelector('#status').textContent.includes('trying')")
    after(page, 2)
