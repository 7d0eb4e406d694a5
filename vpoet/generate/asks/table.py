"""All families of requests: which one a request is of, and the document that it comes to.

A new family is a file beside this one, and a row of `FAMILIES`.
"""

from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np

from vpoet.arrays import Frames
from vpoet.bundle import Bundle
from vpoet.errors import PromptError, ShapeError
from vpoet.generate.asks.backward import Backward
from vpoet.generate.asks.base import ROLLING, Ask
from vpoet.generate.asks.between import Between
from vpoet.generate.asks.conditions import conditions
from vpoet.generate.asks.control import coded
from vpoet.generate.asks.edit import Edit
from vpoet.generate.asks.finer import Finer
from vpoet.generate.asks.forward import Forward
from vpoet.generate.asks.painting import Painting
from vpoet.generate.asks.restyle import Restyle
from vpoet.generate.fields import check
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import Document, build
from vpoet.sequence.tasks import TABLE, WHOLE
from vpoet.tokenizer.contract import Tokenizer

FAMILIES: tuple[type[Ask], ...] = (Edit, Restyle, Painting, Finer, Forward, Backward, Between)
"""A request is of the first that claims it, or of the one whose video ``task`` names."""


def family(request: Request) -> tuple[type[Ask], str]:
    """The family that a request is of, and its task; for text to video, image, or nothing at all, ``t2v``. PromptError:
    it says different things at once."""
    claims = [(each, task) for each in FAMILIES if (task := each.claims(request))]
    if request.task is not None:
        if request.video is None or any("task" not in each.takes for each, _ in claims):
            raise PromptError("task says what becomes of a video without a mask, and no such video is given")
        tasks = [each.video_task for each in FAMILIES if each.video_task]
        if request.task not in tasks:
            raise PromptError(f"task = {request.task!r}: of a video there can be its {', '.join(tasks)}")
        claims = [(each, task) for each, task in claims if each.video_task == request.task]
    if not claims:
        raise PromptError("an image and a video are given: a clip can open or end with one of them only")
    found, task = claims[0]
    if request.given_frames is not None and (request.video is None or "given_frames" not in found.takes):
        raise PromptError("given_frames says how much of a video to continue or lead to, and no such video is given")
    claimed = frozenset[str]().union(*(each.takes for each in FAMILIES))
    for name in (field.name for field in fields(request)):
        if name in claimed - found.takes and getattr(request, name):
            why = "is made in one piece" if name in ROLLING else "has no use for it"
            raise PromptError(f"{name} is given: {task} {why}")
    return found, task


def arrange(request: Request, bundle: Bundle) -> tuple[Sample, str, Given]:
    """The request's text and clip (what is given, and blank cells), its task, and how much of the clip is given."""
    found, task = family(request)
    check(request)
    expect_whole(request, task, bundle.video)
    sample, task, given = found(request, bundle).arrange(task)
    return replace(sample, conditions=conditions(request, bundle)), task, given


def expect_whole(request: Request, task: str, tokenizer: Tokenizer) -> None:
    """PromptError: a part of the clip would be given, and the tokenizer, not causal, has codes of whole clips alone."""
    asked = [name for name in ROLLING if getattr(request, name)] if task in WHOLE else [task]
    if asked and not tokenizer.causal:
        raise PromptError(
            f"{asked[0]}: this model's video tokenizer is not causal: its first cell is {tokenizer.first} frames, as "
            "all are, so that it has no codes of an image, nor of a clip that begins with one; it makes clips whole, "
            "from text or nothing"
        )


def document(request: Request, bundle: Bundle) -> Document:
    """The request as one document whose target is blank; what makes it several is for `Rollout` to read.

    PromptError: the model can't serve it, or the prompt is too long. DataError, ShapeError: a size that the tokenizer
    or the model can't make. Those of controls are told in `vpoet.generate.asks.control.coded`.
    """
    sample, task, given = arrange(request, bundle)
    found = served(bundle, sample, task, given)
    return replace(found, controls=coded(request, bundle, sample)) if request.control else found


def served(bundle: Bundle, sample: Sample, task: str, given: Given) -> Document:
    """The document of a task; PromptError, ShapeError: the model was not trained for it, or it is too long."""
    if task not in bundle.config.tasks:
        trained = ", ".join(bundle.config.tasks)
        raise PromptError(f"this model was not trained for {task} ({TABLE[task].meaning}); it was for {trained}")
    found, length = TABLE[task].document(sample, given), bundle.config.length
    over = len(build(found, bundle.transformer.vocabulary)) - length
    if over > len(sample.text):
        t, h, w = sample.codes.shape
        raise ShapeError(
            f"{t}x{h}x{w} cells take {length + over - len(sample.text)} tokens, and this model was trained on "
            f"at most {length}: ask for fewer frames or a smaller size"
        )
    if over > 0:
        allowed = len(sample.text) - over
        raise PromptError(
            f"the prompt takes {len(sample.text)} tokens, and beside a video of this size {allowed} are allowed"
        )
    return found


def render(document: Document, bundle: Bundle, request: Request | None = None, drawn: Frames | None = None) -> Video:
    """The video of a filled document, and what belongs to the clip of its request though it was not made. ``drawn`` are
    the frames of its codes, where they are at hand."""
    made = bundle.video.decode(document.codes()) if drawn is None else drawn
    fps = max(span.fps for span in document.spans)
    return Video(made if request is None else np.concatenate([*joined(made, request, bundle)]), fps)


def joined(made: Frames, request: Request, bundle: Bundle) -> Iterator[Frames]:
    """`Ask.joined` of the request's family."""
    return family(request)[0](request, bundle).joined(made)
