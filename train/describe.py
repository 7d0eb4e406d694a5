"""Say what a recipe, shard, tokenizer, bundle or run is, with counts and drawings."""

from pathlib import Path
from typing import Annotated

import typer

from vpoet import cli
from vpoet.errors import DataError
from vpoet.evaluate import budget, describe, sequences
from vpoet.evaluate.page.curves import draw_learning
from vpoet.evaluate.plots import PLOTS, law_figure, save
from vpoet.evaluate.scaling import predict
from vpoet.evaluate.tables import facts_in_words
from vpoet.outputs import expect_file
from vpoet.tokenizer.text import TextTokenizer
from vpoet.training.recipe import PretrainConfig
from vpoet.training.run.folder import METRICS


def main(
    thing: Annotated[
        Path, typer.Argument(help="A .yaml recipe, .tar shard, .model file, a folder of any kind, or hf://...")
    ],
    draw: Annotated[bool, typer.Option(help="Draw a sequence of each task, and a pack, of token shards.")] = False,
    text: Annotated[
        Path | None, typer.Option(help="Text tokenizer, to draw a folder of token shards. A recipe names its own.")
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens of the pack to draw. A recipe says its own.")] = 2048,
    device: Annotated[
        str | None, typer.Option(help=f"Plan the run of a pretraining recipe: {', '.join(budget.DEVICES)} or cpu.")
    ] = None,
    world: Annotated[int, typer.Option(help="Plan: processes, each with a device.")] = 1,
    zero: Annotated[int | None, typer.Option(help="Plan: DeepSpeed's ZeRO stage, in place of the recipe's.")] = None,
    mfu: Annotated[float, typer.Option(help="Plan: share of the device's peak that training will reach.")] = budget.MFU,
    price: Annotated[float | None, typer.Option(help="Plan: what an hour of a device costs.")] = None,
    fit: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN", help="Predict the held-out bits of a pretraining recipe from such runs. Repeatable."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves of a run, or with --fit the law, into this picture.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON, and nothing else.")] = False,
) -> None:
    """Say what a thing is: a recipe, a shard or a folder of shards, a text or video tokenizer, a bundle, a run.

    A drawing of a sequence has one line for each run of tokens of a kind: its place, its kind, whether it is predicted,
    its tokens, and its positions (t, h, w). A drawing of a pack shows who sees whom: # what lies before, + both ways.

    A plan says what a run needs before it starts: parameters, memory per process by kind, time and cost. Devices are
    taken from their data sheets, cpu by what this machine's matrix product reaches.

    --fit fits a scaling law (held-out bits over compute, with a floor) to the ends of at least four finished runs of
    other sizes, and predicts where a recipe or run with more compute ends.

    Examples:

        vpoet inspect train/configs/demo.yaml
        vpoet inspect train/configs/1b.yaml --device h100 --world 8 --zero 2 --price 2.5
        vpoet inspect runs/demo/tokens/train --draw --text runs/demo/text.model
        vpoet inspect runs/demo/pretrain --plot curves.png
        vpoet inspect long.yaml --fit runs/a --fit runs/b --fit runs/c --fit runs/d --plot law.png
        vpoet inspect runs/demo/bundle --json
    """
    expect_file(plot, PLOTS)
    facts = describe.describe(thing)
    if device is not None:
        recipe = pretraining(thing, "--device plans")
        facts["plan"] = budget.plan(recipe, device, world=world, zero=zero, mfu=mfu, price=price)
    if fit:
        found = predict(thing, fit)
        facts["prediction"] = found.facts()
        if plot is not None:
            save(law_figure(found), plot)
    elif plot is not None:
        facts["curves"] = f"{draw_learning(thing / METRICS, plot)} steps in {plot}"
    pictures = drawings(thing, text, length) if draw else {}
    if json:
        cli.finish(facts | ({"drawings": pictures} if draw else {}), as_json=True)
        return
    print(f"{thing}: {facts.pop('is')}")
    print("\n".join(facts_in_words(facts)))
    for name, picture in pictures.items():
        print(f"\n{name}\n{picture}")


def drawings(thing: Path, text: Path | None, length: int) -> dict[str, str]:
    """Pictures of a recipe's data, or of a folder of token shards."""
    if thing.is_dir():
        if text is None:
            raise DataError(f"{thing}: drawing its sequences needs the text tokenizer; add --text text.model")
        return sequences.draw_shards(thing, TextTokenizer.load(text), length)
    return sequences.draw_recipe(pretraining(thing, "--draw draws folders of token shards and"))


def pretraining(thing: Path, wanted: str) -> PretrainConfig:
    """The recipe; DataError if it is of another kind."""
    recipe = describe.load_recipe(thing) if thing.suffix in (".yaml", ".yml") else None
    if not isinstance(recipe, PretrainConfig):
        raise DataError(f"{thing}: {wanted} pretraining recipes")
    return recipe


if __name__ == "__main__":
    cli.run(main)
