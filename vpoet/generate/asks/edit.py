"""A clip drawn again under another prompt (`vpoet.generate.edit`), all of it or where a mask is white."""

import warnings
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from vpoet.arrays import Mask
from vpoet.data.painting import cells_of, grown
from vpoet.errors import PromptError, VpoetWarning
from vpoet.generate.asks.base import Ask, sources, unknown_words
from vpoet.generate.asks.painting import BLACK, white
from vpoet.generate.edit import Redraw
from vpoet.generate.kept_codes import Source, recorded, recorded_prompt
from vpoet.generate.observe import fit, observe
from vpoet.generate.request import AUTO, Request
from vpoet.media.video import Video, at_rate
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document
from vpoet.sequence.tasks import TABLE


class Edit(Ask):
    takes = frozenset({"edit", "was", "strength", "mask"})

    @staticmethod
    def claims(request: Request) -> str | None:
        given = [*sources(request), *(["outpaint"] if request.outpaint is not None else [])]
        if request.edit is not None and given:
            raise PromptError(f"edit and {given[0]} are given: edit a clip, or make another from it")
        return None if request.edit is None else "t2v"

    def arrange(self, task: str) -> tuple[Sample, str, Given]:
        source = self.source()
        return observe(self.bundle, source.codes, source.fps, self.request.prompt, 0)

    def source(self) -> Source:
        """The clip's codes: those that it was sampled with, where they are known, or else as it is encoded.

        PromptError: known codes are of another size than asked for. The errors and warnings are those of `recorded` and
        `fit`.
        """
        request, clip = self.request, self.request.edit
        assert clip is not None
        known = clip if isinstance(clip, Source) else None
        if isinstance(clip, str | Path):
            known = recorded(clip, self.tokenizer)
        if known is not None:
            t, h, w = known.codes.shape
            s = self.tokenizer.stride[1]
            there = {"frames": self.tokenizer.frames(t), "height": s * h, "width": s * w, "fps": round(known.fps)}
            for name, has in there.items():
                if (asked := getattr(request, name)) not in (None, has):
                    raise PromptError(f"{name} = {asked}: the clip that is edited has {has}; an edit keeps its size")
            return known
        assert not isinstance(clip, Source)
        fitted = fit(
            self.bundle, clip, frames=request.frames, height=request.height, width=request.width, fps=request.fps
        )
        if fitted.changes:
            told = "the clip" if isinstance(clip, Video) else clip
            warnings.warn(f"{told}: edited {', '.join(fitted.changes)}", VpoetWarning, stacklevel=2)
        return Source(self.tokenizer.encode(fitted.video), fitted.video.fps)

    def was(self) -> str:
        """What the clip shows. PromptError: nobody says it, or not in words that the model knows."""
        request, told = self.request, self.request.was
        if told is None:
            clip = request.edit
            told = clip.prompt if isinstance(clip, Source) else None
            if isinstance(clip, str | Path):
                told = recorded_prompt(clip)
            if told is None:
                raise PromptError(
                    "was: no record beside the clip says what it shows; tell it (--was 'a robot walks left'), or let "
                    f"the model find it (--was {AUTO})"
                )
        if strange := unknown_words(told, self.bundle):
            raise PromptError(
                f"was = {told!r}: words that this model never met: {', '.join(strange)}; leave "
                "them out, or let it find its own (--was auto)"
            )
        return told

    def redraw(self, document: Document) -> Redraw:
        """What takes the place of the seed of the request's document. The errors are those of `was` and `cells`."""
        codes = document.codes()
        fps = max(span.fps for span in document.spans)
        sample, task, given = observe(self.bundle, codes, fps, self.was(), 0)
        source = replace(TABLE[task].document(sample, given), controls=document.controls)
        return Redraw(source, self.cells(codes.shape, fps), self.request.strength or 0.0, self.request.seed)

    def cells(self, grid: tuple[int, int, int], fps: float) -> Mask:
        """The cells that may change: those of which the mask touches a pixel. PromptError: it is black, or of another
        length."""
        if self.request.mask is None:
            return np.ones(grid, np.bool_)
        (t, h, w), s = grid, self.tokenizer.stride[1]
        frames = self.tokenizer.frames(t)
        mask = white(islice(at_rate(self.request.mask, fps or 1, behind=BLACK), frames), frames)
        if len(mask) not in (1, frames):
            raise PromptError(
                f"the mask has {len(mask)} frames, and the clip {frames}: give one for each, or a single one"
            )
        return cells_of(np.broadcast_to(grown(mask, s * h, s * w), (frames, s * h, s * w)), self.tokenizer.stride)
