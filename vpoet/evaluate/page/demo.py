"""The page of a chain: from clips to samples in one folder, as `vpoet chain` fills it."""

import json
from pathlib import Path

from vpoet.data.folder import read_samples
from vpoet.data.shards import MANIFEST
from vpoet.errors import DataError
from vpoet.evaluate.page.curves import learning_panels
from vpoet.evaluate.page.html import Picture, Section, Table
from vpoet.evaluate.plots import panels_figure, save
from vpoet.evaluate.previews import likeness
from vpoet.media.video import Video
from vpoet.training.run.folder import METRICS
from vpoet.training.run.tracking import read_numbers

STAGES = "stages.jsonl"
PROMPTS = "samples/prompts.txt"
"""One a line, or a JSON object with a `prompt`: those that samples/sample-0.mp4, ... were made for."""


def demo_sections(folder: Path, scratch: Path) -> list[Section]:
    """What is drawn for it goes to ``scratch``. DataError if the folder is no chain's."""
    if not (folder / STAGES).is_file():
        below = ", ".join(str(path.parent) for path in sorted(folder.glob(f"*/{METRICS}")))
        remedy = f"give it one of the runs below: {below}" if below else "give it the folder of either"
        raise DataError(
            f"{folder}: neither a training run, which has a {METRICS}, nor a chain, which has a {STAGES}; {remedy}"
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
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        lines = [[str(row["stage"]), f"{row['seconds']} s", str(row["command"]), str(row["result"])] for row in rows]
        minutes = sum(row["seconds"] for row in rows) / 60
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error!r}); run the chain again") from None
    table = Table(["stage", "took", "command", "result"], lines)
    return Section("What ran", [f"{minutes:.0f} minutes in all, from no data to these samples.", table])


def _samples(folder: Path, scratch: Path) -> list[Section]:
    """Each sample beside the real clip whose caption shares most words with the prompt: one that was held out, unless
    the caption of one that was trained on comes nearer."""
    path, samples = folder / PROMPTS, folder / "samples"
    if not path.exists():
        return []
    prompts = [prompt_of(line) for line in path.read_text("utf-8").splitlines()]
    real = _nearest(folder, prompts)
    rows: list[list[Picture]] = []
    for index, prompt in enumerate(prompts):
        side, caption, payload = real[index]
        shown = scratch / f"real-{index}.mp4"
        Video.read(payload).write(shown)  # again, in a form that browsers play: shards may be lossless
        told = f"real{' (trained on)' * (side != 'heldout')}: {caption}"
        rows.append([Picture(samples / f"sample-{index}.mp4", f"sampled: {prompt}"), Picture(shown, told)])
    note = "Sampled from the prompt alone; beside it the real clip whose caption comes nearest to the prompt."
    return [Section("Samples", [note, *rows])]


def prompt_of(line: str) -> str:
    """The prompt of a line of a file of prompts: the line, or what its JSON object says."""
    return str(json.loads(line).get("prompt", "")) if line.startswith("{") else line


def _nearest(folder: Path, prompts: list[str]) -> list[tuple[str, str, bytes]]:
    """(side, caption, video file) of the clip that is nearest to each prompt; of equals the first, held-out ones before
    all others."""
    found: list[tuple[float, tuple[str, str, bytes]] | None] = [None] * len(prompts)
    sides = [("heldout", folder / "raw/heldout"), ("train", folder / "raw/train"), ("train", folder / "raw")]
    for side, shards in sides:
        if not (shards / MANIFEST).is_file() or all(best and best[0] == 1 for best in found):
            continue
        for sample in read_samples(shards, required=("json", "mp4")):
            for caption in sample.captions:
                for index, prompt in enumerate(prompts):
                    near, best = likeness(prompt, caption), found[index]
                    if best is None or near > best[0]:
                        found[index] = near, (side, caption, sample.parts["mp4"])
    if None in found:
        raise DataError(f"{folder / 'raw'}: no captioned clips there to show beside the samples")
    return [best[1] for best in found if best]


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
