"""The page of a demo: the whole chain in one folder, as train/demo.sh fills it."""

import json
from pathlib import Path

from vpoet.data.folder import read_samples
from vpoet.errors import DataError
from vpoet.evaluate.page.curves import learning_panels
from vpoet.evaluate.page.html import Picture, Section, Table
from vpoet.evaluate.plots import panels_figure, save
from vpoet.evaluate.previews import likeness
from vpoet.media.video import Video
from vpoet.training.run.folder import METRICS
from vpoet.training.run.tracking import read_numbers

STAGES = "stages.jsonl"


def demo_sections(folder: Path, scratch: Path) -> list[Section]:
    """What is drawn for it goes to ``scratch``. DataError if the folder is no demo's."""
    if not (folder / STAGES).is_file():
        below = ", ".join(str(path.parent) for path in sorted(folder.glob(f"*/{METRICS}")))
        remedy = f"give it one of the runs below: {below}" if below else "give it the folder of either"
        raise DataError(
            f"{folder}: neither a training run, which has a {METRICS}, nor a demo, which has a {STAGES}; {remedy}"
        )
    return [
        *_samples(folder, scratch),
        *_reconstructions(folder),
        *_learning(folder, scratch),
        *_clips(folder),
        _stages(folder / STAGES),
    ]


def _stages(path: Path) -> Section:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        lines = [[str(row["stage"]), f"{row['seconds']} s", str(row["command"]), str(row["result"])] for row in rows]
        minutes = sum(row["seconds"] for row in rows) / 60
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run the demo again") from None
    table = Table(["stage", "took", "command", "result"], lines)
    return Section("What ran", [f"{minutes:.0f} minutes in all, from no data to these samples.", table])


def _samples(folder: Path, scratch: Path) -> list[Section]:
    """Each sample beside the held-out clip whose caption shares most words with the prompt."""
    prompts, samples = folder / "samples/prompts.txt", folder / "samples"
    if not prompts.exists():
        return []
    real = _held_out(folder)
    rows: list[list[Picture]] = []
    for index, prompt in enumerate(prompts.read_text().splitlines()):
        caption, payload = max(real, key=lambda clip: likeness(prompt, clip[0]))
        path = scratch / f"real-{index}.mp4"
        Video.read(payload).write(path)  # again, in a form that browsers play: shards may be lossless
        rows.append([Picture(samples / f"sample-{index}.mp4", f"sampled: {prompt}"), Picture(path, f"real: {caption}")])
    note = "Sampled from the prompt alone; beside it the held-out clip whose caption comes nearest to the prompt."
    return [Section("Samples", [note, *rows])]


def _held_out(folder: Path) -> list[tuple[str, bytes]]:
    """(caption, video file) of every held-out clip, once for each of its captions."""
    samples = read_samples(folder / "raw" / "heldout", required=("json", "mp4"))
    return [(caption, sample.parts["mp4"]) for sample in samples for caption in sample.captions]


def _reconstructions(folder: Path) -> list[Section]:
    path = folder / "reconstructions.png"
    note = "Held-out clips, and what is left of them after the video tokenizer: to codes and back."
    return [Section("Through the tokenizer", [note, [Picture(path)]])] if path.exists() else []


def _learning(folder: Path, scratch: Path) -> list[Section]:
    """The curves of each part that was trained: losses and scores, no speeds."""
    sections = []
    for path in sorted(folder.glob(f"*/{METRICS}")):
        picture = scratch / f"{path.parent.name}.svg"
        rows = read_numbers(path)
        save(panels_figure(learning_panels(rows)), picture)
        sections.append(Section(f"Learning: {path.parent.name}", [[Picture(picture, f"{rows[-1]['step']:,} steps")]]))
    return sections


def _clips(folder: Path) -> list[Section]:
    pictures = sorted((folder / "raw").glob("*.png"))
    rows = [[Picture(path, f"{path.stem} clips, a row each")] for path in pictures]
    return [Section("The clips", rows)] if rows else []
