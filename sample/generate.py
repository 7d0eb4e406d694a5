"""Sample videos from a prompt, and maybe an image or the start of a video; mp4, gif, webp or png."""

import json as json_module
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import cli
from vpoet.data.video import Video
from vpoet.errors import PromptError, VpoetError
from vpoet.evaluate.pictures import contact_sheet
from vpoet.generate.decode import Sampling
from vpoet.generate.model import Request, load
from vpoet.generate.prompts import output_files, read_prompts, record

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    model: Annotated[Path, typer.Option(help="Bundle folder; `vpoet export` makes one.")],
    prompt: Annotated[list[str] | None, typer.Option(help="What to show; give it several times for several.")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A prompt on each line, or a JSON object: prompt, image, video, given_frames, frames, height, "
            "width, fps, seed.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="File: .mp4, .gif, .webp or .png (a contact sheet). Or a folder.")] = Path(
        "sample.mp4"
    ),
    image: Annotated[Path | None, typer.Option(help="The clip's first frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Continue this video: its last frames open the clip.")] = None,
    given_frames: Annotated[
        int | None, typer.Option(help="How many of the video's frames. [default: at most half of the clip]")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Frames; 1 makes an image. [default: the model's]")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels. [default: the model's]")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames per second. [default: the model's]")] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes the same clip.")] = 0,
    count: Annotated[int, typer.Option(help="Clips of each prompt, with seeds SEED, SEED+1, ...", min=1)] = 1,
    cfg: Annotated[float, typer.Option(help="Guidance: above 1 keeps closer to the prompt, in twice the time.")] = 1.0,
    temperature: Annotated[float, typer.Option(help="Below 1 is safer, above 1 wilder, 0 the likeliest.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest only; 0 from all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest that make up this mass; 1 from all.")] = 1.0,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1)] = 8,
    sheet: Annotated[Path | None, typer.Option(metavar="PNG", help="A contact sheet of all clips.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Sample videos from a prompt, and maybe an image or the start of a video; mp4, gif, webp or png.

    Several clips are named after --out (x-0.mp4, x-1.mp4, ...), or, if --out is a folder, after their prompts. Beside
    each lies a .json that says how it was made; a clip that is there and was made just so is not made again. A request
    that can't be served is reported, and the others are done.

    Examples:

        vpoet sample --model runs/demo/bundle --prompt "a robot walks left on snow" --out robot.mp4
        vpoet sample --model runs/demo/bundle --prompt "a hero jumps" --image hero.png --cfg 3 --count 4 --out x.gif
        vpoet sample --model runs/demo/bundle --batch sample/prompts/platformer.txt --out runs/samples --sheet all.png
    """
    seconds: dict[str, float] = defaultdict(float)
    mark = time.perf_counter()

    def spent(on: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        seconds[on] += now - mark
        mark = now

    sampling = Sampling(cfg, temperature, top_k, top_p)
    given: dict[str, Any] = {
        "image": image,
        "video": video,
        "given_frames": given_frames,
        "frames": frames,
        "height": height,
    }
    given |= {"width": width, "fps": fps, "seed": seed}
    requests = [(f"--prompt {text!r}", Request(prompt=text, **given)) for text in prompt or []]
    problems: list[str] = []
    if batch:
        more, problems = read_prompts(batch, given)
        requests += more
    elif not requests:
        requests = [("no --prompt", Request(**given))]
    requests = [(where, replace(r, seed=r.seed + i)) for where, r in requests for i in range(count)]
    files = output_files(out, [request for _, request in requests])
    sampler = load(model, device)
    spent("load")

    jobs, done = [], 0
    for (where, request), file in zip(requests, files, strict=True):
        try:
            made = record(request, sampling, sampler.bundle.hash)
            if is_made(file, made):
                done += 1
            else:
                jobs.append((sampler.document(request), request, file, made))
        except VpoetError as error:
            problems.append(f"{where}: {error}")
    if problems and not jobs and not done:
        raise PromptError("\n".join(problems))
    for problem in problems:
        console.print(f"skipped: {problem}")
    jobs.sort(key=lambda job: -job[0].codes().size)  # alike beside alike: none waits long for the end of another
    spent("prepare")

    tokens = 0
    groups = [jobs[start : start + batch_size] for start in range(0, len(jobs), batch_size)]
    speed = TextColumn("{task.fields[rate]:.0f} tokens/s")
    with Progress(
        TextColumn("sampling"),
        BarColumn(),
        speed,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=len(groups), rate=0.0)
        for number, group in enumerate(groups):

            def on_step(
                step: int, steps: int, number: int = number, before: int = tokens, size: int = len(group)
            ) -> None:
                spent("decode" if step else "prefill")
                rate = (before + step * size) / max(seconds["decode"], 1e-9)
                bar.update(task, completed=number + step / steps, rate=rate)

            documents = [document for document, *_ in group]
            decoded = sampler.decode(documents, [request.seed for _, request, *_ in group], sampling, on_step)
            for result, (_, _, file, made) in zip(decoded, group, strict=True):
                tokens += len(result.nats)
                clip = sampler.render(result.document)
                spent("detokenise")
                write(clip, file, {**made, "nats": float(result.nats.sum()), "tokens": len(result.nats)})
                spent("write")
    written = [file for *_, file, _ in jobs]
    if sheet and (files_there := [(r, f) for (_, r), f in zip(requests, files, strict=True) if f.is_file()]):
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet([(f"{r.prompt} ({r.seed})", Video.read(f).frames) for r, f in files_there]).save(sheet)
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


def is_made(file: Path, made: dict[str, Any]) -> bool:
    """Whether the clip is there, and the record beside it says that it was made just so."""
    try:
        found = json_module.loads(beside(file).read_text())
    except (OSError, ValueError):
        return False
    return file.is_file() and isinstance(found, dict) and made.items() <= found.items()


def beside(file: Path) -> Path:
    return file.with_name(f"{file.name}.json")


def write(clip: Video, file: Path, made: dict[str, Any]) -> None:
    """The clip, then its record: a clip that has one is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside(file).unlink(missing_ok=True)
    if file.suffix.lower() == ".png" and len(clip) > 1:
        contact_sheet([(made["prompt"], clip.frames)]).save(file)
    else:
        clip.write(file)
    beside(file).write_text(json_module.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
