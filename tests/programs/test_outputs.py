"""Where results can be written, known before the work."""

import os
from pathlib import Path

import pytest

from vpoet.errors import OutputError
from vpoet.outputs import expect_file, expect_folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    return tmp_path


@pytest.mark.parametrize("name", ["file", "x.png", "new/folders/x.png", "x.PNG", "link", "loop"])
def test_a_file_can_be_written_and_none_is(here: Path, name: str) -> None:
    before = sorted(here.rglob("*"))
    expect_file(here / name)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file/x.png", "file is no folder"),
        ("file/x/y.png", "file is no folder"),
        ("folder.png", "is a folder; name a file in it"),
        ("loop/x.png", "cannot be written"),
        ("n" * 300 + ".png", "File name too long"),
        ("n" * 240 + ".png", "File name too long"),
        ("\udcff.png", "not UTF-8"),
        ("a\0.png", "null"),
        ("x.xyz", r"cannot write \.xyz; use \.png, \.svg"),
        ("x", "cannot write a file without a suffix"),
        ("/proc/x.png", "No such file or directory in /proc"),
    ],
)
def test_no_file_can_be_written(here: Path, name: str, said: str) -> None:
    with pytest.raises(OutputError, match=said):
        expect_file(here / name, (".png", ".svg"))


@pytest.mark.parametrize("name", ["", "new", "new/new", "folder.png"])
def test_a_folder_can_be_written_and_none_is(here: Path, name: str) -> None:
    before = sorted(here.rglob("*"))
    expect_folder(here / name)
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["file", "file/x", "loop", "link", "n" * 300, "/proc/x", "/dev/null"])
def test_no_folder_can_be_written(here: Path, name: str) -> None:
    with pytest.raises(OutputError):
        expect_folder(here / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write(here: Path) -> None:
    here.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        expect_file(here / "x.png")
