"""Train the text tokenizer (sentencepiece) on the captions of raw shards."""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.folder import read_samples
from vpoet.data.shards import Manifest, Problems
from vpoet.tokenizer.text import TextTokenizer


def main(
    raw: Annotated[list[Path], typer.Argument(help="Folders of raw shards, as `vpoet ingest` makes them.")],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    size: Annotated[
        int, typer.Option(help="Pieces at most; 257 go to the bytes. Fewer if there is less to learn.", max=10**6)
    ] = 512,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Train the text tokenizer on the captions of raw shards.

    Prompts are read without regard to case; what the captions never showed is spelled in bytes. Equal shards give an
    equal model.

    Example:

        vpoet train-text runs/demo/raw --out runs/demo/text.model --size 512
    """
    TextTokenizer.check_vacant(out)
    console = Console(stderr=True, markup=False, soft_wrap=True)
    problems = Problems()
    captions: list[str] = []
    total = sum(Manifest.load(folder).samples for folder in raw)
    for sample in track(read_samples(*raw, problems=problems), "reading captions", total, console=console):
        captions += sample.words

    tokenizer = TextTokenizer.train(captions, out, size)

    lengths = Counter({caption: len(tokenizer.encode(caption)) for caption in set(captions)})
    mean = sum(lengths[caption] for caption in captions) / len(captions)
    if problems.total:
        console.print(f"left out: {problems}")
    if tokenizer.size < size:
        console.print(f"note: the captions have no more than {tokenizer.size} pieces to learn, {size} were asked for")
    console.print(f"{len(captions)} captions of {mean:.1f} tokens in the mean, {max(lengths.values())} at most")
    console.print(f"{out}: {tokenizer.size} pieces, hash {tokenizer.hash}")
    cli.finish(
        {
            "model": out,
            "size": tokenizer.size,
            "hash": tokenizer.hash,
            "captions": len(captions),
            "mean_tokens": mean,
            "max_tokens": max(lengths.values()),
        },
        json,
    )


if __name__ == "__main__":
    cli.run(main)
