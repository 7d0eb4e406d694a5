"""What the page of everything is to who sees it for the first time, has no pointer, or hears it read."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vpoet.generate.model import Model
from vpoet.media.video import Video

pytestmark = pytest.mark.browser
REFUSED = "400 (Bad Request)"
"""What a browser says by itself of an answer that is an error."""
NAMELESS = """[...document.querySelectorAll("input, select, textarea, button, a, summary, canvas, [tabindex]")]
  .filter(each => !(each.labels?.length && each.labels[0].textContent.trim()) && !each.ariaLabel &&
    !each.textContent.trim() && !each.matches("[hidden] *, #compare canvas"))
  .map(each => each.outerHTML)"""
COVERED = """() => {
  const each = document.activeElement, box = each.getBoundingClientRect();
  const top = document.elementFromPoint(box.left + box.width / 2, box.top + Math.min(box.height / 2, 20));
  return each.contains(top) || (top && top.contains(each)) ? null : each.outerHTML;
}"""


@pytest.fixture
def page(opened: Callable[..., Any], studio_port: int) -> Iterator[Any]:
    with opened(studio_port, fine=REFUSED) as one:
        yield one


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Video(np.random.default_rng(1).integers(0, 256, (1, 16, 24, 3), np.uint8), 0).write(file)
    return file


def made(page: Any, count: int = 1) -> None:
    page.wait_for_function(f"document.querySelectorAll('article[data-done]').length === {count}")


def says(page: Any, text: str) -> None:
    page.wait_for_function("text => document.querySelector('#status').textContent.includes(text)", arg=text)


@contextmanager
def only(models: dict[str, Model], tmp_path: Path, serving: Callable[..., Any]) -> Iterator[int]:
    """The port of a page of these models."""
    from vpoet.serve.app import studio_page
    from vpoet.serve.history import History
    from vpoet.serve.studio import Studio
    from vpoet.serve.uploads import Uploads

    studio = Studio(models, Uploads(tmp_path / "uploads"), History(tmp_path / "clips"))
    with serving(lambda port: studio_page(studio, None, "", {"port": port})) as port:
        yield port


def test_models_that_make_no_clips_are_not_offered(
    samplers: dict[str, Model],
    player: Model,
    tmp_path: Path,
    serving: Callable[..., Any],
    opened: Callable[..., Any],
) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(only({"player": player, "small": samplers["small"]}, tmp_path, serving))
        page = stack.enter_context(opened(port))
        assert page.eval_on_selector_all("#model option", "all => all.map(each => each.value)") == ["small"]
        assert page.is_hidden("#model-row")
        assert page.input_value("#task") == "text"
        page.fill("#prompt", "a robot")
        page.click("#make")
        made(page)
    with ExitStack() as stack:
        port = stack.enter_context(only({"player": player}, tmp_path / "alone", serving))
        page = stack.enter_context(opened(port))
        assert page.is_hidden("#ask")
        assert "make no clips" in page.inner_text("#nothing")


def test_what_one_model_takes_is_shown_where_the_other_refuses(page: Any) -> None:
    def answer(route: Any) -> None:
        if '"model":"large"' in (route.request.post_data or ""):
            route.fulfill(status=400, json={"error": "not this one"})
        else:
            route.continue_()

    page.route("**/api/jobs", answer)
    page.select_option("#second", "large")
    page.fill("#prompt", "a robot")
    page.click("#make")
    made(page)
    assert page.inner_text("#status") == "not this one"  # that the other is done does not hide it


def test_the_first_visit_says_what_to_do_and_a_clip_that_it_is_done(page: Any) -> None:
    assert "press Make" in page.inner_text("#nothing")
    page.fill("#prompt", "a robot")
    page.click("#make")
    made(page)
    says(page, "A clip is done.")
    assert page.inner_text("article .label") == "small: a robot · seed 0"
    assert page.is_hidden("#nothing")
    page.get_by_role("button", name="A", exact=True).click()
    says(page, "Press B of another clip")
    assert page.is_hidden("#compare")
    page.get_by_role("button", name="B", exact=True).click()
    page.wait_for_selector("#compare:not([hidden])")


def test_words_that_are_known_and_not_are_told_in_words(opened: Callable[..., Any], following_port: int) -> None:
    with opened(following_port) as page:
        page.fill("#prompt", "a xyzzy walks")
        assert page.inner_text("#met") == "— the model never met: xyzzy."
        page.fill("#prompt", "a robot walks")
        assert page.inner_text("#met") == "— all known."
        page.fill("#prompt", "")
        assert page.inner_text("#met") == ""
        page.click("#known summary")
        assert page.inner_text("#known p").split() == ["a", "hero", "robot", "walks"]


def test_there_is_no_easel_before_there_is_something_to_paint_on(page: Any, picture: Path) -> None:
    page.select_option("#task", "paint-image")
    assert page.is_hidden("#easel")
    assert page.is_visible("#easel-hint")
    page.set_input_files("#image", picture)
    says(page, "24×16")
    page.wait_for_selector("#easel:not([hidden])")
    assert page.is_hidden("#easel-hint")
    page.select_option("#task", "paint")  # a video, which is not there yet
    assert page.is_hidden("#easel")


def test_a_file_that_is_not_taken_is_named_and_the_one_before_it_stays(page: Any, picture: Path) -> None:
    page.select_option("#task", "image")
    page.set_input_files("#image", picture)
    says(page, "24×16")
    before = page.get_attribute("[data-field=image] .preview", "src")
    (picture.parent / "bad.png").write_bytes(b"no picture")
    page.set_input_files("#image", picture.parent / "bad.png")
    says(page, "bad.png: ")
    assert page.input_value("#image") == ""
    assert page.get_attribute("[data-field=image] .preview", "src") == before
    assert "elsewhere" in page.locator("[data-field=image]").get_attribute("class")


def test_all_fields_have_names_and_none_is_covered_where_tab_comes_to_it(
    opened: Callable[..., Any], following_port: int
) -> None:
    with opened(following_port, viewport={"width": 400, "height": 600}) as page:
        page.fill("#prompt", "a robot")
        page.keyboard.press("Enter")
        made(page)
        page.click("#more summary")
        for task in page.eval_on_selector_all("#task option", "all => all.map(each => each.value)"):
            page.select_option("#task", task)
            assert page.evaluate(NAMELESS) == [], task
        page.select_option("#task", "paint-image")
        page.focus("#task")
        reached: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            assert page.evaluate(COVERED) is None
            if (
                name := page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id")
            ) == "Delete":
                break
            reached.append(name)
        fields = ("prompt", "image", "brush-size", "box", "seed", "Make", "Next seed", "mp4", "Settings", "Edit")
        places = [reached.index(each) for each in fields]
        assert places == sorted(places)


def test_what_it_says_is_in_sight_wherever_one_is_on_a_small_screen(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 500})
    page.select_option("#task", "image")
    page.evaluate("scrollTo(0, 300)")
    page.click("#make")
    says(page, "Choose the first frame first")
    box = page.locator("#status").bounding_box()
    assert 0 <= box["y"] <= 500 - box["height"]
    assert page.locator("#make").bounding_box()["y"] < 500
    page.select_option("#task", "still")
    page.evaluate("scrollTo(0, 0)")
    page.click("#make")
    made(page)
    box = page.locator("article progress, article .curve").bounding_box()
    assert 0 < box["y"] < 500


def test_a_clip_stands_still_for_who_wants_less_motion(opened: Callable[..., Any], studio_port: int) -> None:
    first = "(() => { const [one] = cards.values(); return one.view.shown === one.clip.frames[0]; })()"
    with opened(studio_port, reduced_motion="reduce") as page:
        page.fill("#prompt", "a robot")
        page.click("#make")
        made(page)
        page.wait_for_function(first)
        page.wait_for_timeout(500)
        assert page.evaluate(first)
        page.focus(".curve")
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"!{first}")
        page.evaluate("document.activeElement.blur()")
        page.wait_for_function(first)
        page.emulate_media(reduced_motion="no-preference")
        page.wait_for_function(f"!{first}")


def test_a_wrong_number_is_shown_where_it_is_and_none_counts_that_is_not_asked_for(page: Any) -> None:
    page.click("#more summary")
    page.fill("#top_p", "5")
    page.click("#more summary")
    page.click("#make")
    page.wait_for_function("document.activeElement.id === 'top_p' && document.activeElement.checkVisibility()")
    page.fill("#top_p", "")
    page.fill("#frames", "-3")
    page.select_option("#task", "still")  # it has one frame, and no such field
    page.click("#make")
    made(page)
