"""Tell whether in- and outpainting use their context: bits of hidden codes with it and without."""

import hashlib
import json as json_module
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track

from vpoet import cli
from vpoet.bundle import SHIPPED
from vpoet.data.folder import read_videos
from vpoet.errors import ConfigError, DataError
from vpoet.evaluate.painting import FIRST, WAYS, costs, later, saved
from vpoet.evaluate.rows import rows_done
from vpoet.evaluate.tables import markdown
from vpoet.files import write_atomic
from vpoet.generate.model import load
from vpoet.generate.observe import fit
from vpoet.outputs import expect_folder
from vpoet.sequence.tasks import PAINTED

console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def main(
    clips: Annotated[Path, typer.Option(metavar="RAW", help="Raw shards not trained on.")],
    out: Annotated[Path, typer.Option(help="Folder for rows.jsonl, results.md and results.json.")],
    model: Annotated[Path, typer.Option(help="Bundle folder. The default ships.", show_default=False)] = SHIPPED,
    count: Annotated[int, typer.Option(help="Clips at most.", min=1, max=1_000_000)] = 64,
    seed: Annotated[int, typer.Option(help="Draws what is hidden.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Tell whether in- and outpainting use their context: bits of hidden codes with it and without.

    A part of each clip is hidden, as training does it. The hidden codes are scored by what training shows of the clip,
    by what `vpoet sample --mask` and `--outpaint` show, and as text to video: each given the prompt and all codes
    before it. Reported are bits a code, by which share the context makes it cheaper than text to video (saved), and by
    which share sampling and training differ (apart); of both tasks once more for the clip's first cell of time, before
    which text to video knows nothing, and for the later ones. Clips are brought to the model's size, rate and length.

    In OUT, rows.jsonl has a line for each clip and task as it is done; the same command again goes on behind the last.

    Examples:

        vpoet evaluate-painting --clips runs/platformer/raw/heldout --out runs/painted
        vpoet evaluate-painting --model runs/controls/bundle --clips runs/controls/raw/heldout --count 200 --out o
    """
    expect_folder(out)
    painter = load(model, device)
    if lacking := [task for task in (*PAINTED, "t2v") if task not in painter.bundle.config.tasks]:
        raise ConfigError(f"{model}: not trained for {', '.join(lacking)}; a recipe's data.tasks names what is trained")
    # by content, too: shards of other clips have the same keys
    samples = {
        f"{sample.key} {hashlib.sha256(sample.video).hexdigest()[:16]}": (sample, video)
        for sample, video in islice(read_videos(clips), count)
    }
    if not samples:
        raise DataError(f"{clips}: no clip can be decoded")
    cli.hold(out)
    asked = {"model": painter.bundle.hash, "seed": seed}
    rows = rows_done(out / "rows.jsonl", asked, _clip_and_task)
    with (out / "rows.jsonl").open("a") as lines:
        for number, clip in enumerate(track(samples, "clips", console=console)):
            if all((clip, task) in rows for task in PAINTED):
                continue
            sample, video = samples[clip]
            caption = sample.captions[0] if sample.captions else ""
            frames = fit(painter.bundle, video).video.frames
            for task, figures in costs(painter, frames, caption, (seed, number)):
                rows[clip, task] = {"clip": clip, "task": task, **figures, **asked}
                lines.write(json_module.dumps(rows[clip, task]) + "\n")
                lines.flush()
    results = {task: saved([rows[clip, task] for clip in samples]) for task in PAINTED}
    both = [rows[clip, task] for clip in samples for task in PAINTED]
    parts = {
        "both": both,
        "both, the first cell of time": [row[FIRST] for row in both],
        "both, the later ones": list(map(later, both)),
    }
    results |= {name: saved(some) for name, some in parts.items() if any(row["cells"] for row in some)}
    table = [
        (task, *(f"{found[way]:.3f}" for way in WAYS), *(f"{found[name]:.1%}" for name in ("saved", "apart")))
        for task, found in results.items()
    ]
    text = markdown(("bits of a hidden code", *WAYS, "saved", "apart"), table)
    write_atomic(out / "results.md", f"{text}\n\nModel {painter.bundle.hash}, {len(samples)} clips.\n".encode())
    write_atomic(out / "results.json", json_module.dumps(results | asked, indent=2).encode())
    console.print(text)
    cli.finish({"results": results, "clips": len(samples), "out": out, **asked}, json)


def _clip_and_task(row: Mapping[str, Any]) -> tuple[str, str]:
    row[FIRST]  # without it, a row is of an earlier revision: a KeyError, and it is made again
    return str(row["clip"]), str(row["task"])


if __name__ == "__main__":
    cli.run(main)
