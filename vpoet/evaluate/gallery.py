"""A gallery of what a bundle makes of clips of the platformer: a row for each control, edit and painting.

What is given in a row is drawn by the world, from numbers that nobody trained on (`vpoet.evaluate.controls.clips`).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.painting import draw_mask
from vpoet.evaluate.controls import OTHERWISE, Clip, clips
from vpoet.evaluate.page.html import Part, Picture, Section, write_report
from vpoet.evaluate.painting import asked
from vpoet.generate.model import Model
from vpoet.generate.request import ControlClip, Request
from vpoet.media.video import Video
from vpoet.sequence.tasks import PAINTED

SECTIONS = {
    "Controls": "The control, the clip that it was made of, a sample for that clip's prompt, and one for another.",
    "Edits": "The clip that is edited, and it under a prompt that says one thing otherwise; where the model reads "
    "controls, once more under one of them.",
    "In- and outpainting": "The clip, what of it is shown, and a sample.",
}
"""Titles, with what is seen in a row from left to right."""
_HIDDEN = 255


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """What is given, and the samples that are asked for."""

    section: str
    """A key of `SECTIONS`."""
    name: str
    given: tuple[tuple[str, Frames], ...]
    """Each with the words below it."""
    requests: tuple[Request, ...]


def rows(model: Model, count: int) -> list[Row]:
    """``count`` rows for every control that the model reads, for each of `OTHERWISE`, and for each of `PAINTED` that it
    was trained for. The errors are those of `clips`."""
    kinds = model.bundle.transformer.config.controls
    painted = [task for task in PAINTED if task in model.bundle.config.tasks]
    fps, stride = model.bundle.config.fps, model.bundle.video.stride
    found = []
    for clip in clips(model, kinds, count):
        found += [_controlled(clip, kind, fps) for kind in kinds]
        found += [_edited(clip, name, kinds, fps) for name in OTHERWISE]
        found += [_painted(clip, task, stride, fps) for task in painted]
    return sorted(found, key=lambda row: ([*SECTIONS].index(row.section), row.name))


def _controlled(clip: Clip, kind: str, fps: int) -> Row:
    control = (ControlClip(kind, Video(clip.controls[kind], fps)),)
    prompts = clip.prompt(False), clip.prompt(True)
    given = (kind, clip.controls[kind]), ("the clip", clip.frames)
    requests = tuple(Request(prompt=prompt, control=control, seed=clip.number) for prompt in prompts)
    return Row("Controls", kind, given, requests)


def _edited(clip: Clip, name: str, kinds: Sequence[str], fps: int) -> Row:
    plain = Request(prompt=clip.edited(name), edit=Video(clip.frames, fps), was=clip.prompt(), seed=clip.number)
    led = [replace(plain, control=(ControlClip(kind, Video(clip.controls[kind], fps)),)) for kind in kinds[-1:]]
    return Row("Edits", f"another {name}", ((clip.prompt(), clip.frames),), (plain, *led))


def _painted(clip: Clip, task: str, stride: tuple[int, int, int], fps: int) -> Row:
    count, height, width = clip.frames.shape[:3]
    grid = 1 + (count - 1) // stride[0], height // stride[1], width // stride[2]
    mask = draw_mask(task, grid, stride, np.random.default_rng(clip.number))
    shown = np.where(mask[..., None], np.uint8(_HIDDEN), clip.frames)
    request = replace(asked(task, clip.frames, mask, clip.prompt(), fps), seed=clip.number)
    return Row("In- and outpainting", task, (("the clip", clip.frames), ("what is shown", shown)), (request,))


def publish(path: Path, made: Sequence[tuple[Row, Sequence[Video]]]) -> None:
    """Write a page of rows and their samples, everything embedded."""
    sections = []
    with tempfile.TemporaryDirectory() as scratch:
        for title, about in SECTIONS.items():
            parts: list[Part] = [about]
            for number, (row, samples) in enumerate(made):
                if row.section == title:
                    told = [request.prompt for request in row.requests]
                    shown = [*row.given, *zip(told, (video.frames for video in samples), strict=True)]
                    parts += [row.name, [*_pictures(shown, samples[0].fps, Path(scratch) / str(number))]]
            sections += [Section(title, parts)] if len(parts) > 1 else []
        write_report(path, "A gallery of controls, edits and painting", sections)


def _pictures(shown: Sequence[tuple[str, Frames]], fps: float, stem: Path) -> Iterator[Picture]:
    for number, (words, frames) in enumerate(shown):
        file = stem.with_name(f"{stem.name}-{number}.mp4")
        Video(frames, fps).write(file, lossless=True)
        yield Picture(file, words)
