"""Make videos and images from a prompt, or from images and videos to start from, lead to or fill in."""

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import STARTED, cli
from vpoet.bundle import SHIPPED
from vpoet.errors import PromptError, VpoetError
from vpoet.evaluate.plots import SHEETS
from vpoet.files import aside
from vpoet.generate.clip_file import Film, is_made
from vpoet.generate.model import Request, StepCompiler, load
from vpoet.generate.prompt_file import output_files, read_prompts, read_texts, record
from vpoet.generate.rollout import roll
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video
from vpoet.outputs import expect_file

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    model: Annotated[
        Path, typer.Option(help="Bundle folder. [default: the one that ships]", show_default=False)
    ] = SHIPPED,
    prompt: Annotated[list[str] | None, typer.Option(help="What to show; give it several times for several.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A prompt on each line, or a JSON object with the options' names: prompt, image, last, video, task, "
            "mask, outpaint, given_frames, via_image, story (what --then says, a list), frames, seed, ...",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File: .mp4, .gif, .webp or .png (a contact sheet). Or a folder.")] = Path(
        "sample.mp4"
    ),
    image: Annotated[Path | None, typer.Option(help="The clip's first frame.")] = None,
    last: Annotated[Path | None, typer.Option(help="The clip's last frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video to continue, or what --task says.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="What to make of --video. continuation (the default): what follows its end. backward: what leads to "
            "its start. interpolation: more frames between its own, up to --fps."
        ),
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="An image or video, white where --image or --video is to be painted anew.")
    ] = None,
    outpaint: Annotated[
        str | None,
        typer.Option(
            metavar="L,T,R,B", help="Paint on around --image or --video: so many of the result's pixels on each side."
        ),
    ] = None,
    given_frames: Annotated[int | None, typer.Option(help="How many of the video's. [default: half a clip]")] = None,
    via_image: Annotated[bool, typer.Option("--via-image", help="First an image, then a video of it.")] = False,
    then: Annotated[
        list[str] | None,
        typer.Option(metavar="FRAME:TEXT", help="Another prompt from this frame on; several times for a story."),
    ] = None,
    frames: Annotated[int | None, typer.Option(help="As many as you like; 1: an image. [default: the model's]")] = None,
    window: Annotated[int | None, typer.Option(help="Frames made at once. [default: the model's]")] = None,
    overlap: Annotated[int | None, typer.Option(help="Frames a window sees of the last. [default: half]")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second. [default: the model's]")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same clip.")] = 0,
    count: Annotated[int, typer.Option(help="Clips of each prompt: seeds SEED, SEED+1, ...", min=1, max=10**5)] = 1,
    cfg: Annotated[float | None, typer.Option(help="Above 1: closer to the prompt. [default: the model's]")] = None,
    temperature: Annotated[float | None, typer.Option(help="Lower: safer; 0 likeliest. [default: the model's]")] = None,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest only; 0 from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest that make up this mass; 1 from all.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Drop what is less than this times as likely as the likeliest.")] = 0.0,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 8,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="A contact sheet of all clips.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the weights: auto, fp32, bf16 or, on a CPU, int8.")] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="On a CPU: compile the decoder first, once.")] = False,
    guesses: Annotated[
        int | None, typer.Option(help="Codes each pass guesses and tests. [default: as many as keep each clip and pay]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Make videos and images from a prompt, or from images and videos to start from, lead to or fill in.

    Several clips are named after --out (x-0.mp4, x-1.mp4, ...), or, if --out is a folder, after their prompts. Beside
    each lies a .json that says how it was made; a clip that is there and was made just so is not made again. A request
    that can't be served is reported, and the others are done. sample/README.md has an example of everything.

    Examples:

        vpoet sample --prompt "a robot walks left on snow" --out robot.mp4
        vpoet sample --model runs/demo/bundle --prompt "a hero jumps" --image hero.png --cfg 3 --count 4 --out x.gif
        vpoet sample --model runs/demo/bundle --batch sample/prompts/platformer.txt --out runs/samples --sheet all.png
    """
    seconds: dict[str, float] = defaultdict(float)
    mark = STARTED

    def spent(on: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        seconds[on] += now - mark
        mark = now

    spent("start")
    expect_file(sheet, SHEETS)
    given: dict[str, Any] = {"image": image, "last": last, "video": video, "task": task, "mask": mask}
    given |= {"outpaint": outpaint, "given_frames": given_frames, "via_image": via_image, "story": then or ()}
    given |= {"frames": frames, "window": window, "overlap": overlap, "height": height, "width": width}
    given = read_texts(given | {"fps": fps, "seed": seed})
    requests = [(f"--prompt {text!r}", Request(prompt=text, **given)) for text in prompt or []]
    problems: list[str] = []
    if batch:
        more, problems = read_prompts(batch, given)
        requests += more
    elif not requests:
        requests = [("no --prompt", Request(**given))]
    requests = [(where, replace(r, seed=r.seed + i)) for where, r in requests for i in range(count)]
    files = output_files(out, [request for _, request in requests])
    compiler = StepCompiler(lambda path: console.print(f"compiling the decoder, once: {path}")) if compiled else None
    sampler = load(model, device, precision, compiler, guesses=guesses)
    sampling = sampler.sampling(cfg, temperature, top_k, top_p, min_p)
    if unknown := sorted({word for _, request in requests for word in sampler.unknown(request.prompt)}):
        known = ", ".join(sampler.bundle.config.words)
        console.print(f"warning: words that this model never met: {', '.join(unknown)}\nit knows {known}")
    spent("load")

    jobs, done, unlike = [], 0, dict[str, None]()
    for (where, request), file in zip(requests, files, strict=True):
        try:
            made = record(request, sampling, sampler) | sampler.rounding
            if is_made(file, made):
                done += 1
            else:
                rollout = sampler.rollout(request)
                unlike |= dict.fromkeys(sampler.unfamiliar(request))
                jobs.append((rollout, file, made))
        except VpoetError as error:
            problems.append(f"{where}: {error}")
    if problems and not jobs and not done:
        raise PromptError("\n".join(problems))
    for said in [*(f"warning: {each}" for each in unlike), *(f"skipped: {problem}" for problem in problems)]:
        console.print(said)
    jobs.sort(key=lambda job: job[0].size, reverse=True)  # alike beside alike: none waits long for the end of another
    spent("prepare")

    tokens, rounds = 0, 0
    groups = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    speed = TextColumn("{task.fields[rate]:.0f} tokens/s")
    columns = TextColumn("sampling"), BarColumn(), speed, TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        progress = bar.add_task("", total=sum(group[0][0].count for group in groups), rate=0.0)

        def on_step(step: int, steps: int) -> None:
            nonlocal rounds
            spent("decode" if step else "prefill")
            rounds += step == steps
            done_here = step / steps if step < steps else 0.0
            bar.update(
                progress, completed=rounds + done_here, rate=(tokens + step * len(group)) / max(seconds["decode"], 1e-9)
            )

        for group in groups:
            with ExitStack() as stack:
                films = [stack.enter_context(Film(file, rollout.fps, contact_sheet)) for rollout, file, _ in group]
                counts: list[dict[str, float]] = [{"nats": 0.0, "tokens": 0} for _ in group]
                for i, decoded, made_frames in roll(sampler, [job[0] for job in group], sampling, on_step):
                    spent("detokenise")
                    tokens += len(decoded.nats)
                    counts[i]["nats"] += float(decoded.nats.sum())
                    counts[i]["tokens"] += len(decoded.nats)
                    films[i].add(made_frames)
                    if group[i][0].document is None:
                        films[i].finish({**group[i][2], **counts[i]})
                    spent("write")
    written = [file for _, file, _ in jobs]
    if sheet and (files_there := [(r, f) for (_, r), f in zip(requests, files, strict=True) if f.is_file()]):
        with aside(sheet) as fresh:
            contact_sheet([(f"{r.prompt} ({r.seed})", Video.read(f).frames) for r, f in files_there]).save(fresh)
        spent("write")

    overall = tokens / seconds["decode"] if tokens else 0.0
    parts = ", ".join(f"{name} {took:.1f} s" for name, took in seconds.items())
    console.print(f"{len(written)} clips ({done} were there already); {overall:.0f} tokens/s; {parts}")
    for file in [*written, *([sheet] if sheet else [])]:
        console.print(f"  {file}")
    summary = {"outputs": files, "written": written, "skipped": done, "failed": problems, "tokens": tokens}
    cli.finish({**summary, "tokens_per_second": overall, "seconds": dict(seconds)}, json)
    if problems:
        raise PromptError(f"{len(problems)} requests failed; they are listed above, the others are done")


if __name__ == "__main__":
    cli.run(main)
