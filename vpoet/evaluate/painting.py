"""What a model makes of the context that in- and outpainting give it: bits of hidden codes with it and without.

The hidden cells of a clip are scored three times, each given those of the cells before it, too:

    training    in the document of training: what `vpoet encode --paintings` keeps of the clip in token shards
    sampling    in the document that `vpoet sample` makes: of the pixels and a mask, or of what a border leaves of them
    t2v         in text to video, with the same text: the cells before are known, what comes behind is not

A context that helps makes the first two cheaper than the third. They are alike if training shows what sampling gives.
Where it can help most is the first cell of time, before which text to video knows nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vpoet.arrays import Floats, Frames, Ints, Mask
from vpoet.data.painting import draw_mask, from_npz, scaled, shown_codes, to_npz
from vpoet.generate.model import Model
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Painting, Sample
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import PAINTED, TABLE

WAYS = ("training", "sampling", "t2v")
FIRST = "first"


def costs(model: Model, frames: Frames, caption: str, seed: Sequence[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each of `PAINTED`, with a part of frames uint8 [T, H, W, 3] hidden: the number of hidden ``cells``, and the
    bits of all of them together in each of `WAYS`; under `FIRST` the same of the first cell of time alone. What is
    hidden is a function of ``seed`` and the task."""
    coder, config = model.bundle.video, model.bundle.config
    whole = coder.encode(frames)
    sample = Sample(np.array(model.bundle.text.encode(caption), np.int32), whole, config.fps)
    for task in PAINTED:
        mask = draw_mask(task, whole.shape, coder.stride, np.random.default_rng([*seed, PAINTED.index(task)]))
        shown, hidden = shown_codes(*scaled(frames, mask, *frames.shape[1:3]), coder)
        kept = from_npz(to_npz(Painting(task, hidden, shown)), task, whole.shape)
        documents = [
            TABLE[task].document(sample, Given(hidden=kept.hidden, shown=kept.shown)),
            filled(model.document(asked(task, frames, mask, caption, config.fps)), whole),
            TABLE["t2v"].document(sample),
        ]
        found = [np.where(hidden, one.cells, 0) / np.log(2) for one in model.likelihoods(documents)]
        yield task, _row(hidden, found) | {FIRST: _row(hidden[:1], [bits[:1] for bits in found])}


def _row(hidden: Mask, found: Sequence[Floats]) -> dict[str, float]:
    return {"cells": int(hidden.sum()), **{way: float(bits.sum()) for way, bits in zip(WAYS, found, strict=True)}}


def asked(task: str, frames: Frames, mask: Mask, caption: str, fps: int) -> Request:
    """The request by which one samples what the mask [T, H, W] hides."""
    if task == "inpainting":
        white = mask[..., None].repeat(3, axis=-1).astype(np.uint8) * np.uint8(255)
        return Request(prompt=caption, video=Video(frames, fps), mask=Video(white, fps))
    down, across = (np.flatnonzero(~mask[0].all(axis=axis)) for axis in (1, 0))
    top, bottom, left, right = int(down[0]), int(down[-1]) + 1, int(across[0]), int(across[-1]) + 1
    height, width = mask.shape[1:]
    return Request(
        prompt=caption,
        video=Video(frames[:, top:bottom, left:right], fps),
        outpaint=(left, top, width - right, height - bottom),
    )


def filled(blank: Document, whole: Ints) -> Document:
    """The document of a painting, whose target is blank in the hidden cells, with the codes [t, h, w] of the clip."""
    *before, target = blank.spans
    (hidden,) = (span.hidden for span in before if span.hidden is not None)
    return replace(blank, spans=(*before, replace(target, values=np.where(hidden, whole, target.values))))


def later(row: dict[str, Any]) -> dict[str, float]:
    """A row of `costs` without the first cell of time."""
    return {name: row[name] - row[FIRST][name] for name in ("cells", *WAYS)}


def saved(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Bits of a hidden cell in each of `WAYS`; by what share the context of sampling makes it cheaper than t2v, and by
    what share of its own cost it differs from that of training."""
    cells = sum(row["cells"] for row in rows)
    bits = {way: sum(row[way] for row in rows) / cells for way in WAYS}
    apart = abs(bits["sampling"] - bits["training"]) / bits["sampling"]
    return bits | {"saved": 1 - bits["sampling"] / bits["t2v"], "apart": apart, "cells": cells}
