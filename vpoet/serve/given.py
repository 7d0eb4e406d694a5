"""The files of a request: read so that its clip is the one that the command line makes of them."""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

from vpoet.arrays import Frames
from vpoet.bundle import BundleConfig
from vpoet.data.tiles import FINER
from vpoet.errors import DataError, PromptError
from vpoet.generate.asks.control import restyles
from vpoet.generate.asks.painting import BLACK
from vpoet.generate.kept_codes import Source, fits
from vpoet.generate.model import Model
from vpoet.generate.observe import rescaled
from vpoet.generate.request import AUTO, Request
from vpoet.media.video import Video
from vpoet.serve.history import History
from vpoet.serve.reader import Reading
from vpoet.serve.served import CLIPS, controls_of, files_of
from vpoet.serve.uploads import Uploads

MOST_BYTES = 128 << 20
"""Of the frames of all files of a request."""
MOST_FINER = 64 << 20
"""Of the frames that super-resolution makes: they are held as numbers of four bytes."""


@dataclass(frozen=True, eq=False, slots=True)
class Given:
    """What was read for a request."""

    clips: dict[str, Video | Source] = field(default_factory=dict)
    """By the names of `files_of`."""
    warnings: tuple[str, ...] = ()
    """What was done to it that who asks may not expect."""


def readings(request: Request, config: BundleConfig, stride: int, edited: float | None = None) -> dict[str, Reading]:
    """How each file has to be read; ``edited`` is the rate of the clip that is edited, where it is known. PromptError:
    a number that can be no size or rate."""
    height, width = request.height or config.height, request.width or config.width
    fps = request.fps or config.fps
    if not (0 < height <= 4096 and 0 < width <= 4096 and 0 < fps <= 240):
        raise PromptError("height and width are 1 to 4096 pixels here, and fps 1 to 240")
    painting = request.mask is not None or request.outpaint is not None
    size = None if painting else (height, width)
    frames = request.frames or config.frames
    most = frames if painting else 0
    between = stride if request.task == "interpolation" else 0
    still = request.image is not None
    # one more than it may have, so that it is known whether any is left out
    whole = Reading(fps=1 if frames == 1 else fps, most=frames + 1)
    followed = replace(whole, most=0) if between else replace(whole, fps=1) if still and painting else whole
    each = {
        "image": Reading(size=size),
        "last": Reading(size=size),
        "video": Reading(fps=fps, size=size, most=most, between=between),
        "mask": Reading(fps=1 if still else fps, most=most, behind=BLACK),
        "edit": Reading(fps=fps, size=(height, width), most=frames + 1),
        **dict.fromkeys(controls_of(request), followed),
    }
    if request.upscale:
        each |= {"image": Reading(), "video": Reading(fps=fps, most=request.frames or 0)}
    if restyles(request):
        each["video"] = replace(whole, size=size)
    if request.edit is not None:
        as_long = Reading(fps=edited or 1)
        each |= {"mask": replace(as_long, behind=BLACK), **dict.fromkeys(controls_of(request), as_long)}
    return {name: each[name] for name in files_of(request)}


async def read(request: Request, model: Model, uploads: Uploads, history: History) -> Given:
    """All that is given to a request: the clip that it edits first, whose rate is that of its mask and controls.
    DataError: a file is here no more, cannot be read, or they take too much memory."""
    config, stride, names = model.bundle.config, model.bundle.video.stride[0], files_of(request)
    needed, found, warnings = readings(request, config, stride), dict[str, Video | Source](), list[str]()
    if "edit" in needed:
        edited = found["edit"] = await _edited(names["edit"], needed["edit"], model, uploads, history)
        if isinstance(edited, Source):
            rate = round(edited.fps)
        else:
            rate = (request.fps or config.fps) if len(edited) > 1 else 0
            warnings += _changes(uploads.about(names["edit"]), needed["edit"])
        needed = readings(request, config, stride, rate)
        del needed["edit"]
    for name, reading in needed.items():
        found[name] = await uploads.read(names[name], reading)
        held = sum(clip.frames.nbytes for clip in found.values() if isinstance(clip, Video))
        if held > MOST_BYTES:
            raise DataError(f"the files of a request may take {MOST_BYTES >> 20} MB together, decoded: send less")
    if request.upscale:
        _expect_small(request, *(clip.frames for clip in found.values() if isinstance(clip, Video)))
    return Given(found, tuple(warnings))


def _expect_small(request: Request, coarse: Frames) -> None:
    """Of what is made finer."""
    count, height, width = coarse.shape[:3]
    size = (request.height or FINER * height) * (request.width or FINER * width)
    if count * size * 3 > MOST_FINER:
        raise DataError(f"upscale: finer frames may take {MOST_FINER >> 20} MB here: send fewer, or smaller ones")


async def _edited(name: str, reading: Reading, model: Model, uploads: Uploads, history: History) -> Video | Source:
    """A clip that was made here or sent, as its codes where they are known, and as its frames elsewhere. DataError: it
    is here no more, or its codes are another tokenizer's."""
    if (about := uploads.about(name)) is None:
        return await asyncio.to_thread(history.source, name, model.bundle.video)
    if about["kind"] != "codes":
        return await uploads.read(name, reading)
    source = await uploads.read_codes(name)
    if about["decoder"] != model.bundle.video.hash or not fits(source, model.bundle.video):
        raise DataError("edit: the codes of another video tokenizer than this model's: send the clip itself")
    return source


def _changes(about: dict[str, Any] | None, reading: Reading) -> list[str]:
    """What reading a clip that is edited does to it."""
    if about is None:  # it was made here, and is brought to its size where it is edited
        return []
    assert reading.size is not None
    changes = rescaled((about["height"], about["width"]), reading.size, about["fps"], reading.fps)
    return [f"the clip: edited {', '.join(changes)}"] if changes else []


def recorded(request: Request, uploads: Uploads) -> dict[str, Any]:
    """What a record of the clip says of the files, which have no name here."""
    names = files_of(request)
    by_content = {name: {"sha256": (uploads.about(given) or {}).get("sha256", "")} for name, given in names.items()}
    found: dict[str, Any] = {name: by_content[name] for name in CLIPS if name in names}
    if request.control:
        found["control"] = [
            {"kind": each.kind, "clip": by_content.get(name, AUTO), "strength": each.strength}
            for name, each in controls_of(request).items()
        ]
    return found
