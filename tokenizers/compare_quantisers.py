"""Compare FSQ, LFQ and VQ: the same small autoencoder with each, at several codebook sizes."""

import json
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli
from vpoet.errors import ConfigError
from vpoet.evaluate.intervals import over_seeds
from vpoet.evaluate.plots import quantisers_figure, save
from vpoet.evaluate.quantisers import BATCH, FRAMES, SIZE, VARIANTS, Trial, held_out_windows, train
from vpoet.evaluate.tables import means
from vpoet.files import appending
from vpoet.outputs import expect_folder
from vpoet.training.run.tracking import read_metrics

ALIKE = ("step", "variant", "codebook", "codes", "held_out_codes", "uniform_use")
COLUMNS = {
    "step": ("steps", "{}"),
    "variant": ("variant", "{}"),
    "codes": ("codes", "{:,}"),
    "seeds": ("seeds", "{}"),
    "use": ("codes in use", "{:.2%}"),
    "uniform_use": ("uniform source", "{:.2%}"),
    "entropy_bits": ("bits per code", "{:.2f}"),
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
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds, one run each: weights and data order.")] = "0,1,2",
    codebooks: Annotated[str, typer.Option(help="Codes: powers of two.")] = "256,4096,65536,262144",
    variants: Annotated[str, typer.Option(help=f"Of {', '.join(VARIANTS)}.")] = "fsq,lfq,lfq-without-entropy,vq",
    windows: Annotated[int, typer.Option(help="Held-out windows; each has 48 codes.", min=1, max=10**5)] = 4200,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Compare FSQ, LFQ and VQ, by the same small autoencoder trained with each.

    A run is one variant, codebook and seed: size tiny, 4x8x8, steps of 8 random windows of 9 frames of 32x32, which
    are the same for all variants of a seed. Its averaged weights are scored on held-out windows drawn alike. Each run
    is a row of OUT/results.jsonl, and one that is there already is not run again. The table and OUT/quantisers.png
    show means over seeds with 95% intervals (Student's t), for all rows on the same data; the
    picture shows those of --steps only.

    lfq-without-entropy leaves out LFQ's entropy term. fsq-with-images takes 8 images beside the clips in every step,
    and fsq-even has loss.evenness.

    Example:

        vpoet compare-quantisers runs/raw/train --held-out runs/raw/heldout --out runs/quantisers
    """
    expect_folder(out)
    folders = tuple(map(str, data))
    setup = {
        "frames": FRAMES,
        "size": SIZE,
        "batch": BATCH,
        "windows": windows,
        "data": list(folders),
        "held_out": list(map(str, held_out)),
    }
    names, sizes, draws = variants.split(","), whole_numbers(codebooks, "--codebooks"), whole_numbers(seeds, "--seeds")
    if unknown := set(names) - set(VARIANTS):
        raise ConfigError(f"--variants: no {', '.join(sorted(unknown))}; choose from {', '.join(VARIANTS)}")
    # by seed first: interrupted, it has done all variants of some
    trials = [Trial(name, codebook, seed) for seed, codebook, name in product(draws, sorted(sizes), names)]
    recipes = {trial: trial.recipe(steps, folders) for trial in trials}
    results = out / "results.jsonl"
    cli.hold(out)
    there = [row for row in (read_metrics(results) if results.is_file() else []) if row.get("setup") == setup]
    done = {Trial(row["variant"], row["codebook"], row["seed"]) for row in there if row["step"] == steps}
    to_go = [trial for trial in recipes if trial not in done]
    console.print(f"{results}: {len(there)} runs on these data are there, {len(to_go)} to go")
    for number, trial in enumerate(to_go, start=1):
        row = {**vars(trial), **train(recipes[trial], held_out_windows(held_out, windows)), "setup": setup}
        with appending(results) as file:
            file.write(json.dumps(row) + "\n")
        there.append(row)
        console.print(
            f"{number}/{len(to_go)}  {trial.variant} {trial.codebook} seed {trial.seed}: {row['use']:.1%} of the codes "
            f"used (by uniform ones {row['uniform_use']:.1%}), PSNR {row['psnr']:.2f} dB, {row['cpu_seconds']:.0f} s"
        )
    there.sort(key=lambda row: (row["step"], list(VARIANTS).index(row["variant"]), row["codebook"], row["seed"]))
    table = over_seeds(there, ALIKE, SCORES)
    console.print(means(table, COLUMNS))
    picture = out / "quantisers.png"
    save(quantisers_figure([line for line in table if line["step"] == steps and line["variant"] in names]), picture)
    console.print(f"{picture}: use of the codebook and quality after {steps} steps")
    cli.finish({"runs": len(there), "results": results, "picture": picture, "table": table}, as_json)


def whole_numbers(text: str, option: str) -> list[int]:
    """The different numbers of a list like 0,1,2."""
    if not all(part.strip().isdecimal() for part in text.split(",")):
        raise ConfigError(f"{option} {text}: give whole numbers with commas between them")
    return list(dict.fromkeys(map(int, text.split(","))))


if __name__ == "__main__":
    cli.run(main)
