"""Score a bundle on a world whose truth is known: prompt adherence, Frechet distance, memorisation."""

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
from vpoet.evaluate.adherence import captions, prompts, world_of
from vpoet.evaluate.distances import NAME, nearest
from vpoet.evaluate.judging import REAL, Judging, parts, prompt_bits
from vpoet.evaluate.kept_samples import sample
from vpoet.files import aside, write_atomic
from vpoet.generate.model import Request, load
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.nn.features import EfficientNetLite0
from vpoet.outputs import expect_folder
from vpoet.processes import Processes

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    prompt_sets: Annotated[
        list[Path],
        typer.Option("--prompts", metavar="RAW", help="Raw shards of world:NAME not trained on. Repeatable."),
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
    seed: Annotated[int, typer.Option(help="Prompt number i is sampled with seed SEED + i.", min=0)] = 0,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score a bundle on a world whose truth is known: prompt adherence, Frechet distance, memorisation.

    The caption of each clip of the given shards is a prompt. What a sample shows is found by matching it against all
    that the world can draw, and counted where the prompt states it. Creatures that were not asked for count as wrong,
    and so do faults: frames out of order, a figure missing in a frame, transparent or doubled. The real clips are
    scored the same way, as they are and through the bundle's tokenizer: the ceiling of any sampler. Shares are in
    percent, with 95% intervals (Wilson). Also reported: how many more bits a real clip costs under another clip's
    prompt (how much the model uses its prompt).

    Give several values of --cfg, --temperature or --top-p for a table of all their combinations. Samples are kept in
    OUT/samples.jsonl; running the same command again resumes an interrupted evaluation. Under a launcher (torchrun,
    deepspeed) the processes share out the clips.

    Examples:

        vpoet evaluate --prompts runs/platformer/raw/heldout --prompts runs/platformer/raw/unseen \\
            --train runs/platformer/raw/train --distance --out runs/judged

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
    sets = {folder.name: prompts(folder, count, known) for folder in prompt_sets}
    asked = [prompt for group in sets.values() for prompt in group]
    labels = parts(sets, apart or [])
    world = world_of(asked)(config.height, config.width, float(config.fps))
    network = EfficientNetLite0() if distance else None
    if first:
        cli.hold(out)
    everyone.gather(None)  # the folder is there

    real = [prompt.real for prompt in asked]
    coded = everyone.each(lambda prompt: coder.decode(coder.encode(Video(prompt.real, prompt.fps))), asked)
    held_out = nearest(coded, train)[0] if train and first else None
    judging = Judging(asked, labels, network)
    for name, clips in ((REAL, real), (f"{REAL}, through the tokenizer", coded)):
        seen = everyone.each(world.see, clips, partial(progress, description=f"seeing {name}"))
        if first:
            judging.add(name, clips, seen)
    bits, other = prompt_bits(sampler, asked, labels, everyone)
    requests = [Request(prompt=prompt.text, seed=seed + i) for i, prompt in enumerate(asked)]
    tried = product(cfg or [config.guidance], temperature or [config.temperature], top_p)
    for sampling in [Sampling(guidance=g, temperature=t, top_p=p) for g, t, p in tried]:
        name = f"cfg {sampling.guidance:g}, temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
        watched = partial(progress, description=f"sampling {name}")
        clips = sample(sampler, requests, sampling, out / "samples.jsonl", batch_size, watched, everyone)
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
    text = judging.markdown(bits, other)
    write_atomic(out / "results.md", text.encode())
    write_atomic(out / "results.json", json_module.dumps(judging.rows, indent=1).encode())
    console.print(text)
    told = {"bits_per_token": bits, "other_prompt": other, "sets": judging.rows, "out": out}
    cli.finish({"model": sampler.bundle.hash} | told, json)


if __name__ == "__main__":
    cli.run(main)
