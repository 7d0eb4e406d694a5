"""Score videos: how probable a model finds them given a prompt, in bits; rank clips, or prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.data.fields import captions
from vpoet.data.sources import Item, gather
from vpoet.errors import DataError, VpoetError
from vpoet.evaluate.plots import PLOTS
from vpoet.evaluate.surprise import surprise_figure
from vpoet.files import aside
from vpoet.generate.likelihood import Likelihood, posterior
from vpoet.generate.model import load
from vpoet.generate.observe import fit
from vpoet.outputs import expect_apart, expect_file

CURVES = 10
"""Lines that a picture holds at most: those of the first rows."""

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

Row = dict[str, Any]


def main(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Videos, images, folders, or .csv and .jsonl lists of them.")
    ],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='What the video shows; give it several times to compare. "" is none. [default: none]'),
    ] = None,
    given_frames: Annotated[
        int, typer.Option(help="Score what follows on so many first frames, which the model is given.")
    ] = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames to score. [default: as many as fill cells, at most the model's]")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Scale to this height. [default: the model's]")] = None,
    width: Annotated[int | None, typer.Option(help="Scale to this width. [default: the model's]")] = None,
    fps: Annotated[int | None, typer.Option(help="Resample to this frame rate. [default: the model's]")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw how surprised the model is over time; also .svg, .pdf.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score videos: how probable a model finds them given a prompt, in bits; rank clips, or prompts.

    The score is the exact log-likelihood of a clip's codes, as the video tokenizer makes them: fewer bits, more
    probable. It compares clips and prompts under one model; what the tokenizer leaves out is not in it. The most
    probable clip comes first, by bits a token, and under each clip its most probable prompt, with the probability that
    it is the true one if one of them is and all were equally likely before.

    The entries of a list (`path` or `file`, and `caption`, as for `vpoet ingest`) are scored with their captions,
    beside the prompts that are given. A video that can't be scored is reported, and the others are done.

    Examples:

        vpoet score robot.mp4 --model runs/demo/bundle --prompt "a robot walks right on grass" --plot surprise.png
        vpoet score robot.mp4 --model runs/demo/bundle --prompt "a robot walks right" --prompt "a robot walks left"
        vpoet score clips/ --model runs/demo/bundle --given-frames 5 --json
    """
    expect_file(plot, PLOTS)
    problems: list[str] = []
    items: list[Item] = []
    for source in videos:
        try:
            items += gather([source])
        except VpoetError as error:
            problems.append(str(error))
    problems += [f"{item.name}: {item.problem}" for item in items if item.problem]
    items = [item for item in items if not item.problem]
    expect_apart(plot, [item.path for item in items])
    scorer = load(model, device)
    clips: list[list[Row]] = []
    with Progress(
        TextColumn("scoring"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        for item in bar.track(items):
            try:
                clip = fit(scorer.bundle, item.path, frames=frames, height=height, width=width, fps=fps)
                codes = scorer.bundle.video.encode(clip.video)
                prompts = candidates(item, prompt or [])
                documents = [scorer.observed(codes, clip.video.fps, text, given_frames) for text in prompts]
                scores = scorer.likelihoods(documents)
            except VpoetError as error:
                problems.append(str(error) if item.path in str(error) else f"{item.path}: {error}")
                continue
            if clip.changes:
                console.print(f"{item.path}: scored {', '.join(clip.changes)}")
            clips.append(rows_of(item.path, prompts, scores))
    for problem in problems:
        console.print(f"skipped: {problem}")
    if not clips:
        raise DataError(f"none of {len(problems)} videos could be scored; the reasons are above")

    rows = ranked(clips)
    show(rows)
    if plot:
        drawn = [(f"{row['video']}  {row['prompt']}".rstrip(), row["likelihood"]) for row in rows[:CURVES]]
        with aside(plot) as fresh:
            surprise_figure(drawn).savefig(fresh, dpi=110)
        left = f"; the first {CURVES} of {len(rows)} rows" if len(rows) > CURVES else ""
        console.print(f"{plot}: bits a token over the frames{left}")
    plain = [{key: value for key, value in row.items() if key != "likelihood"} for row in rows]
    cli.finish({"model": scorer.bundle.hash, "rows": plain, "failed": problems, "plot": plot}, json)
    if problems:
        raise DataError(f"{len(problems)} videos could not be scored; they are listed above, the others are done")


def candidates(item: Item, prompts: Sequence[str]) -> list[str]:
    """The captions of a list's entry and the prompts given, each once; no prompt if there is none."""
    return list(dict.fromkeys([*captions(item.fields), *prompts])) or [""]


def rows_of(video: str, prompts: Sequence[str], scores: Sequence[Likelihood]) -> list[Row]:
    """A row for each prompt. Cell i in time stands for the frames from edge i up to, not with, edge i + 1."""
    return [
        {
            "video": video,
            "prompt": prompt,
            "task": score.task,
            "nats": score.total.nats,
            "bits": score.total.bits,
            "tokens": score.tokens,
            "frames": score.frames,
            "pixels": score.pixels,
            "bits_per_token": score.per_token.bits,
            "bits_per_frame": score.per_frame.bits,
            "bits_per_pixel": score.per_pixel.bits,
            "posterior": share if len(scores) > 1 else None,
            "edges": score.edges,
            "nats_by_time": score.by_time,
            "likelihood": score,
        }
        for prompt, score, share in zip(prompts, scores, posterior(scores), strict=True)
    ]


def ranked(clips: Sequence[Sequence[Row]]) -> list[Row]:
    """Clips by their most probable prompt, and under each its prompts, the most probable first."""
    groups = [sorted(clip, key=lambda row: row["nats"]) for clip in clips]
    return [row for group in sorted(groups, key=lambda group: group[0]["bits_per_token"]) for row in group]


def show(rows: Sequence[Row]) -> None:
    width = max(len(row["video"]) for row in rows)
    console.print(f"{'bits':>10} {'a token':>8} {'a frame':>9} {'a pixel':>8}  posterior  {'video':{width}}  prompt")
    for row in rows:
        bits = f"{row['bits']:10.1f} {row['bits_per_token']:8.3f} {row['bits_per_frame']:9.2f}"
        share = "" if row["posterior"] is None else f"{row['posterior']:.4f}"
        prompt = row["prompt"] or "(none)"
        console.print(f"{bits} {row['bits_per_pixel']:8.4f}  {share:>9}  {row['video']:{width}}  {prompt}")


if __name__ == "__main__":
    cli.run(main)
