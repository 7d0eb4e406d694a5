"""What a person may ask of the server: JSON with the fields of a request, checked before anything is made of it.

    {"model": "platformer-64", "prompt": "a robot jumps", "image": "ID OF AN UPLOAD", "seed": 3, "count": 4, "cfg": 2}

Fields are those of `Request` and `Sampling`, written as in a prompt file, files as ids of uploads. Bounds that a model
does not have of itself are the server's.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass
from typing import Any

from vpoet.errors import PromptError
from vpoet.generate.asks.base import frame_size
from vpoet.generate.asks.table import family
from vpoet.generate.fields import about, check, declared, those_of, unknown
from vpoet.generate.fields import written as written_as
from vpoet.generate.model import Model
from vpoet.generate.prompt_file import expect_types, read_texts
from vpoet.generate.request import AUTO, Request
from vpoet.generate.rollout import windows
from vpoet.generate.sampling import Sampling
from vpoet.serve.history import History
from vpoet.serve.uploads import Uploads, readings

COUNT = 16
"""Seeds of one request."""
WORDS = 2000
"""Characters of a prompt, and of each of a story."""
CHANGES = 64
"""Of a story's prompt."""
LARGEST_SEED = 2**32 - 1
MOST_BYTES, MOST_FRAMES = 256 << 20, 20_000
"""Of a clip's frames, and how many."""
CLIPS = ("image", "last", "video", "mask", "edit")
"""The fields whose value is a file; what is edited may be a clip that was made here, too."""
PLAIN = (
    "prompt", "task", "outpaint", "was", "strength", "given_frames", "via_image", "story", "frames", "window",
    "overlap", "height", "width", "fps", "seed", "motion", "quality",
)  # fmt: skip
"""The other fields that are served. A new field of `Request` is not, before somebody has looked at what it reads."""
OWN = ("model", "count")


@dataclass(frozen=True, eq=False)
class Order:
    """One clip that is asked for."""

    model: str
    asked: dict[str, Any]
    """As it was written, with the seed of this clip."""
    request: Request
    """With ids in the place of files."""
    sampling: Sampling


def orders(told: Any, models: Mapping[str, Model], uploads: Uploads, history: History) -> list[Order]:
    """One for each seed. PromptError says what is wrong, and DataError and ShapeError which sizes there are."""
    if not isinstance(told, dict):
        raise PromptError("ask with a JSON object")
    told = {name: value for name, value in told.items() if value is not None}
    known = fields_served()
    names = {also: name for name, field in known.items() for also in (name, about(field).alias) if also}
    for name in told:
        if name not in (*OWN, *names):
            raise PromptError(unknown(name, [*OWN, *names], "field"))
    model_name, count = told.get("model", next(iter(models))), told.get("count", 1)
    if not isinstance(model_name, str) or model_name not in models:
        raise PromptError(f"no such model; there are {', '.join(models)}")
    if type(count) is not int or not 1 <= count <= COUNT:
        raise PromptError(f"count: 1 to {COUNT} clips")
    values = {names[name]: value for name, value in told.items() if name not in OWN}
    values = {
        name: float(value) if written_as(known[name]) is float and type(value) is int else value
        for name, value in values.items()
    }
    expect_types(values, known)
    _expect_bounds(values, uploads, history)
    model = models[model_name]
    request = Request(**read_texts(those_of(Request, values)))
    sampling = model.sampling(**those_of(Sampling, values))
    _expect_served(request, model, values)
    found = []
    for i in range(count):
        asked = {**values, "model": model_name, "seed": request.seed + i}
        each = Request(**{**read_texts(those_of(Request, values)), "seed": request.seed + i})
        found.append(Order(model_name, asked, each, sampling))
    return found


def fields_served() -> dict[str, Field[Any]]:
    """The fields of requests and of the sampling that can be asked for."""
    plain = {name: field for name, field in declared(Request).items() if name in (*CLIPS, *PLAIN)}
    return plain | declared(Sampling)


def _expect_bounds(values: Mapping[str, Any], uploads: Uploads, history: History) -> None:
    texts = [values.get("prompt", ""), values.get("was", ""), *values.get("story", ())]
    if len(texts) > 2 + CHANGES or any(not isinstance(text, str) or len(text) > WORDS for text in texts):
        raise PromptError(f"a prompt has at most {WORDS} characters, and a story {CHANGES} changes of it")
    if not 0 <= values.get("seed", 0) <= LARGEST_SEED - COUNT:
        raise PromptError(f"seed: 0 to {LARGEST_SEED - COUNT}")
    for name in CLIPS:
        if name not in values or uploads.about(values[name]) is not None:
            continue
        if name != "edit" or history.about(values[name]) is None:
            raise PromptError(f"{name}: no such upload; send the file first, or again")
    if values.get("was") == AUTO:
        raise PromptError("was: tell what the clip shows; to find it takes the machine from all others here")


def _expect_served(request: Request, model: Model, values: Mapping[str, Any]) -> None:
    """What can be told before any file is read."""
    bundle = model.bundle
    check(request)
    _, task = family(request)
    readings(values, bundle.config, bundle.video.stride[0])
    height, width = frame_size(request, bundle)
    if (request.frames or bundle.config.frames) * height * width * 3 > MOST_BYTES:
        raise PromptError(f"a clip's frames may take {MOST_BYTES >> 20} MB here: ask for fewer, or smaller ones")
    if (request.frames or 0) > MOST_FRAMES:
        raise PromptError(f"frames = {request.frames}: a clip may have {MOST_FRAMES:,} here")
    windows(request, bundle)
    if task == "t2v" and request.edit is None:
        model.rollout(request)
