"""Compare two sets of clips: distances with intervals and floors, under a pinned protocol."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.devices import pick
from vpoet.evaluate.compare.clips import drawn, gather
from vpoet.evaluate.compare.compared import Compared
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.networks import load
from vpoet.evaluate.compare.protocol import choose
from vpoet.evaluate.compare.report import notes, of_pairs, of_sets, of_training, page, taken
from vpoet.evaluate.page.comparison import publish
from vpoet.outputs import expect_folder

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    real: Annotated[Path, typer.Argument(help="Real clips: videos, folders of frames, a list, or raw shards.")],
    fake: Annotated[Path, typer.Argument(help="The clips to judge, in any of these forms.")],
    out: Annotated[Path, typer.Option(help="Folder for compare.html, compare.md, compare.json and compare.png.")],
    protocol: Annotated[
        str, typer.Option(help="vpoet-16, stylegan-v-16, stylegan-v-128 or videogpt-ucf; the flags below change it.")
    ] = "vpoet-16",
    frames: Annotated[int | None, typer.Option(help="Frames of each clip.")] = None,
    step: Annotated[int | None, typer.Option(help="Take every so manyth frame.")] = None,
    fps: Annotated[float | None, typer.Option(help="Read videos at this rate; 0: every frame of the file.")] = None,
    real_start: Annotated[str | None, typer.Option(help="Where real clips begin: first or random.")] = None,
    fit: Annotated[str | None, typer.Option(help="crop, stretch, or none: sizes as they are.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side; 0 with --fit none.")] = None,
    filter: Annotated[str | None, typer.Option(help="To resize with: bilinear or bicubic.")] = None,
    antialias: Annotated[bool | None, typer.Option(help="Smooth before shrinking.")] = None,
    count: Annotated[int | None, typer.Option(help="Clips of each set; 0: as many as the smaller one has.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of which clips are taken, and of all resampling.")] = None,
    network: Annotated[
        Path | None,
        typer.Option(help="TorchScript, or a folder of transformers.", show_default="EfficientNet-Lite0"),
    ] = None,
    run_torchscript: Annotated[
        bool,
        typer.Option(
            "--run-torchscript",
            help="Allow --network FILE.pt: it is a program that can do all that you can; give one that you trust.",
        ),
    ] = False,
    training: Annotated[
        Path | None, typer.Option(help="Clips that the model was trained on, to look for copies.")
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Also PSNR, SSIM and flicker of clips of one name.")] = False,
    bootstrap: Annotated[int, typer.Option(help="Sets drawn anew for each interval.", min=10, max=100_000)] = 100,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of features, by content.", show_default="OUT/features")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips that the network sees at once.", min=1, max=4096)] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Say how far a set of clips is from real ones, how sure that is, and under which protocol.

    A protocol is all that changes the figures: frames, rate, resizing, number of clips, seed, network. Its id, eight
    digits, stands beside each of them; compare only figures of one id. The distance is called FVD with the weights of
    FVD alone. Features are kept by content: a second run, or one after a kill, computes what is not there. OUT has a
    page, compare.html, with the clips that are nearest and farthest, and what moved the distance.

    Examples:

        vpoet compare raw/heldout runs/samples --out runs/compared
        vpoet compare real/ fake/ --protocol stylegan-v-16 --network i3d_torchscript.pt --run-torchscript --out fvd
        vpoet compare clips/ reconstructed/ --paired --training raw/train --out runs/compared
    """
    features_folder = cache or out / "features"
    expect_folder(out)
    expect_folder(features_folder)
    cli.hold(out)
    names = ("frames", "step", "fps", "real_start", "fit", "size", "filter", "antialias", "count", "seed")
    given = (frames, step, fps, real_start, fit, size, filter, antialias, count, seed)
    rules = choose(protocol, dict(zip(names, given, strict=True)))
    real_clips, fake_clips = drawn(gather(real), rules.seed), drawn(gather(fake), rules.seed)
    number = taken(real_clips, fake_clips, rules)
    judge = load(network, pick(device), run_torchscript)
    rules = replace(rules, count=number, network=judge.sha256, network_input=judge.input)
    console.print(
        f"protocol {rules.id}: {number} of {len(real_clips)} real clips and {number} of {len(fake_clips)} to judge; "
        f"features of {judge.name}"
    )

    def shown(steps: Iterable[Any], what: str = "features") -> Iterable[Any]:
        return track(list(steps), what, console=console, transient=True)

    features = Features(judge, rules, features_folder, batch_size)
    # up to as many real clips again: the floor is the distance of real clips to other real clips
    known = features.of(real_clips[: 2 * number], True, shown)
    judged = features.of(fake_clips[:number], False, shown)
    rows, points = of_sets(rules, known, judged, bootstrap)
    told = notes(rules, judged.shape[1])
    if training is not None:
        trained = gather(training)
        more, nearest = of_training(rules, known[:number], judged, features.of(trained, False, shown))
        rows += more
        pairs = "; ".join(f"{fake_clips[a].name} to {trained[b].name}" for a, b in nearest)
        told.append(f"\nNearest to training clips: {pairs}.")
    if paired:
        rows += of_pairs(rules, real_clips, fake_clips[:number], lambda clips: shown(clips, "pairs"))

    about, clips = f"{fake.name} beside {real.name}", (real_clips[: 2 * number], fake_clips[:number])
    result = publish(Compared(about, rules, *clips, known, judged, rows, points, told), out)
    console.print(page(rules, about, rows, told).partition("\n## ")[0])
    console.print(f"{features.computed} clips seen by the network; {out}/compare.html, compare.md, .json and .png")
    cli.finish(result | {"out": out, "computed": features.computed}, as_json)


if __name__ == "__main__":
    cli.run(main)
