"""The page of everything in a browser: Debian's Chromium, as in `test_page_in_chromium`."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model, Request
from vpoet.generate.request import ControlClip
from vpoet.media.control import MAKERS
from vpoet.media.video import Video
from vpoet.serve.client import Remote

pytestmark = pytest.mark.browser
FRAMES = "id => cards.get(id).clip.frames.map(each => [...each.data])"
DROP = """([name, type, bytes]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(bytes)], name, { type }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture
def page(opened: Callable[..., Any], studio_port: int) -> Iterator[Any]:
    with opened(studio_port) as one:
        yield one


@pytest.fixture
def following(opened: Callable[..., Any], following_port: int) -> Iterator[Any]:
    with opened(following_port) as one:
        yield one


def ready(page: Any) -> None:
    page.wait_for_function("document.body.dataset.ready === 'all'")


def done(page: Any, count: int) -> list[str]:
    """The clips that are there, the first on the page first."""
    page.wait_for_function(f"document.querySelectorAll('article[data-done]').length === {count}")
    found: list[str] = page.eval_on_selector_all("article[data-done]", "all => all.map(each => each.dataset.id)")
    return found


def shown(page: Any, clip: str) -> np.ndarray:
    rgba = np.array(page.evaluate(FRAMES, clip), np.uint8)
    return rgba.reshape(len(rgba), 16, 24, 4)[..., :3]


def test_a_clip_is_made_by_the_keyboard_alone_kept_and_its_file_brings_its_settings_back(
    page: Any, samplers: dict[str, Model], studio_port: int, tmp_path: Path
) -> None:
    page.focus("#prompt")
    page.keyboard.type("a robot walks")
    page.keyboard.press("Enter")
    (first,) = done(page, 1)
    assert np.array_equal(shown(page, first), samplers["small"].sample("a robot walks").frames)
    page.focus(".curve")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert re.match(r"frame 2 · surprise [\d.]+ bits", page.inner_text(".curve figcaption"))
    for key, value in (("seed", "7"), ("frames", "17"), ("temperature", "0.5"), ("story", "9: a hero jumps")):
        page.fill(f"#{key}", value)
    page.keyboard.press("Tab")
    page.focus("#make")
    page.keyboard.press("Enter")
    second = next(clip for clip in done(page, 2) if clip != first)
    page.focus(f"[data-id='{second}'] .curve")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    told = re.match(
        r"frame 9 · surprise [\d.]+ bits\s+([\d.]+) in all of “a hero jumps”",
        page.inner_text(f"[data-id='{second}'] figcaption"),
    )
    (about,) = (each for each in Remote(f"http://127.0.0.1:{studio_port}").clips() if each["id"] == second)
    cells = [(nats, tokens) for first, _, nats, tokens in about["surprise"] if first >= 9]
    assert told
    assert float(told[1]) == pytest.approx(sum(n for n, _ in cells) / sum(t for _, t in cells) / np.log(2), abs=0.01)
    with page.expect_download() as download:
        page.click(f"[data-id='{second}'] a >> text=mp4")
    download.value.save_as(tmp_path / "clip.mp4")

    page.reload()
    ready(page)
    assert set(done(page, 2)) == {first, second}
    assert page.input_value("#story") == ""
    page.evaluate(DROP, ["clip.mp4", "video/mp4", [*(tmp_path / "clip.mp4").read_bytes()]])
    page.wait_for_function("document.querySelector('#status').textContent.includes('settings are back')")
    found = [page.input_value(f"#{name}") for name in ("prompt", "seed", "frames", "temperature", "story")]
    assert found == ["a robot walks", "7", "17", "0.5", "9: a hero jumps"]
    page.click("#make")
    third = next(clip for clip in done(page, 3) if clip not in (first, second))
    assert np.array_equal(shown(page, third), shown(page, second))


def test_a_mask_is_painted_on_a_clip_and_both_stand_side_by_side(
    page: Any, samplers: dict[str, Model], tmp_path: Path
) -> None:
    clip = Video(np.random.default_rng(1).integers(0, 256, (9, 16, 24, 3), np.uint8), 8.0)
    clip.write(tmp_path / "given.mp4")
    page.select_option("#task", "paint")
    page.set_input_files("#video", tmp_path / "given.mp4")
    page.wait_for_function("document.querySelector('#status').textContent.includes('9 frames')")
    page.fill("#box", "0,0,50,100")
    page.click("#box-add")
    page.click("#make")
    (made,) = done(page, 1)
    hole = np.zeros((1, 16, 24, 3), np.uint8)
    hole[:, :, :12] = 255
    given = {"video": tmp_path / "given.mp4", "mask": Video(hole, 0)}
    assert np.array_equal(shown(page, made), samplers["small"].sample("", **given).frames)
    page.get_by_role("button", name="A | source").click()
    page.wait_for_selector("#compare:not([hidden])")
    page.focus("#split")
    page.keyboard.press("End")
    assert page.evaluate("document.querySelector('#canvas-a').style.clipPath") == "inset(0px 0% 0px 0px)"


def test_a_clip_is_edited_by_the_keyboard_alone_and_then_a_part_of_it(
    page: Any, samplers: dict[str, Model], studio_port: int
) -> None:
    model, remote = samplers["small"], Remote(f"http://127.0.0.1:{studio_port}")
    page.fill("#prompt", "a robot walks")
    page.keyboard.press("Enter")
    (first,) = done(page, 1)
    page.focus(f"[data-id='{first}'] button >> text=Edit")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement === document.querySelector('#prompt')")
    assert page.input_value("#was") == "a robot walks"
    page.keyboard.press("Control+a")
    page.keyboard.type("a hero walks")
    page.focus("#strength")
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#strength-told") == "0.4"
    page.focus("#prompt")
    page.keyboard.press("Enter")
    second = next(each for each in done(page, 2) if each != first)
    about = {each["id"]: each for each in remote.clips()}
    source = Source(remote.codes(about[first]), 8, "a robot walks")
    wanted = model.sample("a hero walks", edit=source, was="a robot walks", strength=0.4)
    assert np.array_equal(shown(page, second), wanted.frames)
    page.click(f"[data-id='{second}'] >> text=A | source")
    page.wait_for_selector("#compare:not([hidden])")

    page.select_option("#task", "edit-part")
    page.fill("#box", "0,0,33.4,100")
    page.click("#box-add")
    page.click("#make")
    third = next(each for each in done(page, 3) if each not in (first, second))
    about = {each["id"]: each for each in remote.clips()}
    assert np.array_equal(remote.codes(about[third])[:, :, 1:], source.codes[:, :, 1:])
    page.click(f"[data-id='{second}'] >> text=Settings")
    page.wait_for_function("document.querySelector('#status').textContent.includes('settings are back')")
    found = [page.input_value(f"#{name}") for name in ("task", "prompt", "was", "strength")]
    assert found == ["edit", "a hero walks", "a robot walks", "0.4"]


def test_the_border_is_set_by_handles_with_the_pointer_and_the_keyboard(
    page: Any, samplers: dict[str, Model], tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Video(np.random.default_rng(1).integers(0, 256, (1, 16, 24, 3), np.uint8), 0).write(picture)
    page.select_option("#task", "border-image")
    page.set_input_files("#image", picture)
    page.wait_for_function("document.querySelector('#status').textContent.includes('24×16')")
    page.focus(".handle.left")
    page.keyboard.press("Home")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.focus(".handle.bottom")
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowDown")
    handle, stage = (page.locator(each).bounding_box() for each in (".handle.right", "#stage"))
    page.mouse.move(handle["x"] + 2, handle["y"] + 2)
    page.mouse.down()
    page.mouse.move(stage["x"] + stage["width"] * 18.1 / 24, handle["y"] + 2, steps=3)
    page.mouse.up()
    sides = [page.input_value(f"#{side}") for side in ("left", "top", "right", "bottom")]
    assert sides == ["3", "0", "6", "7"]
    assert [page.get_attribute(f".handle.{side}", "aria-valuenow") for side in ("left", "right")] == ["3", "6"]
    page.keyboard.press("End")  # the last one that was moved
    assert page.input_value("#right") == "20"
    page.fill("#right", "6")
    page.click("#make")
    (made,) = done(page, 1)
    wanted = samplers["small"].sample("", image=picture, outpaint=(3, 0, 6, 7))
    assert np.array_equal(shown(page, made), wanted.frames)


def test_two_models_make_the_same_request_and_a_clip_is_cancelled(page: Any, studio_port: int) -> None:
    page.select_option("#second", "large")
    page.fill("#prompt", "a hero")
    page.click("#make")
    ids = done(page, 2)
    clips = {about["id"]: about for about in Remote(f"http://127.0.0.1:{studio_port}").clips()}
    assert {clips[each]["asked"]["model"] for each in ids} == {"small", "large"}
    page.wait_for_selector("#compare:not([hidden])")
    page.select_option("#second", "")
    page.fill("#frames", "2049")
    page.click("#make")
    page.click("#running article:not([data-done]) >> text=Cancel")
    page.wait_for_function("!document.querySelector('#running article:not([data-done])')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_fits_a_narrow_screen_light_and_dark(page: Any, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.fill("#prompt", "a robot")
    page.fill("#count", "2")
    page.click("#make")
    done(page, 2)
    page.set_viewport_size({"width": 400, "height": 800})
    for task in page.eval_on_selector_all("#task option", "all => all.map(each => each.value)"):
        page.select_option("#task", task)
        assert page.evaluate("document.documentElement.scrollWidth") <= 400, task
    colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
    paper, ink = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
    assert (paper > 600 and ink < 200) if scheme == "light" else (paper < 150 and ink > 600)


@pytest.mark.filterwarnings("ignore::vpoet.errors.VpoetWarning")
def test_controls_and_conditions_are_asked_for_by_the_keyboard_and_warnings_shown(
    following: Any, follower: Model, tmp_path: Path
) -> None:
    page, random = following, np.random.default_rng(1)
    Video(random.integers(0, 256, (12, 16, 24, 3), np.uint8), 8.0).write(tmp_path / "given.mp4")
    depth = Video(MAKERS["grey"](random.integers(0, 256, (9, 16, 24, 3), np.uint8)), 8.0)
    (tmp_path / "depth.webp").write_bytes(depth.encode(".webp", lossless=True))
    page.fill("#prompt", "a xyzzy walks")
    marks = page.eval_on_selector_all("#words mark", "all => all.map(each => each.className)")
    assert marks == ["known", "unknown", "known"]
    assert page.evaluate("[...document.querySelectorAll('[value=auto]')].every(each => each.disabled)")
    page.select_option("#task", "restyle")
    page.set_input_files("#video", tmp_path / "given.mp4")
    page.wait_for_function("document.querySelector('#status').textContent.includes('12 frames')")
    page.click("#make")
    page.wait_for_function("document.querySelector('#status').textContent.includes('which control')")
    page.focus("#control-edges-from")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#control-edges-from") == "auto"
    page.focus("#control-edges-strength")
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.select_option("#control-depth-from", "file")
    page.set_input_files("#control-depth-file", tmp_path / "depth.webp")
    page.wait_for_function("document.querySelector('#status').textContent.includes('9 frames')")
    page.focus("#motion")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.inner_text("#condition-box output") == "1 to 2"
    page.click("#make")
    (made,) = done(page, 1)
    given = {"video": tmp_path / "given.mp4", "motion": 1.5}
    controls = (ControlClip("edges", "auto", 0.7), ControlClip("depth", tmp_path / "depth.webp"))
    wanted = follower.sample("a xyzzy walks", control=controls, **given).frames
    assert np.array_equal(shown(page, made), wanted)
    page.reload()
    ready(page)
    assert done(page, 1) == [made]
    notes = page.eval_on_selector_all(".warning", "all => all.map(each => each.textContent)")
    assert notes == ["words that this model never met: xyzzy", "control edges=auto: made of the first 9 frames only"]
    page.click(f"[data-id='{made}'] >> text=Settings")
    page.wait_for_function("document.querySelector('#status').textContent.includes('settings are back')")
    names = ("task", "control-edges-from", "control-edges-strength", "control-depth-from", "motion")
    assert [page.input_value(f"#{name}") for name in names] == ["restyle", "auto", "0.7", "file", "2"]
    page.click("#make")
    again = next(each for each in done(page, 2) if each != made)
    assert np.array_equal(shown(page, again), wanted)


def test_what_a_model_has_not_learnt_is_not_offered(page: Any) -> None:
    assert page.is_hidden("#control-box")
    assert page.is_hidden("#condition-box")
    assert page.locator("#task [value=restyle]").count() == 0


def test_clips_out_of_sight_are_not_fetched_before_they_are_looked_at(page: Any, studio_port: int) -> None:
    remote, count = Remote(f"http://127.0.0.1:{studio_port}"), 12
    for job in [remote.ask(Request(prompt="a robot", seed=seed, frames=1)) for seed in range(count)]:
        remote.wait(job)
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url) if request.url.endswith(".rgb") else None)
    page.set_viewport_size({"width": 400, "height": 800})
    page.reload()
    ready(page)
    page.evaluate("scrollTo(0, 0)")
    assert page.locator("#history article").count() == count
    assert len(fetched) < count / 2
    for _ in range(count):
        page.evaluate("document.querySelector('.later')?.scrollIntoView()")
        page.wait_for_timeout(100)
    assert len(done(page, count)) == count
    assert len(fetched) == count


def test_a_server_that_was_gone_is_told_and_goes_on_with_its_clips(
    opened: Callable[..., Any], make_studio: Callable[..., Any], serving: Callable[..., Any]
) -> None:
    from vpoet.serve.app import studio_page

    def server(port: int) -> Any:
        return studio_page(make_studio(), None, "", {"port": port})

    with ExitStack() as page_stays:
        with serving(server) as port:
            page = page_stays.enter_context(opened(port, fine="ERR_CONNECTION_REFUSED"))
            page.fill("#prompt", "a robot")
            page.click("#make")
            (first,) = done(page, 1)
        page.wait_for_function("document.querySelector('#status').textContent.startsWith('The server has gone')")
        with serving(server, port):
            page.wait_for_function("document.querySelector('#status').textContent.startsWith('The server is back')")
            assert done(page, 1) == [first]
            page.click("#make")
            assert first in done(page, 2)
