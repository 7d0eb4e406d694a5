"""The controls of a request: pictures as long and as large as its clip, brought or made, and their codes."""

import warnings
from collections.abc import Sequence as Items
from dataclasses import replace
from itertools import islice

import numpy as np

from vpoet.arrays import Frames
from vpoet.bundle import Bundle
from vpoet.errors import DataError, PromptError, VpoetWarning
from vpoet.generate.request import AUTO, ControlClip, Request
from vpoet.media.control import MAKERS, taken
from vpoet.media.video import Video, at_rate, resize_frame
from vpoet.sequence.arrangements import Sample
from vpoet.sequence.controls import Control


def restyles(request: Request) -> bool:
    """Whether its video is there for its controls alone."""
    return (
        any(control.clip == AUTO for control in request.control)
        and request.video is not None
        and (request.task, request.mask, request.outpaint) == (None, None, None)
    )


def coded(request: Request, bundle: Bundle, sample: Sample) -> tuple[Control, ...]:
    """The controls of a request whose clip is this sample, in codes; those of strength 0 are none.

    PromptError: the model does not read one, it is given twice, is not of the clip's length and size, or cannot be
    made. DataError: its file cannot be read.
    """
    (t, h, w), s = sample.codes.shape, bundle.video.stride[1]
    size = bundle.video.frames(t), s * h, s * w
    edited = bundle.video.decode(sample.codes) if request.edit is not None else None
    found = pictured(request, bundle, size, sample.fps, edited)
    return tuple(Control(each.kind, bundle.video.encode(each.clip), each.strength) for each in found if each.strength)


def expect_read(request: Request, bundle: Bundle) -> None:
    """PromptError: the model does not read one of the controls, or it is given twice."""
    kinds = [control.kind for control in request.control]
    known = bundle.transformer.config.controls
    for kind in kinds:
        if kind not in known:
            told = f"it reads {', '.join(known)}" if known else "it reads none"
            raise PromptError(
                f"control {kind}: this model does not read it, {told}; `vpoet finetune --controls` teaches a bundle"
            )
        if kinds.count(kind) > 1:
            raise PromptError(f"control {kind}: given twice; a clip has one of each kind")


def pictured(
    request: Request, bundle: Bundle, size: tuple[int, int, int], fps: float, edited: Frames | None = None
) -> tuple[ControlClip, ...]:
    """The controls of a request as pictures of its clip, of (frames, height, width) and a rate, 0 of an image;
    ``edited`` are the frames of the clip that is edited. The errors are those of `coded`."""
    expect_read(request, bundle)
    return tuple(
        replace(control, clip=Video(_frames(control, request, size, fps, edited), fps)) for control in request.control
    )


def cut(controls: Items[ControlClip], first: int, count: int) -> tuple[ControlClip, ...]:
    """Those of ``count`` frames of a clip, from ``first`` on."""
    found = []
    for control in controls:
        assert isinstance(control.clip, Video)
        whole = control.clip
        found.append(replace(control, clip=Video(whole.frames[first : first + count], whole.fps if count > 1 else 0)))
    return tuple(found)


def _frames(
    control: ControlClip, request: Request, size: tuple[int, int, int], fps: float, edited: Frames | None
) -> Frames:
    kind, (count, height, width) = control.kind, size
    if control.clip != AUTO:
        frames = [*islice(at_rate(control.clip, fps or 1), count + 1)]
        _expect_length(len(frames), control, size, fps, most=count)
        if (there := frames[0].shape[:2]) != (height, width):
            found, wanted = ("x".join(map(str, each)) for each in (there, (height, width)))
            raise PromptError(
                f"control {kind}: {_name(control)} has {found} pixels, and the clip {wanted}: make it of that size, or "
                f"ask for --height {there[0]} --width {there[1]}"
            )
        try:
            return taken(kind, np.stack(frames))
        except DataError as error:
            raise PromptError(
                f"control {kind}: {_name(control)} is no picture of {kind}: {error}; --video CLIP --control "
                f"{kind}={AUTO} makes one"
            ) from None
    if kind not in MAKERS:
        raise PromptError(
            f"control {kind}={AUTO}: {kind} is not made of pixels, {', '.join(MAKERS)} are; bring its file"
        )
    if edited is not None:
        return MAKERS[kind](edited)
    if not restyles(request):
        raise PromptError(
            f"control {kind}={AUTO}: of which clip? --video CLIP gives one to draw anew, and --edit CLIP one to edit; "
            "what is continued or painted on takes a control from a file"
        )
    assert request.video is not None
    whole = [resize_frame(frame, height, width) for frame in islice(at_rate(request.video, fps or 1), count + 1)]
    _expect_length(len(whole), control, size, fps)
    if len(whole) > count:
        warnings.warn(f"control {kind}={AUTO}: made of the first {count} frames only", VpoetWarning, stacklevel=2)
    return MAKERS[kind](np.stack(whole[:count]))


def _expect_length(
    found: int, control: ControlClip, size: tuple[int, int, int], fps: float, most: int | None = None
) -> None:
    """PromptError: fewer frames than the clip has, or more than ``most``."""
    if size[0] <= found <= (found if most is None else most):
        return
    more = "more" if found > size[0] else str(found)
    raise PromptError(
        f"control {control.kind}: {_name(control)} has {more} frames at {fps:g} fps, and the clip {size[0]}: they must "
        "agree; --frames asks for a clip of another length"
    )


def _name(control: ControlClip) -> str:
    return "the clip" if isinstance(control.clip, Video) else str(control.clip)
