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
from vpoet.errors import ConfigError
from vpoet.evaluate.compare import flags
from vpoet.evaluate.compare.clips import drawn, gather, is_bundle
from vpoet.evaluate.compare.compared import Compared
from vpoet.evaluate.compare.each import CLIPScore, LPIPSPairs, of_bits, of_flicker, of_prompts
from vpoet.evaluate.compare.features import Features
from vpoet.evaluate.compare.kept import Kept
from vpoet.evaluate.compare.networks import load
from vpoet.evaluate.compare.protocol import REACH, choose
from vpoet.evaluate.compare.report import notes, of_pairs, of_sets, of_training, page, taken
from vpoet.evaluate.page.comparison import publish
from vpoet.outputs import expect_folder
from vpoet.processes import Processes

console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def main(
    real: Annotated[Path, typer.Argument(help="Real clips: videos, folders of frames, a list, or raw shards.")],
    fake: Annotated[
        Path, typer.Argument(help="The clips to judge, in any of these forms; or a bundle that makes them.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for compare.html, compare.md, compare.json and compare.png.")],
    protocol: Annotated[
        str,
        typer.Option(help="vpoet-16, stylegan-v-16, stylegan-v-128, videogpt-ucf or jedi; the flags below change it."),
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
    network: flags.Network = None,
    run_torchscript: flags.RunTorchScript = False,
    training: Annotated[
        Path | None, typer.Option(help="Clips that the model was trained on, to look for copies.")
    ] = None,
    paired: Annotated[bool, typer.Option("--paired", help="Also PSNR, SSIM and flicker of clips of one name.")] = False,
    lpips: Annotated[
        Path | None, typer.Option(help="With --paired, weights of LPIPS: a state dict, or a folder of its two.")
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="CLIP, a folder of transformers, to score clips by their prompts.")
    ] = None,
    bits: Annotated[Path | None, typer.Option(help="A bundle: bits per token of the clips under it.")] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts for a bundle, as vpoet sample --batch has them.", show_default="captions of REAL"),
    ] = None,
    sample_seed: Annotated[int, typer.Option(help="A bundle's clip number i has seed SAMPLE_SEED + i.", min=0)] = 0,
    bootstrap: flags.Bootstrap = 100,
    cache: flags.Cache = None,
    batch_size: flags.BatchSize = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Say how far a set of clips is from real ones, how sure that is, and under which protocol.

    A protocol is all that changes the figures: frames, rate, resizing, number of clips, seed, network. Its id, eight
    digits, stands beside each of them; compare only figures of one id. The distance is called FVD with the weights of
    FVD alone. Whatever is computed is kept by content: a second run, or one after a kill, computes what is not there.
    Under a launcher (torchrun, deepspeed) the processes share out the clips. OUT has a page, compare.html, with the
    clips that are nearest and farthest, and what moved the distance.

    Examples:

        vpoet compare raw/heldout runs/samples --out runs/compared
        vpoet compare real/ fake/ --protocol stylegan-v-16 --network i3d_torchscript.pt --run-torchscript --out fvd
        vpoet compare real/ fake/ --protocol videogpt-ucf --network i3d_pretrained_400.pt --out fvd
        vpoet compare raw/heldout runs/demo/bundle --sample-seed 1 --clip clip-vit-base-patch32/ --out runs/compared
        vpoet compare clips/ reconstructed/ --paired --lpips lpips/ --training raw/train --out runs/compared
    """
    if lpips and not paired:
        raise ConfigError("--lpips is of pairs: give --paired too")
    if prompts and not is_bundle(fake):
        raise ConfigError(f"--prompts: they are for a bundle, and {fake} is none")
    features_folder = cache or out / "features"
    expect_folder(out)
    expect_folder(features_folder)
    everyone = Processes.sharing()
    first = everyone.rank == 0
    if first:
        cli.hold(out)
    everyone.gather(None)  # the folder is there
    names = ("frames", "step", "fps", "real_start", "fit", "size", "filter", "antialias", "count", "seed")
    given = (frames, step, fps, real_start, fit, size, filter, antialias, count, seed)
    rules = choose(protocol, dict(zip(names, given, strict=True)))
    judge = load(network, device, run_torchscript, REACH.get(protocol, 1.0))
    scorer, pairing = clip and CLIPScore(clip, pick(device)), lpips and LPIPSPairs(lpips, pick(device))

    def shown(steps: Iterable[Any], what: str = "features") -> Iterable[Any]:
        return track(list(steps), what, console=console, transient=True, disable=not first)

    real_clips = drawn(gather(real), rules.seed)
    if is_bundle(fake):  # torch is imported where it is needed: features that are kept are compared without
        from vpoet.evaluate.compare.of_bundle import asked_by, make
        from vpoet.generate.model import load as load_model

        model = load_model(fake, device)
        asked = asked_by(real_clips[: rules.count or None], prompts, sample_seed, rules, model, out / "samples")
        taken(real_clips, asked, rules)  # refused now, and not after hours
        fake_clips = make(model, asked, batch_size, everyone, lambda groups: shown(groups, "samples"))
    else:
        fake_clips = gather(fake)
    fake_clips = drawn(fake_clips, rules.seed)
    number = taken(real_clips, fake_clips, rules)
    rules = replace(rules, count=number, network=judge.sha256, network_input=judge.input)
    if first:
        console.print(
            f"protocol {rules.id}: {number} of {len(real_clips)} real clips and {number} of {len(fake_clips)} to "
            f"judge; features of {judge.name}"
        )

    features = Features(judge, rules, features_folder, batch_size, everyone)
    ours, theirs = real_clips[:number], fake_clips[:number]
    # up to as many real clips again: the floor is the distance of real clips to other real clips
    known = features.of(real_clips[: 2 * number], True, shown)
    judged = features.of(theirs, False, shown)
    told = notes(rules, judged.shape[1])
    trained = [] if training is None else gather(training)
    copied = features.of(trained, False, shown) if trained else known[:0]
    kept = Kept(features_folder, everyone)
    each = of_flicker(rules, {"samples": features.each(theirs, False), "real clips": features.each(ours, True)})
    sets = {"samples": theirs, "real clips": ours}
    if scorer:
        each += of_prompts(scorer, rules, sets, kept, lambda steps: shown(steps, "prompts"))
    if bits:
        from vpoet.generate.model import load as load_model

        each += of_bits(load_model(bits, device), rules, sets, kept, lambda steps: shown(steps, "bits"))
    if paired:
        more = {pairing.name: pairing} if pairing else {}
        each += of_pairs(rules, real_clips, theirs, lambda steps: shown(steps, "pairs"), more, kept)
    computed = sum(everyone.gather(features.computed))
    everyone.leave()
    if not first:
        return
    rows, points = of_sets(rules, known, judged, bootstrap)
    if trained:
        more_rows, nearest = of_training(rules, known[:number], judged, copied)
        rows += more_rows
        pairs = "; ".join(f"{fake_clips[a].name} to {trained[b].name}" for a, b in nearest)
        told.append(f"\nNearest to training clips: {pairs}.")
    rows += each

    about, clips = f"{fake.name} beside {real.name}", (real_clips[: 2 * number], theirs)
    result = publish(Compared(about, rules, *clips, known, judged, rows, points, told), out)
    console.print(page(rules, about, rows, told).partition("\n## ")[0])
    console.print(f"{computed} clips seen by the network; {out}/compare.html, compare.md, .json and .png")
    cli.finish(result | {"out": out, "computed": computed}, as_json)


if __name__ == "__main__":
    cli.run(main)
