"""Damage clips step by step (blur, order, compression, ...) and see which measures notice."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.evaluate.compare import flags, ladder
from vpoet.evaluate.compare.clips import Clip, drawn, gather
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.networks import load
from vpoet.evaluate.compare.report import taken
from vpoet.evaluate.compare.written import read_protocol, read_reach
from vpoet.evaluate.plots import save
from vpoet.files import aside, write_atomic
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    clips: Annotated[Path, typer.Argument(help="Clips: videos, folders of frames, a list, or raw shards.")],
    out: Annotated[Path, typer.Option(help="Folder for ladder.md, ladder.json, ladder.png and rungs.png.")],
    protocol: Annotated[
        str, typer.Option(help="A preset of `vpoet compare`, and what is other than it: vpoet-16,frames=5,size=64.")
    ] = "vpoet-16,count=64",
    network: flags.Network = None,
    run_torchscript: flags.RunTorchScript = False,
    bootstrap: flags.Bootstrap = 100,
    cache: flags.Cache = None,
    batch_size: flags.BatchSize = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Damage clips of yours step by step, and see which measures of `vpoet compare` notice.

    Half of the clips stay as they are. The other half is damaged in five ways, each in four rungs: blur, shuffled
    frames, frozen frames, compression, a shift of colours. Distances of damaged clips to the untouched half, and scores
    of each damaged clip beside itself, should get worse at each rung. Where one does not, it cannot tell you of that
    damage: try another network, or look at another measure. Damaged clips' features are kept; a second run, or one
    after a kill, goes on.

    Examples:

        vpoet ladder raw/heldout --out runs/ladder
        vpoet ladder clips/ --protocol vpoet-16,fps=8,count=128 --network videomae/ --out runs/ladder
    """
    expect_folder(out)
    features_folder = cache or out / "features"
    expect_folder(features_folder)
    cli.hold(out)
    rules = read_protocol(protocol)
    everything = drawn(gather(clips), rules.seed)
    number = taken(everything[::2], everything[1::2], rules)
    others, chosen = everything[0::2][:number], everything[1::2][:number]
    judge = load(network, device, run_torchscript, read_reach(protocol))
    rules = replace(rules, count=number, network=judge.sha256, network_input=judge.input)
    console.print(f"protocol {rules.id}: {number} clips to damage, {number} to compare with; features of {judge.name}")

    def shown(group: Sequence[Clip]) -> Iterable[Clip]:
        return track(group, "clips", console=console, transient=True)

    features = Features(judge, rules, features_folder, batch_size)
    found = ladder.climb(rules, features, others, chosen, shown, bootstrap)
    with aside(out / "rungs.png") as fresh:
        contact_sheet(ladder.rows(chosen[0], rules)).save(fresh)
    save(ladder.figure(found), out / "ladder.png")
    text = f"Steps of each ladder that make a measure worse; protocol {rules.id}\n\n{ladder.table(found)}\n"
    result = {"protocol": {"id": rules.id} | rules.told()} | found.told()
    write_atomic(out / "ladder.md", text)
    write_atomic(out / "ladder.json", json.dumps(result, indent=1) + "\n")
    console.print(text)
    console.print(f"{features.computed} clips seen by the network; {out}/ladder.md, ladder.json, ladder.png, rungs.png")
    cli.finish(result | {"out": out, "computed": features.computed}, as_json)


if __name__ == "__main__":
    cli.run(main)
