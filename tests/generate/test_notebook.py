"""Clips in a notebook: they show themselves, progress is shown, and the notebook that ships runs."""

import ast
import base64
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vpoet
from vpoet.generate.notebook import progress_bar
from vpoet.media.video import Video

CLIP = Video(np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), np.uint8), 8.0)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A kernel of IPython, as far as it shows things: what it has shown."""
    shown: list[str] = []
    handle = SimpleNamespace(update=shown.append)
    display = SimpleNamespace(HTML=str, display=lambda value, display_id: shown.append(value) or handle)
    kernel = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: kernel, display=display))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


@pytest.mark.parametrize(("clip", "name", "kind"), [(CLIP, "video", "mp4"), (Video(CLIP.frames[:1], 0), "img", "png")])
def test_a_clip_shows_itself(clip: Video, name: str, kind: str) -> None:
    told = clip._repr_html_()
    found = re.match(rf'<{name} src="data:[a-z]+/{kind};base64,([^"]+)" width="(\d+)"', told)
    assert found
    assert base64.b64decode(found[1]) == clip.encode(f".{kind}")
    assert int(found[2]) % 24 == 0


def test_a_notebook_shows_how_far_it_is_and_a_terminal_nothing(
    notebook: list[str], tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = vpoet.load(make_bundle(tmp_path, depth=1, frames=5, height=16, width=16), "cpu")
    clip = model.sample("a robot", seed=1)
    values = [int(found[1]) for text in notebook if (found := re.search(r'value="(\d+)" max="8"', text))]
    assert values == sorted(values)
    assert len(values) > 1
    assert notebook[-1] == ""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))
    assert progress_bar() is None
    assert np.array_equal(model.sample("a robot", seed=1).frames, clip.frames)


def test_the_notebook_that_ships_runs(root: Path) -> None:
    cells = json.loads((root / "sample/examples/clips.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    shown = []
    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        assert not cell["outputs"]
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        assert isinstance(last, ast.Expr)
        shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    assert [type(value) for value in shown] == [Video, list, Video, Video]
    assert (len(shown[0]), len(shown[1])) == (17, 5)
