"""Turn videos, images, folders, lists, worlds and environments into raw shards, with a report."""

import json as json_module
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import cli
from vpoet.data.clips import ClipSettings
from vpoet.data.control_parts import read_kinds
from vpoet.data.folder import overview
from vpoet.data.ingest import ingest
from vpoet.data.ray_workers import workers_of
from vpoet.data.sources import divide, gather, named_values
from vpoet.files import aside, write_atomic
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder

SHEET_ROWS = 12
SHEET_LABEL = 300
"""Characters."""
LARGEST = 16_384
"""Pixels of a side."""


def main(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="Videos, images, folders, .csv, .jsonl or .parquet lists, tars of samples (webdataset), URLs of these "
            "(http, https, s3, gs), pipe:COMMAND, world:NAME, env:NAME. NAME-{000..127}.tar is 128 sources.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The folder to write; train/, heldout/, unseen/ inside it if some is held out.")
    ],
    frames: Annotated[
        int, typer.Option(help="Frames in a clip: 1 + a multiple of the tokenizer's stride in time.", max=10**6)
    ] = 17,
    fps: Annotated[
        float,
        typer.Option(
            help="Frames per second to resample to; 0 keeps each file's own rate, and that of an env.", max=1000
        ),
    ] = 8.0,
    height: Annotated[
        int, typer.Option(help="Pixels. Frames are scaled to cover the size, and their centre is cut.", max=LARGEST)
    ] = 64,
    width: Annotated[int, typer.Option(help="Pixels.", max=LARGEST)] = 64,
    stride: Annotated[
        int | None, typer.Option(help="Frames from a clip's start to the next; fewer than --frames: clips overlap.")
    ] = None,
    min_frames: Annotated[
        int | None,
        typer.Option(
            help="Keep the rest of a source as a shorter clip if it has at least this many frames. "
            "[default: --frames, so none; recordings of worlds and envs that end early are kept]"
        ),
    ] = None,
    cuts: Annotated[
        str,
        typer.Option(
            metavar="DETECTOR",
            help="Cut films where their shots end, so that no clip has frames of two: vpoet (needs no package), "
            'adaptive, content, hash, histogram, threshold, transnetv2 (pip install "vpoet[curate]").',
        ),
    ] = "",
    min_shot: Annotated[
        int, typer.Option(help="With --cuts: leave out shots of fewer frames, at --fps.", min=1, max=10**6)
    ] = 1,
    crf: Annotated[int, typer.Option(help="Quality of the h264 video, 0 (best) to 51.")] = 18,
    lossless: Annotated[bool, typer.Option("--lossless", help="Store every pixel as it is. Worlds always do.")] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="OURS=THEIRS,...", help="Columns of lists that have other names: path=url,caption=text_en."
        ),
    ] = None,
    controls: Annotated[
        str,
        typer.Option(
            metavar="KIND,KIND",
            help="Also store control signals, without loss: edges, flow, grey, sketch of any clip (pip install "
            '"vpoet[curate]"); segmentation, depth, pose of world:platformer.',
        ),
    ] = "",
    holdout: Annotated[float, typer.Option(help="Share of the sources to hold out, by a hash of their names.")] = 0.0,
    split_by: Annotated[
        str | None, typer.Option(metavar="COLUMN=V,V", help="Hold out the sources with one of these values instead.")
    ] = None,
    unseen: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=V,COLUMN=V", help="Put sources with all these values into unseen/; repeatable."),
    ] = None,
    clips: Annotated[int | None, typer.Option(help="For a world or env: how many clips to make.")] = None,
    seed: Annotated[int, typer.Option(help="For a world or env: clip i has the seed 1000000 * SEED + i.")] = 0,
    samples_per_shard: Annotated[int, typer.Option(help="Clips in a shard at most.", min=1)] = 512,
    workers: cli.Workers = None,
    ray: cli.Ray = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Turn videos, images, folders, lists, worlds and environments into raw shards, with a report.

    A list is a .csv, .jsonl or .parquet with a column `path` (or `file`), relative to the list's own folder, and
    `caption`; its further columns travel in each clip's json. Columns `actions`, `action_space`, `outcomes` (what was
    done in a clip), `captions` (that change in time) and `segments` (samples of several files): train/README.md says
    what they hold.

    Frames are resampled by nearest time: a file slower than --fps repeats frames, none is lost. A file that can't be
    read, or a row that can't be used, is skipped, counted and named in report.json. Worlds are named by world:NAME
    (platformer, playground), environments of gymnasium by env:NAME: their clips are made, with what was done in them.
    Running the same command again does only what is left to do, and what was missing or has changed.

    Examples:

        vpoet ingest clips/ --out runs/raw
        vpoet ingest list.csv --out runs/raw --frames 17 --fps 8 --height 128 --width 128 --stride 8 --holdout 0.1
        vpoet ingest films/ --cuts vpoet --min-shot 16 --out runs/raw
        vpoet ingest 's3://bucket/videos/{00000..00127}.tar' --out runs/raw --workers 8
        vpoet ingest urls.parquet --columns path=url,caption=text --out runs/raw --ray auto
        vpoet ingest world:platformer --clips 2000 --unseen who=zombie,ground=snow --out runs/world --workers 2
        vpoet ingest world:platformer --clips 2000 --controls edges,segmentation,depth --out runs/controls
        vpoet ingest world:playground --clips 2000 --frames 33 --out runs/play
        vpoet ingest env:gym_pusht/PushT-v0 --clips 500 --frames 33 --fps 0 --out runs/pusht
    """
    expect_folder(out)
    settings = ClipSettings(
        frames=frames, fps=fps, height=height, width=width,
        stride=stride, min_frames=min_frames, lossless=lossless, crf=crf, cuts=cuts, min_shot=min_shot,
        controls=",".join(read_kinds(controls)),
    )  # fmt: skip
    crew = workers_of(ray, workers)
    named = named_values("--columns", columns) if columns else None
    sides = divide(
        gather(sources, clips=clips, seed=seed, columns=named), holdout=holdout, by=split_by, unseen=unseen or []
    )
    console = Console(stderr=True, markup=False, soft_wrap=True)
    began = time.monotonic()
    shown = (TextColumn("sources"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[clips]} clips"))
    with Progress(*shown, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=sum(len(items) for items in sides.values()), clips=0)
        kept = 0

        def advance(more_sources: int, more_clips: int) -> None:
            nonlocal kept
            kept += more_clips
            bar.update(task, advance=more_sources, clips=kept)

        results = ingest(sides, out, settings, workers=crew, samples_per_shard=samples_per_shard, progress=advance)

    report = {
        "sides": {side or "all": result.summary() for side, result in results.items()},
        "clip": f"{frames} frames of {height}x{width} at {f'{fps:g} fps' if fps else 'their own rate'}",
        "took_seconds": round(time.monotonic() - began, 1),
    }
    write_atomic(out / "report.json", json_module.dumps(report, indent=1, ensure_ascii=False))
    for side in results:
        rows = [(label[:SHEET_LABEL], shown) for label, shown in overview(out / side, SHEET_ROWS)]
        with aside(out / f"{side or 'clips'}.png") as fresh:
            contact_sheet(rows, max_frames=9).save(fresh)
    for side, result in results.items():
        lasting = f"{result.seconds / 3600:.2f} hours" if result.seconds >= 360 else f"{result.seconds:.1f} seconds"
        console.print(
            f"{out / side}: {result.clips} clips from {result.sources} sources, {lasting}, "
            f"{len(result.shards)} shards, {result.bytes / 1e6:.1f} MB"
        )
        if result.problems.total:
            console.print(f"  skipped: {result.problems}")
    console.print(f"{out / 'report.json'}: the report; beside it a picture of each set")
    cli.finish({"out": out, **report}, json)


if __name__ == "__main__":
    cli.run(main)
