"""Score videos: how probable a model finds them given a prompt, in bits; rank clips, or prompts."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.data.fields import captions
from vpoet.data.sources import Item, gather
from vpoet.errors import DataError, VpoetError
from vpoet.evaluate.plots import PLOTS, save, surprise_figure
from vpoet.evaluate.ranking import Ranked, in_words, of_clip, ranked
from vpoet.generate.model import load
from vpoet.generate.observe import fit
from vpoet.outputs import expect_apart, expect_file
from vpoet.processes import Processes

CURVES = 10
"""Lines that a picture holds at most: those of the first rows."""

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Videos, images, folders, or .csv and .jsonl lists of them.")
    ],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help='What the video shows; give it several times to compare. "" is none. [default: none]'),
    ] = None,
    given_frames: Annotated[int, typer.Option(help="Give the model this many first frames and score the rest.")] = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames to score. [default: as many as fill cells, at most the model's]")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Scale to this height. [default: the model's]")] = None,
    width: Annotated[int | None, typer.Option(help="Scale to this width. [default: the model's]")] = None,
    fps: Annotated[int | None, typer.Option(help="Resample to this frame rate. [default: the model's]")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Plot bits per token over time (surprise); also .svg, .pdf.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    local_rank: Annotated[int, typer.Option("--local_rank", hidden=True, help="Given by the launcher.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Score videos: how probable a model finds them given a prompt, in bits; rank clips, or prompts.

    The score is the exact log-likelihood of a clip's codes, as the video tokenizer makes them: fewer bits, more
    probable. It compares clips and prompts under one model; what the tokenizer leaves out is not in it. The most
    probable clip comes first, by bits per token, and under each clip its most probable prompt, with the probability
    that it is the true one if one of them is and all were equally likely before.

    The entries of a list (`path` or `file`, and `caption`, as for `vpoet ingest`) are scored with their captions,
    beside the prompts that are given. A video that can't be scored is reported, and the others are done. Under a
    launcher (torchrun, deepspeed) the processes share out the videos.

    Examples:

        vpoet score robot.mp4 --model runs/demo/bundle --prompt "a robot walks right on grass" --plot surprise.png
        vpoet score robot.mp4 --model runs/demo/bundle --prompt "a robot walks right" --prompt "a robot walks left"
        vpoet score clips/ --model runs/demo/bundle --given-frames 5 --json
    """
    everyone = Processes.sharing()
    first = everyone.rank == 0
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

    def scored(item: Item) -> list[Ranked] | str:
        """The clip's rows, or what is wrong."""
        try:
            clip = fit(scorer.bundle, item.path, frames=frames, height=height, width=width, fps=fps)
            codes = scorer.bundle.video.encode(clip.video)
            prompts = candidates(item, prompt or [])
            documents = [scorer.observed(codes, clip.video.fps, text, given_frames) for text in prompts]
            scores = scorer.likelihoods(documents)
        except VpoetError as error:
            return str(error) if item.path in str(error) else f"{item.path}: {error}"
        if clip.changes:
            console.print(f"{item.path}: scored {', '.join(clip.changes)}")
        return of_clip(item.path, prompts, scores)

    shown = partial(track, description="scoring", console=console, disable=not (first and console.is_terminal))
    found = everyone.each(scored, items, shown)
    everyone.leave()
    if not first:
        return
    clips = [each for each in found if isinstance(each, list)]
    problems += [each for each in found if isinstance(each, str)]
    for problem in problems:
        console.print(f"skipped: {problem}")
    if not clips:
        raise DataError(f"none of {len(problems)} videos could be scored; the reasons are above")

    rows = ranked(clips)
    console.print("\n".join(in_words(rows)))
    if plot:
        save(surprise_figure([(row.label, row.likelihood) for row in rows[:CURVES]]), plot)
        left = f"; the first {CURVES} of {len(rows)} rows" if len(rows) > CURVES else ""
        console.print(f"{plot}: bits per token over the frames{left}")
    result = {"model": scorer.bundle.hash, "rows": [row.record() for row in rows], "failed": problems, "plot": plot}
    cli.finish(result, json)
    if problems:
        raise DataError(f"{len(problems)} videos could not be scored; they are listed above, the others are done")


def candidates(item: Item, prompts: Sequence[str]) -> list[str]:
    """The captions of a list's entry and the prompts given, each once; no prompt if there is none."""
    return list(dict.fromkeys([*captions(item.fields), *prompts])) or [""]


if __name__ == "__main__":
    cli.run(main)
