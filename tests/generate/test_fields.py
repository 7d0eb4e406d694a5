"""One list of what can be asked: flags, a prompt file's rows and `Model.sample` follow from the fields of a request."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
import typer.main

from vpoet import cli
from vpoet.errors import PromptError
from vpoet.generate import prompt_file
from vpoet.generate.fields import Range, about, asked, check, declared, takes, written
from vpoet.generate.flags import flags
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.generate.sampling import Sampling


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Longer(Request):
    """A request with one field more."""

    mood: str | None = asked(None, "As --task says, but sad.", alias="feel")


def options(main: Callable[..., None]) -> dict[str, list[str]]:
    """The flags of a program by the parameter that they are for."""
    app = typer.Typer(add_completion=False)
    app.command()(main)
    return {each.name or "": each.opts for each in typer.main.get_command(app).params}


def sample(request: type, sampling: type = Sampling) -> tuple[Callable[..., Any], Callable[..., None]]:
    """`Model.sample` and the program, made of these fields."""

    @takes(request, sampling)
    def python(self: object, prompt: str = "", **asked: Any) -> dict[str, Any]:
        """Sample one video."""
        return {"prompt": prompt, **asked}

    @flags(request, sampling, before="count")
    def main(prompt: Annotated[list[str] | None, typer.Option()] = None, count: int = 1, **asked: Any) -> None:
        print(json.dumps(asked, default=str))

    return python, main


def rows(path: Path, texts: dict[str, Any]) -> list[str]:
    """What is wrong with rows of one field each."""
    path.write_text("\n".join(json.dumps({name: value}) for name, value in texts.items()))
    return prompt_file.read_prompts(path, {})[1]


def test_flags_rows_and_arguments_are_the_fields(tmp_path: Path) -> None:
    fields = [*declared(Request, Sampling)]
    assert [*inspect.signature(Model.sample).parameters] == ["self", *fields]
    found = options(cli.program("sample"))
    assert set(fields) <= set(found)
    assert all(f"--{name.replace('_', '-')}" in found[name] for name in fields)
    assert (found["guidance"], found["story"]) == (["--cfg", "--guidance"], ["--then", "--story"])
    right: dict[Any, Any] = {str: "1,1,1,1", int: 1, float: 0, bool: True, Path: "a.png", list[str]: ["1: a"]}
    lines = {name: right[written(field)] for name, field in declared(Request).items()} | {"control": ["edges=a.mp4"]}
    assert rows(tmp_path / "rows", lines) == []
    assert len(rows(tmp_path / "rows", {name: {} for name in declared(Request)})) == len(declared(Request))
    assert "unknown field 'top_k'" in rows(tmp_path / "rows", {"top_k": 1})[0]


def test_a_field_more_is_a_flag_a_row_and_an_argument(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, main = sample(Longer)
    assert "mood" not in inspect.signature(Model.sample).parameters
    mood = inspect.signature(python).parameters["mood"]
    assert (mood.default, mood.annotation, mood.kind) == (None, str | None, inspect.Parameter.KEYWORD_ONLY)
    assert "``mood`` (or ``feel``): As ``task`` says, but sad." in (python.__doc__ or "")
    assert python(None, "a", mood="sad") == python(None, "a", feel="sad") == {"prompt": "a", "mood": "sad"}
    assert options(main)["mood"] == ["--feel", "--mood"]
    with pytest.raises(SystemExit, match="0"):
        cli.run(main, arguments=["--feel", "sad", "--min-p", "0.5"])
    given = json.loads(capsys.readouterr().out)
    assert (given["mood"], given["min_p"], given["guidance"], given["seed"]) == ("sad", 0.5, None, 0)
    assert "did you mean" in rows(tmp_path / "rows", {"mood": "sad"})[0]
    monkeypatch.setattr(prompt_file, "Request", Longer)
    assert rows(tmp_path / "rows", {"mood": "sad"}) == []


def test_arguments_that_are_none_are_refused_with_the_nearest_name() -> None:
    python, _ = sample(Request)
    with pytest.raises(TypeError, match=r"python: unknown argument 'heigth'; did you mean 'height'\?"):
        python(None, heigth=3)
    with pytest.raises(TypeError, match="cfg, guidance: two of them are names of one argument"):
        python(None, cfg=1.0, guidance=1.0)
    with pytest.raises(TypeError, match="too many positional"):
        python(None, "a prompt", "an image")


def test_every_field_says_what_it_is() -> None:
    for name, field in declared(Request, Sampling).items():
        assert about(field).help.endswith((".", "]")), name
        assert (about(field).read is None) == (about(field).written is None), name


@pytest.mark.parametrize(
    ("range_", "inside", "outside", "words"),
    [
        (Range(0), (0, 5), (-1,), "0 or more"),
        (Range(0, 1e6, off=0), (0, 1e6), (-1, float("nan"), float("inf")), "0 (off) to 1e+06"),
        (Range(0, 1, off=1, above=True), (0.1, 1), (0, 1.1), "above 0 and at most 1 (off)"),
    ],
)
def test_ranges(range_: Range, inside: tuple[float, ...], outside: tuple[float, ...], words: str) -> None:
    assert all(value in range_ for value in inside)
    assert not any(value in range_ for value in outside)
    assert str(range_) == words


def test_a_number_out_of_its_range_is_named() -> None:
    check(Request())
    with pytest.raises(PromptError, match="seed = -1: it must be 0 or more"):
        check(Request(seed=-1))
    with pytest.raises(PromptError, match=r"top_p = 0: it must be above 0 and at most 1 \(off\)"):
        Sampling(top_p=0)
