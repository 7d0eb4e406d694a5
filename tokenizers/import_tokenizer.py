"""Import a video tokenizer that others have trained: Cosmos-Tokenize1 DV, VidTok, Emu3."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.shards import Problems
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate import round_trip
from vpoet.evaluate.reconstruction import ReconstructionScores
from vpoet.files import write_atomic
from vpoet.outputs import expect_apart, expect_folder
from vpoet.tokenizer.autoencoder import count_parameters
from vpoet.tokenizer.imported.cosmos import STRIDES
from vpoet.tokenizer.imported.published import FAMILIES
from vpoet.tokenizer.imported.vidtok_files import PRESETS
from vpoet.tokenizer.video import VideoTokenizer

CARD = "card.md"


def main(
    family: Annotated[str, typer.Argument(help=f"Whose: {', '.join(FAMILIES)}.")],
    path: Annotated[
        Path,
        typer.Argument(help="What was published: a folder (cosmos, emu3), .jit or .pt (cosmos), .ckpt (vidtok)."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for config.yaml, model.safetensors and card.md.")],
    strides: Annotated[
        str | None, typer.Option(help=f"cosmos: of {', '.join(STRIDES)}; without it, as PATH is named (DV8x16x16).")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"vidtok: of {', '.join(PRESETS)}; without it, as PATH is named.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(help="A folder of videos, or of raw shards: tell what the tokenizer keeps of each.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Import a video tokenizer that others have trained, into a folder that every --tokenizer takes.

    cosmos: NVIDIA's Cosmos-Tokenize1 DV, 4x8x8, 8x8x8 or 8x16x16. The folder is read for autoencoder.jit, or
    encoder.jit and decoder.jit, or model.pt.

    vidtok: Microsoft's VidTok, the causal ones with FSQ codes, versions 1.0 and 1.1.

    emu3: BAAI's Emu3-VisionTokenizer, in the network of transformers (pip install 'vpoet[emu3]'). It is not causal:
    clips have a multiple of 4 frames, images have no codes, and what needs one is refused.

    Of the files, tensors are read and nothing is run; each must be known by name and shape, and none may be missing.
    The weights stay under their makers' licence, which config and card state.

    With --clips, the first 17 frames of each clip (at most 32 clips, the shorter side at most 256 pixels) go through
    the tokenizer and back, and a table tells PSNR and SSIM; it stands in the card, too.

    Examples:

        vpoet import-tokenizer cosmos Cosmos-Tokenize1-DV8x16x16-720p --out runs/cosmos
        vpoet import-tokenizer vidtok vidtok_fsq_causal_488_32768.ckpt --clips my-videos --out runs/vidtok
        vpoet reconstruct clip.mp4 --tokenizer runs/cosmos --out both.mp4
    """
    console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)
    if family not in FAMILIES:
        raise ConfigError(f"no tokenizers of {family!r} can be imported; those of {', '.join(FAMILIES)} can")
    theirs = FAMILIES[family]
    given = {"strides": strides, "preset": preset}
    if stray := [name for name, value in given.items() if value is not None and name != theirs.option]:
        remedy = f"{family} takes --{theirs.option}" if theirs.option else "leave it out"
        raise ConfigError(f"--{stray[0]} does not go with {family}; {remedy}")
    expect_folder(out)
    expect_apart(out, [path, *([clips] if clips else [])])
    total = round_trip.count(clips) if clips else 0
    console.print(f"reading {path}")
    reading = theirs.read(path, given.get(theirs.option))

    cli.hold(out)
    tokenizer = VideoTokenizer(reading.network)
    tokenizer.save(out)
    card = theirs.card(reading.network, path.resolve().name, tokenizer.hash)
    write_atomic(out / CARD, card)

    size = "x".join(map(str, tokenizer.stride))
    console.print(
        f"{reading.tensors} tensors, each in its place: {count_parameters(reading.network) / 1e6:.1f}M parameters"
    )
    if reading.aside:
        console.print(reading.aside)
    console.print(f"{out}: {size}, {tokenizer.codebook_size:,} codes, hash {tokenizer.hash}")
    console.print(f"licence of the weights: {theirs.license}; see {out / CARD}")
    facts: dict[str, Any] = {
        "tokenizer": out,
        "strides": size,
        "hash": tokenizer.hash,
        "license": theirs.license,
        "tensors": reading.tensors,
    }
    if clips:
        names, problems, scores = [], Problems(), ReconstructionScores(tokenizer)
        found = round_trip.clips(clips, tokenizer, problems)
        for name, video in track(found, "round trip", total=total, console=console):
            scores.add(video.frames, video.fps, {"source": name})
            names.append(name)
        if problems.total:
            console.print(f"left out: {problems}")
        if not names:
            raise DataError(f"{clips}: the tokenizer is imported, but no clip could be scored: {problems}")
        table = round_trip.table(scores, names)
        write_atomic(out / CARD, f"{card}\n## Round trip\n\n{round_trip.PROTOCOL.capitalize()}.\n\n{table}\n")
        console.print(table)
        facts["round_trip"] = scores.result() | {"per_clip": scores.per_clip(names), "protocol": round_trip.PROTOCOL}
    cli.finish(facts, json)


if __name__ == "__main__":
    cli.run(main)
