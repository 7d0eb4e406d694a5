"""The report page is one file, and whole."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vpoet.errors import DataError
from vpoet.evaluate.page.html import Listing, Picture, Section, Table, write_report


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
    Image.fromarray(np.full((16, 24, 3), 3, np.uint8)).save(tmp_path / "a.png")
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
