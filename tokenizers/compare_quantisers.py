"""Compare FSQ, LFQ and VQ: the same small autoencoder with each, at several codebook sizes."""

import functools
import json
import time
from itertools import islice, product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from vpoet import cli
from vpoet.arrays import Frames
from vpoet.data.clip_stream import ClipShape, ClipStream
from vpoet.errors import ConfigError
from vpoet.evaluate.codes import CodeStatistics
from vpoet.evaluate.intervals import markdown, over_seeds, plot_quantisers
from vpoet.evaluate.pixels import psnr, ssim
from vpoet.files import appending
from vpoet.outputs import expect_folder
from vpoet.tokenizer.autoencoder import AutoencoderConfig
from vpoet.tokenizer.quantiser import QuantiserConfig
from vpoet.tokenizer.video import VideoTokenizer
from vpoet.training.codec.loss import LossConfig
from vpoet.training.codec.recipe import VideoTokenizerRecipe
from vpoet.training.codec.training import TokenizerTraining
from vpoet.training.run.tracking import read_metrics

VARIANTS = {
    "fsq": {"kind": "fsq"},
    "lfq": {"kind": "lfq"},
    "lfq-without-entropy": {"kind": "lfq", "entropy": 0.0},
    "vq": {"kind": "vq"},
    "fsq-with-images": {"kind": "fsq"},
    "fsq-even": {"kind": "fsq"},
}
FRAMES, SIZE, BATCH, IMAGES, EVENNESS = 9, 32, 8, 8, 0.2
SCORED = 256
"""Windows that are drawn again and scored; the codes of all are counted."""
HELD_OUT_SEED = 1_000_003
ALIKE = ("step", "variant", "codebook", "codes", "held_out_codes", "uniform_use")
COLUMNS = {
    "step": ("steps", "{}"),
    "variant": ("variant", "{}"),
    "codes": ("codes", "{:,}"),
    "seeds": ("seeds", "{}"),
    "use": ("codes in use", "{:.2%}"),
    "uniform_use": ("uniform source", "{:.2%}"),
    "entropy_bits": ("bits a code", "{:.2f}"),
    "psnr": ("PSNR, dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.3f}"),
    "image_psnr": ("image PSNR, dB", "{:.2f}"),
    "cpu_seconds": ("CPU, s", "{:.0f}"),
}
SCORES = ("use", "use_of_uniform", "entropy_bits", "psnr", "ssim", "image_psnr", "image_ssim", "cpu_seconds")
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    data: Annotated[list[Path], typer.Argument(help="Folders of raw shards to train on.")],
    held_out: Annotated[list[Path], typer.Option(help="Folder of raw shards to score on. Repeatable.")],
    out: Annotated[Path, typer.Option(help="Folder for results.jsonl and quantisers.png; goes on with what it holds.")],
    steps: Annotated[int, typer.Option(help="Optimiser steps of a run.", min=1, max=10**6)] = 300,
    seeds: Annotated[str, typer.Option(help="A run each, with its own weights and data order.")] = "0,1,2",
    codebooks: Annotated[str, typer.Option(help="Codes: powers of two.")] = "256,4096,65536,262144",
    variants: Annotated[str, typer.Option(help=f"Of {', '.join(VARIANTS)}.")] = "fsq,lfq,lfq-without-entropy,vq",
    windows: Annotated[int, typer.Option(help="Held-out windows; each has 48 codes.", min=1, max=10**5)] = 4200,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Compare FSQ, LFQ and VQ, by the same small autoencoder trained with each.

    A run is one variant, codebook and seed: size tiny, 4x8x8, steps of 8 random windows of 9 frames of 32x32, which
    are the same for all variants of a seed. Its averaged weights are scored on held-out windows drawn alike. Each run
    is a row of OUT/results.jsonl, and one that is there already is not run again. The table and OUT/quantisers.png
    show means over seeds with 95% intervals (Student's t), for all rows of these data; the picture, those of --steps.

    lfq-without-entropy leaves out LFQ's entropy term. fsq-with-images takes 8 images beside the clips in every step,
    and fsq-even has loss.evenness.

    Example:

        vpoet compare-quantisers runs/raw/train --held-out runs/raw/heldout --out runs/quantisers
    """
    expect_folder(out)
    setup = {"frames": FRAMES, "size": SIZE, "batch": BATCH, "windows": windows}
    setup |= {"data": list(map(str, data)), "held_out": list(map(str, held_out))}
    names, sizes, draws = variants.split(","), whole_numbers(codebooks, "--codebooks"), whole_numbers(seeds, "--seeds")
    if unknown := set(names) - set(VARIANTS):
        raise ConfigError(f"--variants: no {', '.join(sorted(unknown))}; choose from {', '.join(VARIANTS)}")
    every = product(draws, sorted(sizes), names)  # by seed first: interrupted, it has done all variants of some
    runs = {(codebook, name, seed): recipe(codebook, name, seed, steps, data) for seed, codebook, name in every}
    results = out / "results.jsonl"
    cli.hold(out)
    there = [row for row in (read_metrics(results) if results.is_file() else []) if row.get("setup") == setup]
    for row in there:
        if row["step"] == steps:
            runs.pop((row["codebook"], row["variant"], row["seed"]), None)
    console.print(f"{results}: {len(there)} runs on these data are there, {len(runs)} to go")
    if runs:
        some = min(windows, 100)
        scored = batches(tuple(held_out), HELD_OUT_SEED, FRAMES, some, -(-windows // some))
        scored = scored.reshape(-1, *scored.shape[2:])[:windows]
    for number, ((codebook, variant, seed), settings) in enumerate(runs.items(), start=1):
        row = {"variant": variant, "codebook": codebook, "seed": seed, **run(settings, scored), "setup": setup}
        with appending(results) as file:
            file.write(json.dumps(row) + "\n")
        there.append(row)
        console.print(
            f"{number}/{len(runs)}  {variant} {codebook} seed {seed}: {row['use']:.1%} of the codes used "
            f"(by uniform ones {row['uniform_use']:.1%}), PSNR {row['psnr']:.2f} dB, {row['cpu_seconds']:.0f} s"
        )
    there.sort(key=lambda row: (row["step"], list(VARIANTS).index(row["variant"]), row["codebook"], row["seed"]))
    table = over_seeds(there, ALIKE, SCORES)
    console.print(markdown(table, COLUMNS))
    picture = out / "quantisers.png"
    plot_quantisers([line for line in table if line["step"] == steps and line["variant"] in names], picture)
    console.print(f"{picture}: use of the codebook and quality after {steps} steps")
    cli.finish({"runs": len(there), "results": results, "picture": picture, "table": table}, as_json)


def whole_numbers(text: str, option: str) -> list[int]:
    """The different numbers of a list like 0,1,2."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"{option} {text}: give whole numbers with commas between them")
    return list(dict.fromkeys(map(int, text.split(","))))


def recipe(codebook: int, variant: str, seed: int, steps: int, data: list[Path]) -> VideoTokenizerRecipe:
    """What a run trains; ConfigError when there is no such codebook."""
    quantiser = QuantiserConfig(codebook=codebook, **VARIANTS[variant])
    return VideoTokenizerRecipe(
        run="",
        data=list(map(str, data)),
        frames=FRAMES,
        height=SIZE,
        width=SIZE,
        augment=True,
        model=AutoencoderConfig(size="tiny", quantiser=quantiser),
        batch=BATCH,
        image_batch=IMAGES if variant == "fsq-with-images" else 0,
        loss=LossConfig(evenness=EVENNESS if variant == "fsq-even" else 0.0),
        steps=steps,
        seed=seed,
    )


@functools.cache
def batches(folders: tuple[Path, ...], seed: int, frames: int, batch: int, number: int) -> Frames:
    """Random windows uint8 [number, batch, frames, SIZE, SIZE, 3], drawn once for all the runs that take them."""
    stream = ClipStream(folders, ClipShape(frames, SIZE, SIZE, augment=True), batch=batch, seed=seed)
    return np.stack(list(islice(stream, number)))


def run(settings: VideoTokenizerRecipe, held_out: Frames) -> dict[str, object]:
    """Train, and score the averaged weights on windows [N, FRAMES, SIZE, SIZE, 3]."""
    folders = tuple(map(Path, settings.data))
    streams = [batches(folders, settings.seed, FRAMES, BATCH, settings.steps)]
    if settings.image_batch:
        streams.append(batches(folders, settings.seed, 1, settings.image_batch, settings.steps))
    training = TokenizerTraining(settings)
    began = time.process_time()
    for step in zip(*streams, strict=True):
        values = training.update(*step)
    seconds = time.process_time() - began
    coder = VideoTokenizer(training.average)
    codes = CodeStatistics(coder.codebook_size)
    for start in range(0, len(held_out), 100):
        codes.update(coder.encode_batch(held_out[start : start + 100]))
    scores = {}
    for prefix, clips in (("", held_out[:SCORED]), ("image_", held_out[:SCORED, :1])):
        pairs = list(zip(clips, coder.decode_batch(coder.encode_batch(clips)), strict=True))
        scores |= {f"{prefix}psnr": float(np.mean([psnr(*pair) for pair in pairs]))}
        scores |= {f"{prefix}ssim": float(np.mean([ssim(*pair) for pair in pairs]))}
    return {
        "step": training.step,
        "codes": codes.size,
        "held_out_codes": codes.total,
        "used": codes.used,
        "use": codes.usage,
        "uniform_use": codes.uniform_usage,
        "use_of_uniform": codes.usage / codes.uniform_usage,
        "entropy_bits": codes.entropy,
        **scores,
        "loss": values["loss"],
        "cpu_seconds": seconds,
    }


if __name__ == "__main__":
    cli.run(main)
