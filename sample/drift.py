"""Measure drift of long rollouts: bits, prompt adherence, sharpness, motion, beside real clips."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress, track

from vpoet import cli, worlds
from vpoet.arrays import Frames
from vpoet.bundle import SHIPPED
from vpoet.errors import ShapeError
from vpoet.evaluate.drift import Segments, curve, estimates, lasting, measure, panels, peak_megabytes, table
from vpoet.evaluate.plots import drift_figure, save
from vpoet.files import aside, write_atomic, writing
from vpoet.generate.model import Request, load
from vpoet.generate.rollout import roll
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.outputs import expect_folder

SHOWN = 16
"""Frames of each rollout on the contact sheet."""

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    out: Annotated[Path, typer.Option(help="Folder for curves, figures and pictures.")],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    count: Annotated[int, typer.Option(help="Rollouts, made together.", min=2, max=10_000)] = 8,
    frames: Annotated[int, typer.Option(help="Frames per rollout.")] = 513,
    overlap: Annotated[
        int | None, typer.Option(help="Frames of the previous window that the next is given. [default: half]")
    ] = None,
    cfg: Annotated[float | None, typer.Option(help="Classifier-free guidance scale. [default: the model's]")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature. [default: the model's]")] = None,
    seed: Annotated[int, typer.Option(help="Rollout i has seed SEED + i; also chooses the prompts.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Measure drift of long rollouts: bits, prompt adherence, sharpness, motion, beside real clips.

    Prompts are captions of clips of the platformer world in which one character jumps up and down, alone: what can go
    on for ever. Each rollout is cut into segments as long as a clip, and each is scored as a clip of its own: bits
    per token of its codes under the model, whether who, ground and sky are as the prompt says and as they were in the
    first segment (found by matching with all that the world draws), contrast, sharpness and motion, as differences to
    the prompt's real clip, through the tokenizer.

    OUT gets drift.png, rollouts.png (a contact sheet), results.md, and segments.jsonl, one line per segment;
    `megabytes` is the peak memory of the process so far. 8 rollouts of 513 frames take 4 minutes of one core.

    Examples:

        vpoet drift --out runs/drift
        vpoet drift --model runs/demo/bundle --count 32 --overlap 13 --cfg 1 --out runs/drift-13
    """
    expect_folder(out)
    sampler = load(model, device)
    config, coder = sampler.bundle.config, sampler.bundle.video
    world = worlds.find("platformer")(config.height, config.width, float(config.fps))
    if frames < 2 * world.frames - 1:
        raise ShapeError(f"frames = {frames}: a curve begins with two segments, {2 * world.frames - 1} frames")
    sampling = sampler.sampling(guidance=cfg, temperature=temperature)
    asked = lasting(world, count, seed)
    requests = [Request(prompt=p.text, frames=frames, overlap=overlap, seed=seed + i) for i, p in enumerate(asked)]
    rollouts = [sampler.rollout(request) for request in requests]
    cli.hold(out)

    drawn = [coder.decode(coder.encode(Video(prompt.real, prompt.fps))) for prompt in asked]
    pairs = list(zip(asked, drawn, strict=True))
    reals = [measure(sampler, world, *pair) for pair in track(pairs, "real clips", console=console)]

    rows: list[dict[str, Any]] = []
    firsts: dict[int, dict[str, Any]] = {}
    cutters = [Segments(world.frames) for _ in asked]
    shown: list[list[Frames]] = [[] for _ in asked]
    segments = out / "segments.jsonl"
    with writing(segments), segments.open("w") as lines, Progress(console=console) as bar:
        progress = bar.add_task("rollouts", total=count * frames)
        for i, _, pieces in roll(sampler, rollouts, sampling):
            fresh = np.concatenate(list(pieces))
            for frame, segment in cutters[i].add(fresh):
                row: dict[str, Any] = {"rollout": i, "prompt": asked[i].text, "seed": requests[i].seed, "frame": frame}
                row |= measure(sampler, world, asked[i], segment, firsts.get(i))
                row["megabytes"] = peak_megabytes()
                firsts.setdefault(i, row)
                rows.append(row)
                shown[i].append(segment[0].copy())  # a view would hold the segment
                lines.write(json_module.dumps(row) + "\n")
                lines.flush()
            bar.update(progress, advance=len(fresh))

    over_time = curve(rows, reals)
    save(drift_figure(over_time, panels(rows[0])), out / "drift.png")
    sheet = [
        (f"{prompt.text} ({i})", np.stack(some)) for i, (prompt, some) in enumerate(zip(asked, shown, strict=True))
    ]
    with aside(out / "rollouts.png") as unfinished:
        contact_sheet(sheet, max_frames=SHOWN, scale=1).save(unfinished)
    megabytes = [rows[at]["megabytes"] for at in (0, len(rows) // 2, -1)]
    text = f"""{table(rows, reals)}

{count} rollouts of {frames} frames of the model {sampler.bundle.hash}; 95% intervals. Peak memory of the
process when the first, the middle and the last segment were measured: {", ".join(map(str, megabytes))} MB.
"""
    write_atomic(out / "results.md", text.encode())
    console.print(text)
    result = {"model": sampler.bundle.hash, "real": estimates(reals), "curve": over_time, "megabytes": megabytes}
    cli.finish(result | {"out": out}, json)


if __name__ == "__main__":
    cli.run(main)
