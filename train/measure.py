"""Measure the clips of raw shards: motion, sharpness, bars, text, copies, and what networks say."""

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import cli
from vpoet.data.curate.measuring import FOLDER, measure
from vpoet.data.ray_workers import workers_of
from vpoet.data.shards import Manifest
from vpoet.nn.judges import judges
from vpoet.outputs import expect_folder


def main(
    raw: Annotated[Path, typer.Argument(help="Folder of raw shards, as `vpoet ingest` makes them.")],
    embedding: Annotated[
        bool,
        typer.Option(help="EfficientNet-Lite0's embedding of each clip, by which cropped copies are found."),
    ] = True,
    text: Annotated[bool, typer.Option("--text", help="Find writing in the picture (RapidOCR; slow).")] = False,
    clip: Annotated[
        Path | None,
        typer.Option(help="Folder of a CLIP of transformers: aesthetic, and how well captions match."),
    ] = None,
    nsfw: Annotated[
        Path | None, typer.Option(help="Folder of an image classifier of transformers, with a label for what is safe.")
    ] = None,
    workers: cli.Workers = None,
    ray: cli.Ray = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Measure the clips of raw shards: motion, sharpness, bars, text, copies, and what networks say.

    One line of JSON a clip, in RAW/measures, for `vpoet select` to choose by. Running the same command again measures
    only what is new: shards that came or changed, and networks that were not asked before. A clip that can't be read
    is left out, counted and named.

    motion is in percent of the picture's height per second, averaged over the picture: as a whole (motion), of the
    camera (camera_motion), of what moves against it (object_motion), and as the video's encoder found it
    (codec_motion). train/README.md says what the others are.

    Examples:

        vpoet measure runs/clips/raw/train --workers 2
        vpoet measure runs/clips/raw/train --text --clip models/clip-vit-base-patch32 --nsfw models/nsfw
    """
    shards = Manifest.load(raw).shards
    expect_folder(raw / FOLDER)
    crew = workers_of(ray, workers)
    make = partial(judges, embedding, text, clip, nsfw)
    console = Console(stderr=True, markup=False, soft_wrap=True)
    began = time.monotonic()
    cli.hold(raw / FOLDER)
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[clips]} clips"))
    measured = 0
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=len(shards), clips=0)

        def advance(more_shards: int, more_clips: int) -> None:
            nonlocal measured
            measured += more_clips
            bar.update(task, advance=more_shards, clips=measured)

        problems = measure(raw, make, crew, advance)
    console.print(f"{raw / FOLDER}: {measured} clips of {len(shards)} shards")
    if problems.total:
        console.print(f"  left out: {problems}")
    took = round(time.monotonic() - began, 1)
    result = {"out": raw / FOLDER, "clips": measured, "left_out": problems.to_dict(), "took_seconds": took}
    cli.finish(result, json)


if __name__ == "__main__":
    cli.run(main)
