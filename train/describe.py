"""Say what a recipe, shard, tokenizer, bundle or run is, with counts and drawings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vpoet import cli
from vpoet.errors import DataError
from vpoet.evaluate import inspection
from vpoet.tokenizer.text import TextTokenizer
from vpoet.training.recipe import PretrainConfig


def main(
    thing: Annotated[Path, typer.Argument(help="A .yaml recipe, .tar shard, .model file, or a folder of any kind.")],
    draw: Annotated[bool, typer.Option(help="Draw a sequence of each task, and a pack, of token shards.")] = False,
    text: Annotated[
        Path | None, typer.Option(help="Text tokenizer, to draw a folder of token shards. A recipe names its own.")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of the pack to draw. A recipe says its own.")] = 2048,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON, and nothing else.")] = False,
) -> None:
    """Say what a thing is: a recipe, a shard or a folder of shards, a text or video tokenizer, a bundle, a run.

    A drawing of a sequence has one line for each run of tokens of a kind: its place, its kind, whether it is predicted,
    its tokens, and its positions (t, h, w). A drawing of a pack shows who sees whom: # what lies before, + both ways.

    Examples:

        vpoet inspect train/configs/demo.yaml
        vpoet inspect runs/demo/tokens/train --draw --text runs/demo/text.model
        vpoet inspect runs/demo/bundle --json
    """
    facts = inspection.describe(thing)
    pictures = drawings(thing, text, length) if draw else {}
    if json:
        cli.finish(facts | ({"drawings": pictures} if draw else {}), as_json=True)
        return
    print(f"{thing}: {facts.pop('is')}")
    for line in lines(facts):
        print(line)
    for name, picture in pictures.items():
        print(f"\n{name}\n{picture}")


def drawings(thing: Path, text: Path | None, length: int) -> dict[str, str]:
    """Pictures of a recipe's data, or of a folder of token shards."""
    if thing.is_dir():
        if text is None:
            raise DataError(f"{thing}: drawing its sequences needs the text tokenizer; add --text text.model")
        return inspection.draw_shards(thing, TextTokenizer.load(text), length)
    recipe = inspection.load_recipe(thing) if thing.suffix in (".yaml", ".yml") else None
    if not isinstance(recipe, PretrainConfig):
        raise DataError(f"{thing}: --draw draws pretraining recipes and folders of token shards")
    return inspection.draw_recipe(recipe)


def lines(facts: dict[str, Any], indent: str = "  ") -> Iterator[str]:
    """Facts as people read them, nested ones indented."""
    width = max((len(name) for name, value in facts.items() if not isinstance(value, dict)), default=0)
    for name, value in facts.items():
        if isinstance(value, dict):
            yield f"{indent}{name}"
            yield from lines(value, indent + "    ")
        else:
            yield f"{indent}{name:<{width}}  {readable(value)}"


def readable(value: object) -> str:
    """Thousands apart, floats to four digits, lists by commas."""
    if isinstance(value, list):
        return ", ".join(map(readable, value)) or "none"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"


if __name__ == "__main__":
    cli.run(main)
