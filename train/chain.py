"""From clips of your own to a model that samples, in given hours: every stage, one command."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import STARTED, cli
from vpoet.data.curate.where import conditions
from vpoet.evaluate.chain import prompts, sources, stages
from vpoet.evaluate.chain.keeping import Watch, fitted
from vpoet.evaluate.chain.machine import look, settings_for
from vpoet.evaluate.chain.plan import Asked, Planner
from vpoet.evaluate.chain.stages import TRAININGS, Plan
from vpoet.evaluate.chain.telling import duration, plan_in_words
from vpoet.outputs import expect_folder
from vpoet.training.run.folder import METRICS
from vpoet.training.run.stop import Stop

PAGE = "index.html"
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="Folders, videos, .csv, .jsonl or .parquet lists, tars: what `vpoet ingest` takes; or world:NAME.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to fill: all that is made lies in it.")],
    hours: Annotated[float, typer.Option(help="From now to the page, at most.")] = 2.0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A video tokenizer that is there, in place of one trained on these clips.")
    ] = None,
    clips: Annotated[
        int | None, typer.Option(help="Of a world: clips to make. [default: 3000, if time allows]")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to sample at the end; repeatable. [default: captions of the clips]")
    ] = None,
    where: Annotated[
        str, typer.Option(metavar="EXPRESSION", help="Which clips to train on, as `vpoet select` has it.")
    ] = "contrast > 0.02 and letterbox < 0.5",
    dedupe: Annotated[
        float, typer.Option(min=0.5, max=1, help="Copies are clips that are alike to this degree.")
    ] = 0.92,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="That train together. [default: as many as there are GPUs, or cores, up to 8]"
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure and show the plan; write nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """From clips of your own to a model that samples, in given hours: every stage, one command.

    Some of the clips are read, and some training steps taken, to see how fast this machine is; then sizes and steps are
    chosen with which all ends in the hours, and the plan is shown. Stages: ingest with cuts, measure and select, text
    pieces, video tokenizer, token shards, pretraining, bundle, samples, page. Each is a plain command that is printed,
    and can be run alone. A training that turns out slower or faster gets fewer steps, or more, and it says so.

    Captions come from a list, from the one list in a folder, from a .txt beside a clip, or else from the names of files
    and folders; what it was is said before anything begins.

    Interrupt it however you like: the same command goes on where it was. OUT/index.html is the page.

    Examples:

        vpoet chain videos/ --out runs/mine --hours 8
        vpoet chain clips.csv --out runs/mine --hours 1 --dry-run
        vpoet chain clips.csv --out runs/mine --tokenizer vpoet/weights/video-4x8x8 --prompt "a dog runs"
        vpoet chain world:platformer --clips 3000 --out runs/demo --hours 0.25
    """
    started = time.perf_counter() - STARTED
    asked = Asked(source, hours, str(tokenizer or ""), clips, prompt or [], where, dedupe, processes)
    conditions(where)
    expect_folder(out)
    if not dry_run:
        cli.hold(out)
    plan = Plan.load(out, asked.told())
    if plan is None:
        found = sources.find(source, clips)
        own = found.clips is None
        machine, count, notes = look(asked, found, settings_for(asked, own), started, console.print)
        planner = Planner(asked, found, count, settings_for(asked, own), out, machine)
        plan = planner.plan()
        plan = replace(plan, notes=[*notes, *plan.notes])
        if not dry_run:
            planner.sources.write(out)
            plan.save(out)
    finished = stages.done(out)
    for line in plan_in_words(plan, out, finished, time.time(), commands=dry_run):
        console.print(line)
    result = {"out": out, "page": out / PAGE, "bundle": out / "bundle", "samples": out / "samples"}
    if dry_run:
        planned = [vars(stage) for stage in plan.stages]
        cli.finish(result | {"seconds": plan.seconds, "stages": planned, "notes": plan.notes}, json)
        return

    stop = Stop()
    with stages.alone(out, console.print) as handle:
        interrupted, before = stages.taken(handle)
        for name in [stage.name for stage in plan.stages]:
            if name in finished:
                console.print(f"== {name}: done before -> {plan.stage(name).result}")
                continue
            if name == "sample":
                prompts.write(out, prompt or [])
            spent, took, whole = plan.measured + sum(finished.values()), before * (name == interrupted), False
            if name in TRAININGS and not (out / TRAININGS[name]).exists():
                plan = replaced(plan, fitted(plan, name, spent), out)
            while not whole:
                stage, watch = plan.stage(name), None
                if name in TRAININGS:
                    watch = Watch(plan, name, spent, out / TRAININGS[name] / METRICS)
                left = duration(max(0, stage.seconds - took))
                console.print(f"== {name}: {stage.what}; about {left}\n   {stages.shown(stage.command)}")
                took, whole = stages.run(stage, stop, handle, plan.threads, took, watch)
                plan = replaced(plan, watch.plan if watch and not whole else plan, out)
            finished[name] = took
            stages.note_done(out, stage, took)
            console.print(f"== {name}: took {duration(took)} -> {stage.result}")
    took = plan.measured + sum(finished.values())
    console.print(
        f"done in {duration(took)}: {out / PAGE}: open it in a browser; {out / 'samples'}: the clips\n"
        f'next: vpoet sample --model {out / "bundle"} --prompt "..." --out clip.mp4'
    )
    cli.finish(result | {"seconds": took, "stages": finished, "notes": plan.notes}, json)


def replaced(plan: Plan, new: Plan, out: Path) -> Plan:
    """``new``, kept in ``out`` and told of, if it is another."""
    if new is not plan:
        new.save(out)
        console.print(f"== {new.notes[-1]}")
    return new


if __name__ == "__main__":
    cli.run(main)
