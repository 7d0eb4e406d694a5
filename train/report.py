"""Show a training run or a chain on one HTML page: numbers, curves, samples beside real clips."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from vpoet import cli
from vpoet.evaluate.page.demo import demo_sections
from vpoet.evaluate.page.html import write_report
from vpoet.evaluate.page.run import is_run, run_sections
from vpoet.outputs import expect_file


def main(
    run: Annotated[Path, typer.Argument(help="The folder of a training run, or of vpoet chain.")],
    out: Annotated[Path | None, typer.Option(help="The page to write; by itself index.html in the run folder.")] = None,
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Show a training run or a chain on one HTML page: numbers, curves, samples beside real clips.

    The page holds its pictures and videos itself, needs no network, and can be mailed. A run has one from its first
    step on, whether it is finished or not; run it again for what has come since.

    Examples:

        vpoet report runs/demo/pretrain
        vpoet report runs/demo --out demo.html
    """
    out = out or run / "index.html"
    expect_file(out, (".html", ".htm"))
    with tempfile.TemporaryDirectory() as scratch:
        sections = run_sections(run, Path(scratch)) if is_run(run) else demo_sections(run, Path(scratch))
        write_report(out, f"vpoet: {run.resolve().name}", sections)
    Console(stderr=True, markup=False, soft_wrap=True).print(f"{out}: open it in a browser")
    cli.finish({"report": out, "sections": [section.title for section in sections]}, json)


if __name__ == "__main__":
    cli.run(main)
