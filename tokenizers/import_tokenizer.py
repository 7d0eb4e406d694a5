"""Import a video tokenizer that others have trained: NVIDIA's Cosmos-Tokenize1 DV."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli
from vpoet.errors import ConfigError
from vpoet.files import write_atomic
from vpoet.outputs import expect_apart, expect_folder
from vpoet.tokenizer.autoencoder import count_parameters
from vpoet.tokenizer.imported import cosmos_files
from vpoet.tokenizer.imported.cosmos import FAMILY, LICENSE, STRIDES
from vpoet.tokenizer.video import VideoTokenizer

CARD = "card.md"


def main(
    family: Annotated[str, typer.Argument(help=f"Whose: {FAMILY}.")],
    path: Annotated[Path, typer.Argument(help="The published folder, a .jit file of the whole, or a state dict.")],
    out: Annotated[Path, typer.Option(help="Folder for config.yaml, model.safetensors and card.md.")],
    strides: Annotated[
        str | None, typer.Option(help=f"Of {', '.join(STRIDES)}; without it, as PATH is named (DV8x16x16).")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Import a video tokenizer that others have trained, into a folder that every --tokenizer takes.

    cosmos: NVIDIA's Cosmos-Tokenize1 DV, 4x8x8, 8x8x8 or 8x16x16. The folder is read for autoencoder.jit, or
    encoder.jit and decoder.jit, or model.pt. Of the files, tensors are read and nothing is run; each must be known by
    name and shape, and none may be missing. The weights stay under NVIDIA's licence, which config and card state.

    Examples:

        vpoet import-tokenizer cosmos Cosmos-Tokenize1-DV8x16x16-720p --out runs/cosmos
        vpoet reconstruct clip.mp4 --tokenizer runs/cosmos --out both.mp4
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    if family != FAMILY:
        raise ConfigError(f"no tokenizers of {family!r} can be imported; {FAMILY} can")
    expect_folder(out)
    expect_apart(out, [path])
    stride = cosmos_files.strides(path, strides)
    files = cosmos_files.find(path)
    console.print(f"reading {', '.join(map(str, files))}")
    tensors = cosmos_files.gather(files)
    network = cosmos_files.network(tensors, stride)

    cli.hold(out)
    tokenizer = VideoTokenizer(network)
    tokenizer.save(out)
    write_atomic(out / CARD, cosmos_files.card(network, path.resolve().name, tokenizer.hash))

    parameters = count_parameters(network.encoder), count_parameters(network.decoder)
    console.print(f"{len(tensors)} tensors, each in its place: {sum(parameters) / 1e6:.1f}M parameters")
    console.print(f"{out}: {stride}, {tokenizer.codebook_size:,} codes, hash {tokenizer.hash}")
    console.print(f"licence of the weights: {LICENSE}; see {out / CARD}")
    cli.finish(
        {"tokenizer": out, "strides": stride, "hash": tokenizer.hash, "license": LICENSE, "tensors": len(tensors)}, json
    )


if __name__ == "__main__":
    cli.run(main)
