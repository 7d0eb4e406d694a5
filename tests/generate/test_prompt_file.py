"""Prompt files as editors and other people's programs write them."""

import json
from pathlib import Path

import pytest

from vpoet.errors import DataError
from vpoet.generate.prompt_file import read_prompts

ROW = json.dumps({"prompt": "ein Käfer\u2028läuft"}, ensure_ascii=False)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_in_any_encoding_that_says_what_it_is(tmp_path: Path, encoding: str, end: str) -> None:
    """A byte order mark is no part of the first prompt, and U+2028 ends no line: JSON may hold it."""
    path = tmp_path / "prompts.txt"
    path.write_bytes(end.join([ROW, "a robot walks", "a\x0bb", ""]).encode(encoding))
    requests, problems = read_prompts(path, {})
    assert [request.prompt for _, request in requests] == ["ein Käfer\u2028läuft", "a robot walks", "a\x0bb"]
    assert not problems


def test_a_line_that_is_not_utf8_is_one_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"a robot\nein K\xe4fer\n{" + b'"seed": ' + b"9" * 5000 + b"}\n" + b"[" * 10**5 + b"\na hero\n")
    requests, problems = read_prompts(path, {})
    assert [where for where, _ in requests] == [f"{path}:{number}" for number in (1, 5)]
    assert problems[0] == f"{path}:2: not UTF-8"
    assert [problem.split(": ")[0] for problem in problems] == [f"{path}:{number}" for number in (2, 3, 4)]


def test_a_file_of_no_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"\xef\xbb\xbf\n# nothing\n")
    with pytest.raises(DataError, match="no prompt in it"):
        read_prompts(tmp_path / "empty.txt", {})
