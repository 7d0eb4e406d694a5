"""Show a training run or a demo on one HTML page: numbers, curves, samples beside real clips."""

import json as json_module
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli
from vpoet.data.folder import read_samples
from vpoet.errors import DataError
from vpoet.evaluate.beside import likeness
from vpoet.evaluate.page.curves import learning_panels
from vpoet.evaluate.page.html import Picture, Section, Table, write_report
from vpoet.evaluate.page.run import is_run, run_sections
from vpoet.evaluate.plots import panels
from vpoet.media.video import Video
from vpoet.outputs import expect_file
from vpoet.training.run.folder import METRICS
from vpoet.training.run.tracking import read_numbers


def main(
    run: Annotated[Path, typer.Argument(help="The folder of a training run, or one that train/demo.sh filled.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; by itself index.html in the run folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Show a training run or a demo on one HTML page: numbers, curves, samples beside real clips.

    The page holds its pictures and videos itself, needs no network, and can be mailed. A run has one from its first
    step on, whether it is finished or not; run it again for what has come since.

    Examples:

        vpoet report runs/demo/pretrain
        vpoet report runs/demo --out demo.html
    """
    out = out or run / "index.html"
    expect_file(out, (".html", ".htm"))
    with tempfile.TemporaryDirectory() as scratch:
        sections = run_sections(run, Path(scratch)) if is_run(run) else demo(run, Path(scratch))
        write_report(out, f"vpoet: {run.resolve().name}", sections)
    Console(stderr=True, markup=False, soft_wrap=True).print(f"{out}: open it in a browser")
    cli.finish({"report": out, "sections": [section.title for section in sections]}, json)


def demo(run: Path, scratch: Path) -> list[Section]:
    """The whole chain; DataError if the folder is no demo's."""
    if not (run / "stages.jsonl").is_file():
        below = ", ".join(str(path.parent) for path in sorted(run.glob(f"*/{METRICS}")))
        remedy = f"give it one of the runs below: {below}" if below else "give it the folder of either"
        raise DataError(
            f"{run}: neither a training run, which has a {METRICS}, nor a demo, which has a stages.jsonl; {remedy}"
        )
    return [*samples(run, scratch), *reconstructions(run), *learning(run, scratch), *clips(run), stages(run)]


def stages(run: Path) -> Section:
    path = run / "stages.jsonl"
    try:
        rows = [json_module.loads(line) for line in path.read_text().splitlines()]
        lines = [[str(row["stage"]), f"{row['seconds']} s", str(row["command"]), str(row["result"])] for row in rows]
        minutes = sum(row["seconds"] for row in rows) / 60
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run the demo again") from None
    table = Table(["stage", "took", "command", "result"], lines)
    return Section("What ran", [f"{minutes:.0f} minutes in all, from no data to these samples.", table])


def samples(run: Path, scratch: Path) -> list[Section]:
    """Each sample beside the held-out clip whose caption shares most words with the prompt."""
    folder = run / "samples"
    if not (folder / "prompts.txt").exists():
        return []
    real = held_out(run)
    rows: list[list[Picture]] = []
    for index, prompt in enumerate((folder / "prompts.txt").read_text().splitlines()):
        caption, payload = max(real, key=lambda clip: likeness(prompt, clip[0]))
        path = scratch / f"real-{index}.mp4"
        Video.read(payload).write(path)  # again, in a form that browsers play: shards may be lossless
        rows.append([Picture(folder / f"sample-{index}.mp4", f"sampled: {prompt}"), Picture(path, f"real: {caption}")])
    note = "Sampled from the prompt alone; beside it the held-out clip whose caption comes nearest to the prompt."
    return [Section("Samples", [note, *rows])]


def held_out(run: Path) -> list[tuple[str, bytes]]:
    """(caption, video file) of every held-out clip, once for each of its captions."""
    samples = read_samples(run / "raw" / "heldout", required=("json", "mp4"))
    return [(caption, sample.parts["mp4"]) for sample in samples for caption in sample.captions]


def reconstructions(run: Path) -> list[Section]:
    path = run / "reconstructions.png"
    note = "Held-out clips, and what is left of them after the video tokenizer: to codes and back."
    return [Section("Through the tokenizer", [note, [Picture(path)]])] if path.exists() else []


def learning(run: Path, scratch: Path) -> list[Section]:
    """The curves of each part that was trained: losses and scores, no speeds."""
    sections = []
    for path in sorted(run.glob(f"*/{METRICS}")):
        picture = scratch / f"{path.parent.name}.svg"
        rows = read_numbers(path)
        panels(learning_panels(rows), picture)
        sections.append(Section(f"Learning: {path.parent.name}", [[Picture(picture, f"{rows[-1]['step']:,} steps")]]))
    return sections


def clips(run: Path) -> list[Section]:
    pictures = sorted((run / "raw").glob("*.png"))
    rows = [[Picture(path, f"{path.stem} clips, a row each")] for path in pictures]
    return [Section("The clips", rows)] if rows else []


if __name__ == "__main__":
    cli.run(main)
