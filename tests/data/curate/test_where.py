"""Conditions: what the language says, and that nothing else is read, let alone run."""

from pathlib import Path
from typing import Any

import pytest

from vpoet.data.curate.where import check_names, conditions
from vpoet.errors import DataError

CLIP: dict[str, Any] = {"motion": 0.5, "text": 0.0, "label": "walk", "truth": {"who": "robot"}, "cuts": 0}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("motion > 0.4 and text < 0.02", True),
        ("motion > 0.6", False),
        ("0.4 < motion <= 0.5", True),
        ("0.4 < motion < 0.5", False),
        ("label == 'walk' or motion > 9", True),
        ("not label == 'walk'", False),
        ("label in ('jump', 'walk')", True),
        ("label not in ('jump', 'walk')", False),
        ("truth.who == 'robot'", True),
        ("motion + text * 2 >= 1 / 2", True),
        ("-motion < -0.4", True),
        ("nsfw < 0.5", False),
        ("not nsfw < 0.5", False),
        ("motion > 'a'", False),
        ("motion / text > 1", False),
        ("label * 3 == 'walkwalkwalk'", False),
        ("truth.who.name == 'x'", False),
    ],
)
def test_what_it_says(text: str, holds: bool) -> None:
    assert all(condition.holds(CLIP) for condition in conditions(text)) == holds


def test_and_makes_stages() -> None:
    found = conditions("motion > 0.4 and (text < 0.02 or label == 'walk') and cuts == 0")
    assert [condition.text for condition in found] == ["motion > 0.4", "text < 0.02 or label == 'walk'", "cuts == 0"]
    assert [condition.names for condition in found] == [("motion",), ("text", "label"), ("cuts",)]


@pytest.mark.parametrize(
    "text",
    [
        "", "motion", "0.4", "motion >", "motion = 1", "(", "motion > 1; x", "a\nb", "lambda: 1", "motion and text",
        "__import__('os').system('touch ran') == 0", "motion.__class__() == 1", "[x for x in (1,)] == 1", "f(1) > 0",
        "motion > (1, 2)", "label in 'walk'", "motion ** 9 > 1", "9 ** 9 ** 9 > 1", "x[0] > 1", "f'{motion}' == 'a'",
        "(x := 1) > 0", "motion > None", "motion > b'a'", "motion > ...", "1 if motion else 2", "a is b", "~a > 1",
        "not " * 3000 + "a > 1", "(" * 500 + "a > 1" + ")" * 500, "a > " + "-" * 100 + "1", "a" * 9000 + " > 1",
    ],
)  # fmt: skip
def test_nothing_else_is_read(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="--where"):
        conditions(text)
    assert not list(tmp_path.iterdir())


def test_a_name_that_no_clip_has_is_told_with_the_nearest() -> None:
    check_names(conditions("motion > 1 and truth.who == 'x'"), CLIP.keys())
    with pytest.raises(DataError, match=r"no clip has 'moton': did you mean motion\?"):
        check_names(conditions("moton > 1"), CLIP.keys())
