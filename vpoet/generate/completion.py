"""Completions: texts, images and videos in any order, some given and the others to be made, of a model that was trained
on such (`interleaved`).

    [{"text": "a robot"}, {"image": "robot.png"}, {"text": None}, {"video": None, "frames": 17}]

A segment says one of text, image and video: what is given, or None for what is to be made. They are those of training
(`vpoet.data.segments`).
"""

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vpoet.bundle import Bundle
from vpoet.errors import PromptError, ShapeError, VpoetError
from vpoet.generate.observe import fit
from vpoet.generate.plan import Decoded
from vpoet.media.video import Video
from vpoet.sequence.document import Document, Span, build
from vpoet.sequence.tasks import TABLE
from vpoet.sequence.vocabulary import Modality

Segment = Mapping[str, Any]
TASK = TABLE["interleaved"]


@dataclass(frozen=True, eq=False, slots=True)
class Completion:
    """All segments, in order: those that were made, and those that were given as the model saw them."""

    parts: tuple[str | Video, ...]
    decoded: Decoded


def document(bundle: Bundle, segments: Items[Segment], longest: int) -> Document:
    """The segments as one document, blank where they are to be made, a text of ``longest`` pieces at most.

    PromptError: the model can't serve it, or a segment says nothing that can be made or given. DataError, ShapeError: a
    file that can't be read, a size or length that the tokenizer or the model can't make.
    """
    if TASK.name not in bundle.config.tasks:
        trained = ", ".join(bundle.config.tasks)
        raise PromptError(f"this model was not trained for {TASK.name} ({TASK.meaning}); it was for {trained}")
    if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= bundle.config.length:
        raise PromptError(f"longest = {longest!r}: a text is 1 to {bundle.config.length} pieces")
    spans = []
    for number, segment in enumerate(segments):
        try:
            spans.append(_span(bundle, segment))
        except VpoetError as error:
            raise type(error)(f"segment {number}: {error}") from None
    if not any(span.target for span in spans):
        raise PromptError("nothing is to be made: let a segment's text, image or video be None (null in JSON)")
    found = Document(TASK.name, tuple(spans))
    texts = sum(span.target and span.modality is Modality.TEXT for span in spans)
    tokens = len(build(found, bundle.transformer.vocabulary)) + longest * texts
    if tokens > bundle.config.length:
        raise ShapeError(
            f"the segments take {tokens} tokens, and this model was trained on at most {bundle.config.length}: give or "
            f"ask for less, or for texts shorter than {longest} pieces (longest)"
        )
    return found


def parts(bundle: Bundle, filled: Document) -> tuple[str | Video, ...]:
    """The segments of a filled document, as people read and see them."""
    return tuple(
        bundle.text.decode(span.values.tolist())
        if span.modality is Modality.TEXT
        else Video(bundle.video.decode(span.values), float(span.fps))
        for span in filled.spans
    )


def _span(bundle: Bundle, segment: Segment) -> Span:
    kinds = [kind for kind in map(str, (Modality.TEXT, Modality.IMAGE, Modality.VIDEO)) if kind in segment]
    if len(kinds) != 1 or not segment.keys() <= {*kinds, "frames"} or ("frames" in segment and kinds != ["video"]):
        raise PromptError("says one of text, image and video, and of a video how many frames, and nothing else")
    (kind,), config = kinds, bundle.config
    given, frames = segment[kind], segment.get("frames")
    if kind == "text":
        if not isinstance(given, str | None):
            raise PromptError(f"a text is given as one, not as {given!r}")
        return Span(Modality.TEXT, np.array(bundle.text.encode(given or ""), np.int32), given is None)
    if (
        not isinstance(given, str | Path | Video | None)
        or isinstance(frames, bool)
        or not isinstance(frames, int | None)
    ):
        raise PromptError(f"the {kind} is a file's name, and its frames are a number; not {given!r} and {frames!r}")
    frames = 1 if kind == "image" else frames
    if given is None:
        grid = bundle.video.grid(config.frames if frames is None else frames, config.height, config.width)
        bundle.transformer.vocabulary.number(grid[0], "length")  # before there is memory for it
        codes, fps = np.zeros(grid, np.int32), float(config.fps)
    else:
        clip = fit(bundle, given, frames=frames).video
        codes, fps = bundle.video.encode(clip), clip.fps or config.fps
    if kind == "image":
        return Span(Modality.IMAGE, codes, given is None)
    return Span(Modality.VIDEO, codes, given is None, fps=round(fps))
