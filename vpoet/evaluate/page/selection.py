"""A selection of clips as one HTML page: how many passed each stage, and pictures of what did not."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from vpoet.arrays import Frames
from vpoet.data.curate.funnel import Candidate, Stage
from vpoet.data.curate.where import conditions
from vpoet.data.shards import Manifest, read_shard
from vpoet.errors import DataError
from vpoet.evaluate.page.html import Part, Picture, Section, Table, write_report
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video

SHOWN, FRAMES = 8, 6
"""Clips of a stage, and frames of each."""
LABEL = 120
"""Characters."""


def publish(path: Path, raw: Path, stages: Sequence[Stage], kept: Sequence[Candidate]) -> None:
    """Write the page. Clips that are shown are read once more."""
    before = len(kept) + sum(len(stage.fallen) for stage in stages)
    rows = [["measured", "", str(before), "100%"]]
    rows += [[s.name, str(len(s.fallen)), str(s.after), f"{s.after / before:.1%}"] for s in stages]
    with tempfile.TemporaryDirectory() as scratch:
        sections = [Section("Funnel", [Table(["stage", "fell", "left", "of all"], rows)])]
        for number, stage in enumerate(stages):
            if stage.fallen:
                fell = f"{len(stage.fallen)} of {stage.before} clips fell. From the last that failed to the first:"
                parts = [fell, *_sheet(raw, _along(stage), stage.notes, Path(scratch) / f"{number}.png")]
                sections.append(Section(f"Fell at: {stage.name}", parts))
        parts = [f"{len(kept)} clips are kept.", *_sheet(raw, _spread(kept), {}, Path(scratch) / "kept.png")]
        sections.append(Section("Kept", parts))
        write_report(path, f"What was selected of {raw.name}", sections)


def _along(stage: Stage) -> list[Candidate]:
    """Some of those that fell, evenly along what they fell by."""
    try:
        names = conditions(stage.name)[0].names[:1]
    except DataError:  # copies, or balance
        names = ()
    values = [clip.facts.get(name) for name in names for clip in stage.fallen]
    if values and all(isinstance(value, int | float) for value in values):
        ranked = [clip for _, _, clip in sorted((v, c.row, c) for v, c in zip(values, stage.fallen, strict=True))]
        return _spread(ranked)
    return _spread(stage.fallen)


def _spread(clips: Sequence[Candidate]) -> list[Candidate]:
    count = min(SHOWN, len(clips))
    return [clips[round(at * (len(clips) - 1) / max(count - 1, 1))] for at in range(count)]


def _sheet(raw: Path, clips: Sequence[Candidate], notes: dict[int, str], path: Path) -> Iterable[Part]:
    """A contact sheet of clips, each with its note and its caption."""
    shards = Manifest.load(raw).shards
    found: dict[int, tuple[str, Frames]] = {}
    for at in sorted({clip.shard for clip in clips}):
        wanted = {clip.number: clip.row for clip in clips if clip.shard == at}
        for sample in read_shard(raw / shards[at].name):
            if sample.number in wanted:
                row = wanted[sample.number]
                told = " | ".join(filter(None, (notes.get(row, ""), (sample.captions or [sample.key])[0])))
                found[row] = (told[:LABEL], Video.read(sample.video).frames)
    contact_sheet([found[clip.row] for clip in clips if clip.row in found], FRAMES).save(path)
    return [[Picture(path)]]
