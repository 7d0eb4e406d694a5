"""Make a gallery page of a bundle: what it makes of controls, edits and holes, a row each."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.evaluate import gallery
from vpoet.files import aside
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    out: Annotated[Path, typer.Option(help="Folder for gallery.html, and sheet.png of the same rows.")],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    count: Annotated[int, typer.Option(help="Rows of each kind.", min=1, max=100)] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Make a gallery page of a bundle: what it makes of controls, edits and holes, a row each.

    Clips of the platformer that nobody was trained on are drawn. A row is for each control that the model reads (the
    signal, its clip, samples for that clip's prompt and another), for an edit of ground, sky and character (the clip,
    what becomes of it, and the same under a control), and for in- and outpainting (the clip, what is shown of it, what
    is made). Guidance and temperature are the bundle's own. OUT/gallery.html is one file with all clips in it.

    Examples:

        vpoet gallery --out runs/gallery
        vpoet gallery --model runs/controls/bundle --count 4 --out runs/controls/gallery
    """
    expect_folder(out)
    shows = load(model, device)
    rows = gallery.rows(shows, count)
    cli.hold(out)
    sampling = shows.sampling()
    made = [
        (row, [shows.sample_batch([request], sampling)[0] for request in row.requests])
        for row in track(rows, "rows", console=console)
    ]
    gallery.publish(out / "gallery.html", made)
    strips = [
        (f"{row.section}, {row.name}: {words}", frames)
        for row, samples in made
        for words, frames in (*row.given, *((r.prompt, v.frames) for r, v in zip(row.requests, samples, strict=True)))
    ]
    with aside(out / "sheet.png") as unfinished:
        contact_sheet(strips, max_frames=9, scale=1).save(unfinished)
    cli.finish({"out": out, "model": shows.bundle.hash, "rows": len(rows)}, json)


if __name__ == "__main__":
    cli.run(main)
