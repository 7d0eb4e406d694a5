"""Judge how closely a bundle follows controls, on clips of the platformer that nobody trained on."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.errors import ConfigError
from vpoet.evaluate import controls
from vpoet.evaluate.rows import rows_done
from vpoet.evaluate.tables import markdown
from vpoet.files import aside, write_atomic
from vpoet.generate.model import load
from vpoet.media.sheet import contact_sheet
from vpoet.outputs import expect_folder
from vpoet.worlds.platformer.sight import Witness

SHOWN = 4
"""Clips on the contact sheet."""
CEILING = "through the tokenizer"
COLUMNS = ("moved", "miou", "miou_of_ceiling", "f1", "f1_of_ceiling", "told")

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    model: Annotated[Path, typer.Option(help="Bundle folder of a model that reads controls.")],
    out: Annotated[Path, typer.Option(help="Folder for rows.jsonl, results.md, results.json and sheet.png.")],
    count: Annotated[int, typer.Option(help="Clips, each sampled under every condition.", min=1, max=100_000)] = 50,
    batch_size: Annotated[int, typer.Option(help="Clips that are decoded together.", min=1, max=1000)] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Judge how closely a bundle follows controls, on clips of the platformer that nobody trained on.

    Each of COUNT clips is sampled by its caption alone, under each kind of control that the model reads at four
    strengths, under all of them, and under each with another caption. The world's judge and the detector of edges tell
    what the samples show: by how many pixels the figure stands elsewhere (moved, a median), how well layers and edges
    agree (miou, f1, also as shares of those of the clip through the tokenizer and back), and which share of the caption
    is seen (told). Guidance and temperature are the bundle's own.

    In OUT, rows.jsonl has a line for each sample as it is done; the same command again goes on behind the last.

    Examples:

        vpoet evaluate-controls --model runs/controls/bundle --out runs/controls/judged
        vpoet evaluate-controls --model runs/controls/bundle --count 8 --out runs/controls/quick
    """
    expect_folder(out)
    follows = load(model, device)
    kinds = follows.bundle.transformer.config.controls
    if not kinds:
        raise ConfigError(f"{model}: reads no controls; `vpoet finetune --controls` teaches a bundle")
    cli.hold(out)
    config, video = follows.bundle.config, follows.bundle.video
    witness = Witness(config.height, config.width, config.fps)
    asked = {"model": follows.bundle.hash}
    rows = rows_done(out / "rows.jsonl", asked, lambda row: (int(row["clip"]), str(row["condition"])))
    wanted, sampling = controls.conditions(kinds), follows.sampling()
    shown: list[tuple[str, Any]] = []
    batch: list[controls.Clip] = []
    numbers: list[int] = []
    with (out / "rows.jsonl").open("a") as lines:

        def note(clip: controls.Clip, condition: str, figures: dict[str, float]) -> None:
            if (clip.number, condition) in rows:  # of the run before, sampled again for the sheet
                return
            rows[clip.number, condition] = {"clip": clip.number, "condition": condition, **figures, **asked}
            lines.write(json_module.dumps(rows[clip.number, condition]) + "\n")
            lines.flush()

        for done, clip in enumerate(track(controls.clips(follows, kinds, count), "clips", count, console=console), 1):
            batch.append(clip)
            if len(batch) < batch_size and done < count:
                continue
            again = [video.decode(video.encode(each.frames)) for each in batch]
            seen = [witness.look(frames) for frames in again]
            for each, sight, frames in zip(batch, seen, again, strict=True):
                numbers.append(each.number)
                note(each, CEILING, controls.judged(witness, each, sight, frames))
            for condition in wanted:
                todo = [i for i, each in enumerate(batch) if (each.number, str(condition)) not in rows]
                if len(shown) < SHOWN * (1 + len(wanted)):
                    todo = [*range(len(batch))]
                made = controls.sampled(follows, [batch[i] for i in todo], condition, sampling) if todo else []
                for i, frames in zip(todo, made, strict=True):
                    figures = controls.judged(witness, batch[i], seen[i], frames, condition.conflict)
                    note(batch[i], str(condition), figures)
                    if batch[i].number < controls.FIRST + SHOWN:
                        shown.append((f"{batch[i].prompt(condition.conflict)} ({condition})", frames))
            shown += [(f"{each.prompt(False)}: the clip", each.frames) for each in batch if len(shown) < 200]
            batch = []
    named = [CEILING, *map(str, wanted)]
    groups = {name: [rows[number, name] for number in numbers] for name in named}
    ceiling = controls.summary(groups[CEILING], {})
    results = {name: controls.summary(found, ceiling) for name, found in groups.items()}
    table = [
        (name, *(f"{figures[column]:.3g}" if column in figures else "-" for column in COLUMNS))
        for name, figures in results.items()
    ]
    text = markdown(("control, strength", *(column.replace("_", " ") for column in COLUMNS)), table)
    with aside(out / "sheet.png") as unfinished:
        contact_sheet(shown, max_frames=9, scale=1).save(unfinished)
    write_atomic(out / "results.md", f"{text}\n\nModel {follows.bundle.hash}, {len(groups[CEILING])} clips.\n".encode())
    write_atomic(out / "results.json", json_module.dumps(results | asked, indent=2).encode())
    console.print(text)
    cli.finish({"results": results, "clips": len(groups[CEILING]), "out": out, **asked}, json)


if __name__ == "__main__":
    cli.run(main)
