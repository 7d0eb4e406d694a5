"""What there is to see of a training run, for those without wandb: numbers, samples, curves, code, recipe.

All of it is read from the run folder as it lies there, so a run that is still going, or was stopped, has a page too.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from vpoet import config
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.page.curves import learning_panels, speed_panels
from vpoet.evaluate.page.html import Listing, Picture, Section, Table
from vpoet.evaluate.plots import POINTS, Panel, panels_figure, save
from vpoet.evaluate.previews import read_real
from vpoet.training.run import checkpoint
from vpoet.training.run.folder import METRICS, RESOLVED, SAMPLES, STARTS
from vpoet.training.run.summary import Summary, table
from vpoet.training.run.tracking import read_metrics, read_numbers

Row = Mapping[str, Any]

SAMPLINGS = 4
"""Of all the times that clips were sampled so many are shown: the first, the newest, and some between."""
NAMED = 20
"""So many of the steps that were left out are named."""


def is_run(folder: Path) -> bool:
    return (folder / METRICS).is_file()


def run_sections(run: Path, scratch: Path, drawn: str = ".svg") -> list[Section]:
    """The page of a run folder; what is ``drawn`` for it goes to ``scratch``, as such files.

    DataError: not one step is logged.
    """
    rows = read_numbers(run / METRICS)
    if not rows:
        raise DataError(f"{run}: {METRICS} has no step yet; come back when the run has taken one")
    recipe = _recipe(run / RESOLVED) if (run / RESOLVED).is_file() else {}
    starts = read_metrics(run / STARTS) if (run / STARTS).is_file() else []
    sections = [
        _numbers(run, rows, recipe, starts),
        *_samples(run / SAMPLES, recipe),
        *_drawn("Learning", learning_panels(rows), scratch / f"learning{drawn}"),
        *_drawn("Speed", speed_panels(rows), scratch / f"speed{drawn}"),
    ]
    if starts:
        sections.append(_starts(starts))
    if recipe:
        listing = Listing(f"{RESOLVED}, with all defaults", (run / RESOLVED).read_text(encoding="utf-8"))
        sections.append(Section("Recipe", [listing]))
    return sections


def _recipe(path: Path) -> dict[str, Any]:
    """What it gives, read as it was written then; ConfigError if what is shown of it is not what a recipe holds."""
    found = config.given(path)
    data, samples = found.get("data"), found.get("samples") or {}
    counts = [found.get("batch"), found.get("steps"), data.get("length") if isinstance(data, dict) else None]
    prompts = samples.get("prompts") or [] if isinstance(samples, dict) else None
    if not all(count is None or isinstance(count, int) for count in counts) or not isinstance(prompts, list):
        raise ConfigError(
            f"{path}: damaged, it is not a run's recipe; copy it again, or remove it: the page goes without"
        )
    return found


def _numbers(run: Path, rows: Sequence[Row], recipe: Row, starts: Sequence[Row]) -> Section:
    data = recipe.get("data")
    tokens = recipe.get("batch", 0) * data["length"] if isinstance(data, dict) and "length" in data else 0
    summary = Summary(tokens)
    for row in rows:
        summary.add(row)
    facts = summary.facts()
    sizes = {name: starts[-1][name] for name in ("parameters", "processes") if starts and name in starts[-1]}
    lines = table(facts, sizes)
    if left_out := _left_out(rows):
        lines.append(("left out were steps", left_out))
    if kept := [folder.name for folder in checkpoint.complete(run)]:
        lines.append(("checkpoints", ", ".join(kept)))
    told = [_state(rows, recipe)]
    if recipe.get("heldout") == [] and "final/heldout_loss" not in facts:
        told.append("The recipe names no held-out shards, so overfitting can't be seen.")
    return Section("The run in numbers", [*told, Table(["what", "how much"], lines)])


def _state(rows: Sequence[Row], recipe: Row) -> str:
    done, steps = rows[-1]["step"], recipe.get("steps")
    when = f", at {_clock(rows[-1]['time'])}" if "time" in rows[-1] else ""
    if steps is None:
        return f"Step {done:,}{when}. The folder has no {RESOLVED}, so what was trained, and how far, is not known."
    if done < steps:
        return (
            f"Not finished: step {done:,} of {steps:,}{when}. It is still running, or was stopped and can be resumed."
        )
    return f"Finished: {done:,} of {steps:,} steps{when}."


def _left_out(rows: Sequence[Row]) -> str:
    """The steps at which the count of those left out rose."""
    counts = [row.get("train/skipped") or 0 for row in rows]
    steps = [row["step"] for row, before, now in zip(rows, [0, *counts], counts, strict=False) if now > before]
    return ", ".join(f"{step:,}" for step in steps[:NAMED]) + (", ..." if len(steps) > NAMED else "")


def _samples(folder: Path, recipe: Row) -> list[Section]:
    """Each prompt's clips as the run went on, and the real one; of a tokenizer's run its newest reconstructions."""
    numbers = {path: re.fullmatch(r"step-(\d+)(?:-(\d+))?", path.stem) for path in folder.glob("step-*")}
    found = {path: match for path, match in numbers.items() if match}
    if sheets := {int(match[1]): path for path, match in found.items() if path.suffix == ".png" and not match[2]}:
        newest = max(sheets)
        return [Section("Samples", [[Picture(sheets[newest], f"step {newest:,}")]])]
    clips = {(int(match[1]), int(match[2])): path for path, match in found.items() if match[2]}
    if not clips:
        return []
    steps = sorted({step for step, _ in clips})
    shown = [steps[at] for at in sorted(set(np.linspace(0, len(steps) - 1, SAMPLINGS).round().astype(int)))]
    prompts = dict(enumerate((recipe.get("samples") or {}).get("prompts") or []))
    real = read_real(folder)
    note = "Each row is a prompt: sampled as the run went on"
    parts: list[Any] = [
        f"{note}, and at its end the held-out clip whose caption comes nearest, through the tokenizer and back."
        if real
        else f"{note}."
    ]
    for index in sorted({index for _, index in clips}):
        row = [Picture(clips[step, index], f"step {step:,}") for step in shown if (step, index) in clips]
        beside = real.get(prompts.get(index, ""))
        if beside and beside["real"].is_file():
            row.append(Picture(beside["real"], f"real: {beside['caption']}"))
        parts += [f"“{prompts.get(index, f'prompt {index}')}”", row]
    return [Section("Samples", parts)]


def _drawn(title: str, drawn: Sequence[Panel], path: Path) -> list[Section]:
    if not drawn:
        return []
    save(panels_figure(drawn), path)
    long = any(len(steps) > POINTS for panel in drawn for steps, _ in panel.curves.values())
    note = (
        "over steps; a line is the mean of short stretches, the shade around it their range" if long else "over steps"
    )
    return [Section(title, [[Picture(path, note)]])]


def _starts(starts: Sequence[Row]) -> Section:
    """Each time the run was begun or resumed, with the code that it then was."""
    names = list(dict.fromkeys(name for row in starts for name in row if name not in ("step", "time")))
    rows = [
        [_clock(row["time"]), f"{row['step']:,}", *(_plain(row.get(name, "")) for name in names)]
        for row in starts
        if "time" in row
    ]
    note = "Each time the run was begun or resumed. A commit that ends in + had changes beside it."
    return Section("Code and machine", [note, Table(["when", "after step", *names], rows)])


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def _plain(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
