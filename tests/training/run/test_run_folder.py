"""The folder of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vpoet.errors import OutputError
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.run.folder import RESOLVED, save_resolved

CLIPS: dict[str, Any] = {"data": ["raw"], "frames": 5, "height": 16, "width": 16, "steps": 1}


def test_a_full_disk_leaves_the_recipe_that_was_there(tmp_path: Path, full_disk: Callable[[int], None]) -> None:
    save_resolved(VideoTokenizerRecipe(run="a", **CLIPS), tmp_path)
    before = (tmp_path / RESOLVED).read_text()
    full_disk(100)
    with pytest.raises(OutputError, match=r"resolved\.yaml: cannot be written: File too large; make room"):
        save_resolved(VideoTokenizerRecipe(run="c", **CLIPS), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [RESOLVED]
    assert (tmp_path / RESOLVED).read_text() == before
