"""Which fields of a request a server serves, and which of them are files: what who asks and who answers both know."""

from collections.abc import Mapping
from dataclasses import Field, replace
from typing import Any

from vpoet.generate.fields import declared
from vpoet.generate.request import AUTO, ControlClip, Request
from vpoet.generate.sampling import Sampling

CLIPS = ("image", "last", "video", "mask", "edit")
"""The fields whose value is a file; what is edited may be a clip that was made here, too."""
PLAIN = (
    "prompt", "task", "outpaint", "was", "strength", "given_frames", "via_image", "story", "frames", "window",
    "overlap", "height", "width", "fps", "seed", "motion", "quality", "upscale",
)  # fmt: skip
"""The other fields that are served, beside ``control``, whose texts name files. A new field of `Request` is not, before
somebody has looked at what it reads."""


def fields_served() -> dict[str, Field[Any]]:
    """The fields of requests and of the sampling that can be asked for."""
    found = {name: field for name, field in declared(Request).items() if name in (*CLIPS, "control", *PLAIN)}
    return found | declared(Sampling)


def controls_of(request: Request) -> dict[str, ControlClip]:
    """Its controls, by ``control KIND``."""
    return {f"control {each.kind}": each for each in request.control}


def files_of(request: Request) -> dict[str, str]:
    """What a request names in the place of files: by its field, and of controls as `controls_of`."""
    found = {name: str(value) for name in CLIPS if (value := getattr(request, name)) is not None}
    return found | {name: str(each.clip) for name, each in controls_of(request).items() if each.clip != AUTO}


def with_files(request: Request, found: Mapping[str, Any]) -> Request:
    """The request with what was ``found`` by the names of `files_of`."""
    control = [replace(each, clip=found.get(name, each.clip)) for name, each in controls_of(request).items()]
    return replace(request, control=tuple(control), **{name: found[name] for name in CLIPS if name in found})
