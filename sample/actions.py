"""Read the actions off videos: what was done between each two frames."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.data.sources import gather
from vpoet.errors import DataError, VpoetError
from vpoet.files import write_atomic
from vpoet.generate.model import load
from vpoet.outputs import expect_apart, expect_file
from vpoet.play.inverse import told
from vpoet.play.reading import actions_of, space

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Videos, folders, or .csv and .jsonl lists of them.")
    ],
    model: Annotated[Path, typer.Option(help="Bundle folder of a model that was trained for play or inverse.")],
    prompt: Annotated[str, typer.Option(help="What the videos show. [default: none]")] = "",
    by: Annotated[
        str, typer.Option(help="play (what explains the frames best) or inverse. [default: play, if the model plays]")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="A .jsonl list of the videos with their actions.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Read the actions off videos: what was done between each two frames.

    Videos are brought to the size and rate of the model, which was trained for `play` or `inverse` on recordings that
    say what was done (`vpoet ingest world:playground`). Each action is the most probable one, and is told with its
    probability: by play, the one under which the model finds the next frame the most probable (Bayes' rule; actions
    that have names; left/none where two explain it within a bit of each other); by inverse, as that task reads it,
    given all the frames and the actions before it. The videos may be real or sampled; a sampled one whose actions are
    carried out in the world (`vpoet plan` imagines such plans with --proposals inverse) is a plan (UniPi).

    With --out the lines of the list are as `vpoet ingest` reads them: path, actions and action_space. A video that
    can't be read is reported, and the others are done.

    Examples:

        vpoet actions played.mp4 --model runs/play/bundle
        vpoet actions clips/ --model runs/play/bundle --prompt "a robot on grass" --out actions.jsonl --json
    """
    expect_file(out, (".jsonl",))
    items = [item for source in videos for item in gather([source])]
    expect_apart(out, [item.path for item in items])
    reader = load(model, device)
    known = space(reader, by)
    rows: list[dict[str, Any]] = []
    problems = [f"{item.name}: {item.problem}" for item in items if item.problem]
    for item in track(
        [item for item in items if not item.problem], "reading", console=console, disable=not console.is_terminal
    ):
        try:
            found, changes = actions_of(reader, item.path, prompt, by)
        except VpoetError as error:
            problems.append(str(error) if item.path in str(error) else f"{item.path}: {error}")
            continue
        if changes:
            console.print(f"{item.path}: read {', '.join(changes)}")
        steps = told(found)
        rows.append(
            {"path": item.path, "fps": reader.bundle.config.fps, "nats": float(found.nats.sum()), "steps": steps}
        )
        console.print(f"{item.path}: {' '.join(_word(step) for step in steps)}")
    if unsure := sum(bool(step.get("or")) for row in rows for step in row["steps"]):
        count = sum(len(row["steps"]) for row in rows)
        console.print(
            f"{unsure} of {count} steps could as well be another action, written a/b: within one bit of the best"
        )
    for problem in problems:
        console.print(f"skipped: {problem}")
    if not rows:
        raise DataError(f"none of {len(problems)} videos could be read; the reasons are above")
    if out:
        about = {"action_space": known.told()}
        lines = ({"path": row["path"], "actions": [step["action"] for step in row["steps"]]} | about for row in rows)
        write_atomic(out, "".join(json.dumps(line) + "\n" for line in lines))
        console.print(f"{out}: the actions of {len(rows)} videos")
    cli.finish({"model": reader.bundle.hash, "rows": rows, "failed": problems, "out": out}, as_json)
    if problems:
        raise DataError(f"{len(problems)} videos could not be read; they are listed above, the others are done")


def _word(step: dict[str, Any]) -> str:
    """An action, those that it can hardly be told from, and its probability."""
    return f"{'/'.join([str(step['action']), *step.get('or', [])])} ({step['probability']:.2f})"


if __name__ == "__main__":
    cli.run(main)
