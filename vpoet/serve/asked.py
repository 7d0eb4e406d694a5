"""What a person may ask of the server: JSON with the fields of a request, checked before anything is made of it.

    {"model": "platformer-64", "prompt": "a robot jumps", "image": "ID OF AN UPLOAD", "seed": 3, "count": 4, "cfg": 2}

Fields are those of `Request` and `Sampling`, written as in a prompt file, files as ids of uploads. Bounds that a model
does not have of itself are the server's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vpoet.errors import PromptError
from vpoet.generate.asks.base import frame_size
from vpoet.generate.asks.conditions import conditions
from vpoet.generate.asks.control import expect_read
from vpoet.generate.asks.table import family
from vpoet.generate.fields import about, check, those_of, unknown
from vpoet.generate.fields import written as written_as
from vpoet.generate.model import Model
from vpoet.generate.prompt_file import expect_types, read_texts
from vpoet.generate.request import AUTO, Request
from vpoet.generate.rollout import windows
from vpoet.generate.sampling import Sampling
from vpoet.sequence.controls import KINDS
from vpoet.serve.given import readings
from vpoet.serve.history import History
from vpoet.serve.served import fields_served, files_of
from vpoet.serve.uploads import Uploads

COUNT = 16
"""Seeds of one request."""
WORDS = 2000
"""Characters of a prompt, and of each of a story."""
CHANGES = 64
"""Of a story's prompt."""
LONGEST = 200
"""Characters of a control."""
LARGEST_SEED = 2**32 - 1
MOST_BYTES, MOST_FRAMES = 256 << 20, 20_000
"""Of a clip's frames, and how many."""
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
    _expect_bounds(values)
    model = models[model_name]
    request = Request(**read_texts(those_of(Request, values)))
    sampling = model.sampling(**those_of(Sampling, values))
    _expect_files(request, uploads, history)
    _expect_served(request, model)
    seeds = range(request.seed, request.seed + count)
    return [
        Order(model_name, {**values, "model": model_name, "seed": seed}, replace(request, seed=seed), sampling)
        for seed in seeds
    ]


def _expect_bounds(values: Mapping[str, Any]) -> None:
    """What can be told before any text is read."""
    controls = values.get("control", ())
    if len(controls) > len(KINDS) or any(not isinstance(text, str) or len(text) > LONGEST for text in controls):
        raise PromptError(f"control: a clip has at most {len(KINDS)}, each as edges=ID:0.7")
    texts = [values.get("prompt", ""), values.get("was", ""), *values.get("story", ())]
    if len(texts) > 2 + CHANGES or any(not isinstance(text, str) or len(text) > WORDS for text in texts):
        raise PromptError(f"a prompt has at most {WORDS} characters, and a story {CHANGES} changes of it")
    if not 0 <= values.get("seed", 0) <= LARGEST_SEED - COUNT:
        raise PromptError(f"seed: 0 to {LARGEST_SEED - COUNT}")
    if values.get("was") == AUTO:
        raise PromptError("was: tell what the clip shows; to find it takes the machine from all others here")


def _expect_files(request: Request, uploads: Uploads, history: History) -> None:
    for name, given in files_of(request).items():
        if uploads.about(given) is None and (name != "edit" or history.about(given) is None):
            raise PromptError(f"{name}: no such upload; send the file first, or again")


def _expect_served(request: Request, model: Model) -> None:
    """What can be told before any file is read."""
    bundle = model.bundle
    check(request)
    _, task = family(request)
    expect_read(request, bundle)
    conditions(request, bundle)
    readings(request, bundle.config, bundle.video.stride[0])
    size = request.height or bundle.config.height, request.width or bundle.config.width
    height, width = size if request.upscale else frame_size(request, bundle)
    if (request.frames or bundle.config.frames) * height * width * 3 > MOST_BYTES:
        raise PromptError(f"a clip's frames may take {MOST_BYTES >> 20} MB here: ask for fewer, or smaller ones")
    if (request.frames or 0) > MOST_FRAMES:
        raise PromptError(f"frames = {request.frames}: a clip may have {MOST_FRAMES:,} here")
    windows(request, bundle)
    if task == "t2v" and not files_of(request):
        model.rollout(request)
