"""Contact sheets, curves, and the report page."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vpoet.errors import DataError, ShapeError
from vpoet.evaluate.page.html import Listing, Picture, Section, Table, write_report
from vpoet.evaluate.plots import POINTS, Panel, curves, panels
from vpoet.media.sheet import GAP, TEXT_HEIGHT, contact_sheet


def flat(values, height=16, width=24):
    """Frames of one grey each, uint8 [T, H, W, 3]."""
    return np.asarray(values, np.uint8)[:, None, None, None].repeat(height, 1).repeat(width, 2).repeat(3, 3)


def test_sheet_shows_evenly_spaced_frames_first_and_last_among_them():
    values = list(range(10, 27))  # 17 frames
    sheet = np.asarray(contact_sheet([("clip", flat(values))], max_frames=5, scale=1))
    row = sheet[GAP + TEXT_HEIGHT + 8]
    assert [int(row[GAP + i * (24 + GAP) + 12, 0]) for i in range(5)] == [10, 14, 18, 22, 26]


def test_sheet_takes_clips_of_any_size_and_length():
    rows = [("video", flat(range(9))), ("image", flat([7], height=32, width=8))]
    sheet = contact_sheet(rows, max_frames=4, scale=2)
    assert sheet.height == GAP + 2 * (TEXT_HEIGHT + GAP) + 2 * (16 + 32)
    assert sheet.width == GAP + 4 * (48 + GAP)
    assert np.asarray(sheet)[GAP + 2 * TEXT_HEIGHT + GAP + 32 + 5, GAP + 5].tolist() == [7, 7, 7]


def test_sheet_writes_the_labels_whole():
    label = "a red fox runs to the right over the snow while a bird circles above"
    sheet = np.asarray(contact_sheet([(label, flat([255])), ("", flat([255]))], scale=1))
    inked = np.flatnonzero((sheet[GAP : GAP + TEXT_HEIGHT] < 128).any(axis=(0, 2)))
    assert 200 < inked[-1] < sheet.shape[1]
    assert inked[0] >= GAP


def test_small_clips_are_enlarged():
    assert contact_sheet([("", flat([0], height=32, width=32))]).height == GAP + TEXT_HEIGHT + 128 + GAP


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [("float", np.zeros((1, 8, 8, 3), np.float32))],
        [("image", np.zeros((8, 8, 3), np.uint8))],
        [("none", flat([]))],
    ],
)
def test_sheet_refuses_what_is_no_clip(rows):
    with pytest.raises(ShapeError):
        contact_sheet(rows)


def test_curves_are_drawn_with_gaps(tmp_path):
    path = tmp_path / "folder" / "curves.png"
    curves({"loss": (range(4), [4.0, float("nan"), 2.0, 1.0]), "bits": ([1], [2.0])}, path)
    with Image.open(path) as image:
        assert image.width > image.height
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    with pytest.raises(ShapeError, match="no curves"):
        curves({}, path)


def test_a_long_curve_is_drawn_as_means_within_their_range(tmp_path, monkeypatch):
    """A thousand steps of a wave of one step: the mean is flat, and the shade reaches from trough to crest."""
    drawn = {}
    monkeypatch.setattr("matplotlib.axes.Axes.fill_between", lambda _, *data, **__: drawn.update(shade=data))
    values = np.where(np.arange(3000) % 2, 1.0, 3.0)
    values[:10] = np.nan  # a whole stretch without a value
    panels([Panel("loss", {"training": (range(3000), values)}, "log")], tmp_path / "a.svg")
    steps, least, most = drawn["shade"]
    assert len(steps) == POINTS - 1
    assert set(least) == {1.0}
    assert set(most) == {3.0}
    assert (tmp_path / "a.svg").stat().st_size < 60_000


def test_percents_and_single_values_are_drawn(tmp_path):
    some = Panel("shares", {"waiting": ([5], [0.02]), "padding": ([5, 6], [0.1, float("inf")])}, "percent")
    panels([some, Panel("empty", {"": ([1], [float("nan")])}, "log")], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > image.height


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_report_is_one_file_without_outside_assets(tmp_path):
    Image.fromarray(flat([3])[0]).save(tmp_path / "a.png")
    (tmp_path / "b.mp4").write_bytes(b"video")
    pictures = [Picture(tmp_path / "a.png", 'a "red" <fox>'), Picture(tmp_path / "b.mp4", "sample")]
    table = Table(["stage", "took"], [["vpoet ingest <world>", "3 s"]])
    write_report(
        tmp_path / "out" / "index.html",
        "A run & more",
        [Section("What {body} ran", ["1 < 2", table, Listing("recipe", "a: <b>\n  c: 1"), pictures])],
    )

    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert base64.b64decode(sources[0].removeprefix("data:image/png;base64,")) == (tmp_path / "a.png").read_bytes()
    assert sources[1] == "data:video/mp4;base64," + base64.b64encode(b"video").decode()
    assert not re.search(r"https?://|url\(|@import", text)
    assert {
        "A run & more",
        "What {body} ran",
        "1 < 2",
        "vpoet ingest <world>",
        'a "red" <fox>',
        "a: <b>\n  c: 1",
    } <= set(page.text)
    assert "prefers-color-scheme: dark" in text


def test_report_refuses_pictures_it_cannot_show(tmp_path):
    for name, message in (("none.png", "not readable"), ("codes.npy", "a report shows")):
        with pytest.raises(DataError, match=message):
            write_report(tmp_path / "index.html", "", [Section("", [[Picture(tmp_path / name)]])])
    assert not (tmp_path / "index.html").exists()
