"""Score a bundle: its samples beside real clips under a protocol, prompt adherence in worlds."""

import json as json_module
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.errors import ConfigError
from vpoet.evaluate.adherence import Prompt, captions
from vpoet.evaluate.compare import flags, networks
from vpoet.evaluate.compare.written import read_protocol, read_reach
from vpoet.evaluate.conditions import common_world, conditions, requests
from vpoet.evaluate.distances import NAME, nearest
from vpoet.evaluate.judging import CEILING, REAL, Judging, bits_in_words, parts, prompt_bits
from vpoet.evaluate.kept_samples import sample
from vpoet.evaluate.sampled import Also, SampledSets, check_given
from vpoet.files import aside, write_atomic
from vpoet.generate.model import load
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_folder
from vpoet.processes import Processes

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    prompt_sets: Annotated[
        list[Path],
        typer.Option("--prompts", metavar="RAW", help="Raw shards not trained on. Repeatable."),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for samples, tables and pictures; an interrupted run resumes from it.")
    ],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    count: Annotated[int, typer.Option(help="Prompts per set at most.", min=2)] = 100,
    apart: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=V,NAME=V", help="Also report prompts with these values separately. Repeatable."),
    ] = None,
    cfg: Annotated[
        list[float] | None, typer.Option(help="Classifier-free guidance scale; repeat to sweep. [default: the model's]")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(help="Sampling temperature; repeat to sweep. [default: the model's]")
    ] = None,
    top_p: Annotated[list[float], typer.Option(help="Nucleus (top-p) sampling; repeat to sweep.")] = [1.0],  # noqa: B006
    train: Annotated[
        Path | None,
        typer.Option(
            metavar="RAW",
            help="Its training clips: their captions are not used as prompts, and samples are compared with them.",
        ),
    ] = None,
    distance: Annotated[
        bool, typer.Option("--distance", help=f"{NAME} to real clips: pip install vpoet[perceptual].")
    ] = False,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Compare with real clips as `vpoet compare` does: a preset and changes of it, as vpoet-16,fps=8.",
            show_default="vpoet-16 if no world drew the clips",
        ),
    ] = None,
    network: flags.Network = None,
    run_torchscript: flags.RunTorchScript = False,
    classes: Annotated[
        str, typer.Option(metavar="FIELD", help="Class-conditional: prompts are this field of the clips' json.")
    ] = "",
    given_frames: Annotated[
        int, typer.Option(help="Frame prediction: so many first frames of the real clips are given.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Prompt number i is sampled with seed SEED + i.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score a bundle on raw shards: samples beside real clips, and prompt adherence where a world drew the clips.

    The caption of each clip of the given shards is a prompt. Its sample, and the real clip through the bundle's
    tokenizer, which is the ceiling of any sampler, are compared with the shards' real clips under a protocol, whose id
    stands beside the figures; OUT/compared has a page of each set and setting. With --classes a field of the clips'
    json is the prompt, and it is told whether samples look like their class; with --given-frames the first frames of
    each clip are given, and PSNR and SSIM of the others are told, too. Also reported: how many more bits a real clip
    costs under another clip's prompt (how much the model uses its prompt).

    What a sample of a world shows is found by matching it against all that the world can draw, and counted where the
    prompt states it. Creatures that were not asked for count as wrong, and so do faults: frames out of order, a figure
    missing in a frame, transparent or doubled. The real clips are scored the same way, as they are and through the
    tokenizer. Shares are in percent, with 95% intervals (Wilson).

    Give several values of --cfg, --temperature or --top-p for a table of all their combinations. Samples are kept in
    OUT/samples.jsonl; running the same command again resumes an interrupted evaluation. Under a launcher (torchrun,
    deepspeed) the processes share out the clips.

    Examples:

        vpoet evaluate --prompts runs/platformer/raw/heldout --prompts runs/platformer/raw/unseen \\
            --train runs/platformer/raw/train --distance --out runs/judged

        vpoet evaluate --model B --prompts clips/heldout --protocol vpoet-16,fps=8 --count 500 --out runs/judged

        vpoet evaluate --model B --prompts ucf101/test --classes label --protocol stylegan-v-16 --count 2048 --out o

        vpoet evaluate --model B --prompts bair/test --given-frames 1 --out runs/predicted

        vpoet evaluate --prompts raw/unseen --apart who=zombie,ground=snow --apart who=robot,action=climb --out o

        vpoet evaluate --model B --prompts raw/heldout --cfg 1 --cfg 2 --cfg 4 --temperature 0.9 --temperature 1 --out o
    """
    everyone = Processes.sharing()
    first = everyone.rank == 0
    progress = partial(track, console=console, disable=not first)
    expect_folder(out)
    sampler = load(model, device)
    config, coder = sampler.bundle.config, sampler.bundle.video
    known = captions(train) if train else frozenset()
    sets = {folder.name: conditions(folder, count, known, classes) for folder in prompt_sets}
    asked = [one for group in sets.values() for one in group]
    labels = parts(sets, apart or [])
    drawn_by = common_world(asked)
    world = drawn_by(config.height, config.width, float(config.fps)) if drawn_by else None
    if distance and not world:
        raise ConfigError("--distance is for the clips of a world; give --protocol")
    beside = None
    if network and world and not protocol:
        raise ConfigError("--network is for --protocol; give both")
    if protocol or not world:
        rules = read_protocol(protocol or "vpoet-16")
        check_given(rules, given_frames)
        judge = networks.load(network, device, run_torchscript, read_reach(protocol or ""))
        folders = {folder.name: (folder, labels[folder.name]) for folder in prompt_sets}
        beside = SampledSets(rules, judge, sampler.bundle, folders, out, everyone)
    if first:
        cli.hold(out)
    everyone.gather(None)  # the folder is there

    judging = None
    if world:
        prompts = [one for one in asked if isinstance(one, Prompt)]
        real = [prompt.real for prompt in prompts]
        coded = everyone.each(lambda prompt: coder.decode(coder.encode(Video(prompt.real, prompt.fps))), prompts)
        held_out = nearest(coded, train)[0] if train and first else None
        judging = Judging(prompts, labels, EfficientNetLite0() if distance else None)
        for name, clips in ((REAL, real), (CEILING, coded)):
            seen = everyone.each(world.see, clips, partial(progress, description=f"seeing {name}"))
            if first:
                judging.add(name, clips, seen)
    if beside:
        beside.add(CEILING, beside.reconstructed(asked), partial(progress, description="features"))
    bits, other = prompt_bits(sampler, asked, labels, everyone)
    wanted = requests(asked, sampler, seed, given_frames, out / "given", everyone)
    tried = product(cfg or [config.guidance], temperature or [config.temperature], top_p)
    for sampling in [Sampling(guidance=g, temperature=t, top_p=p) for g, t, p in tried]:
        name = f"cfg {sampling.guidance:g}, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
        watched = partial(progress, description=f"sampling {name}")
        codes = sample(sampler, wanted, sampling, out / "samples.jsonl", batch_size, watched, everyone)
        if beside:
            also = Also(classes, given_frames, train)
            beside.add(name, beside.clips(asked, codes), partial(progress, description="features"), also)
        if world and judging:
            clips = everyone.each(coder.decode, codes)
            seen = everyone.each(world.see, clips, partial(progress, description=f"seeing {name}"))
            if not first:
                continue
            judging.add(name, clips, seen)
            for label in labels:
                with aside(out / f"{label}, {name}.png".replace(" ", "-")) as unfinished:
                    judging.sheet(label, clips, seen).save(unfinished)
            if train and held_out is not None:
                judging.add_nearest(name, nearest(clips, train), held_out)

    everyone.leave()
    if not first:
        return
    text = judging.markdown(bits, other) if judging else bits_in_words(labels, bits, other)
    rows = judging.rows if judging else {}
    if beside:
        text += beside.markdown()
        rows |= {name: rows.get(name, {}) | {"compared": found} for name, found in beside.found.items()}
    write_atomic(out / "results.md", text.encode())
    write_atomic(out / "results.json", json_module.dumps(rows, indent=1).encode())
    console.print(text)
    told = {"bits_per_token": bits, "other_prompt": other, "sets": rows, "out": out}
    cli.finish({"model": sampler.bundle.hash} | told, json)


if __name__ == "__main__":
    cli.run(main)
