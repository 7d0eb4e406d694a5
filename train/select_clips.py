"""Select clips by their measures, without copies, balanced; with a page of what fell."""

import json as json_module
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import cli
from vpoet.data.curate.funnel import gather, kept, sift
from vpoet.data.curate.selecting import Captions, read_captions, write_selection
from vpoet.data.curate.where import conditions
from vpoet.data.ray_workers import workers_of
from vpoet.errors import DataError
from vpoet.evaluate.page.selection import publish
from vpoet.files import write_atomic
from vpoet.nn.captioner import captioner as make_captioner
from vpoet.nn.captioner import identity
from vpoet.outputs import expect_folder


def main(
    raw: Annotated[Path, typer.Argument(help="Folder of raw shards that `vpoet measure` has measured.")],
    out: Annotated[Path, typer.Option(help="The folder of raw shards to write, with the page in it.")],
    where: Annotated[
        str | None, typer.Option(metavar="EXPRESSION", help='What clips have to be: "motion > 0.4 and text < 0.02".')
    ] = None,
    dedupe: Annotated[
        float | None,
        typer.Option(min=0.5, max=1, help="Keep one of clips that are alike to this degree; 0.92 finds copies."),
    ] = None,
    balance: Annotated[
        str | None,
        typer.Option(
            metavar="FIELD", help="Of each value of this field, keep no more clips than the median value has."
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="A .jsonl of key and caption: these come first, the clips' own stay as further.")
    ] = None,
    captioner: Annotated[
        Path | None,
        typer.Option(help="Folder of a model of transformers that writes captions of pictures (BLIP, GIT)."),
    ] = None,
    samples_per_shard: Annotated[int, typer.Option(help="Clips in a shard at most.", min=1)] = 512,
    workers: cli.Workers = None,
    ray: cli.Ray = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Select clips by their measures, without copies, balanced; with a page of what fell.

    --where compares measures, and fields of the clips' json, with numbers and texts in quotes: < <= > >= == != in,
    joined by and, or, not and parentheses. Conditions joined by `and` are stages of their own in OUT/select.html, which
    shows how many clips fell at each, and some of them. A clip without a measure does not pass a condition about it.
    Where only fields of the json are asked for, nothing needs to have been measured.

    --dedupe comes after that, and keeps the sharpest of clips that show the same: compressed, cropped, mirrored, or
    begun a few frames later. --balance comes last.

    The shards in OUT are like those of RAW, with the measures in each clip's json. Running the same command again does
    only what is left to do.

    Examples:

        vpoet select runs/raw --where "motion > 0.4 and cuts == 0 and letterbox < 0.05" --dedupe 0.92 --out runs/good
        vpoet select runs/raw --where "label in ('walk', 'jump')" --balance label --out runs/balanced
        vpoet select runs/raw --captioner models/blip --captions mine.jsonl --out runs/recaptioned --workers 2
    """
    expect_folder(out)
    if out.resolve() == raw.resolve():
        raise DataError(f"{out}: the clips are selected from there; choose another folder")
    crew = workers_of(ray, workers)
    asked = conditions(where) if where is not None else []
    told = Captions(
        read_captions(captions) if captions else {},
        partial(make_captioner, captioner) if captioner else None,
        identity(captioner) if captioner else "",
    )
    if captioner:
        make_captioner(captioner)  # a wrong one is found before anything is written
    console = Console(stderr=True, markup=False, soft_wrap=True)
    names = [name for condition in asked for name in condition.names] + ([balance] if balance else [])
    pool = gather(raw, names, with_arrays=dedupe is not None)
    stages = sift(pool, asked, dedupe, balance)
    chosen = kept(pool, stages)
    cli.hold(out)
    columns = (TextColumn("shards"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[clips]} clips"))
    written = 0
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("", total=-(-len(chosen) // samples_per_shard), clips=0)

        def advance(more_shards: int, more_clips: int) -> None:
            nonlocal written
            written += more_clips
            bar.update(task, advance=more_shards, clips=written)

        manifest, problems = write_selection(
            raw, chosen, out, told, samples_per_shard=samples_per_shard, workers=crew, progress=advance
        )
    funnel = [{"stage": stage.name, "fell": len(stage.fallen), "left": stage.after} for stage in stages]
    result = {
        "measured": len(pool.clips),
        "funnel": funnel,
        "kept": manifest.samples,
        "recaptioned": len(told.listed.keys() & {clip.key for clip in chosen}) if not captioner else manifest.samples,
        "left_out": problems.to_dict(),
    }
    write_atomic(out / "report.json", json_module.dumps(result, indent=1, ensure_ascii=False))
    publish(out / "select.html", raw, stages, chosen)
    for stage in stages:
        console.print(f"{stage.name}: {len(stage.fallen)} of {stage.before} clips fell")
    console.print(f"{out}: {manifest.samples} of {len(pool.clips)} clips in {len(manifest.shards)} shards; select.html")
    if problems.total:
        console.print(f"  left out: {problems}")
    cli.finish({"out": out, **result}, json)


if __name__ == "__main__":
    cli.run(main)
