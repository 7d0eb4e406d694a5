"""What samples are asked for, from any raw shards: a caption, a class, or the first frames of a clip.

A clip of a world gives a `Prompt`, which says what has to be seen; any other one gives a `Condition`, whose samples can
only be compared with real clips.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.data.fields import printable
from vpoet.data.folder import read_samples
from vpoet.errors import DataError
from vpoet.evaluate.adherence import Prompt, prompts, world_of
from vpoet.generate.model import Model, Request
from vpoet.generate.observe import fit
from vpoet.media.video import Video
from vpoet.processes import Processes
from vpoet.worlds.world import World


@dataclass(frozen=True, eq=False)
class Condition:
    """A sentence, or a class, and the real clip that it was written for, which is decoded whenever it is looked at."""

    key: str
    text: str
    data: bytes
    """The real clip's file."""

    @property
    def real(self) -> Frames:
        return Video.read(self.data).frames

    @property
    def fps(self) -> float:
        return Video.read(self.data).fps


Asked = Prompt | Condition


def conditions(
    folder: Path, count: int, without: frozenset[str] = frozenset(), classes: str = ""
) -> list[Prompt] | list[Condition]:
    """The first ``count`` clips of a folder of raw shards as what is asked for: prompts if a world drew them.

    ``classes``: not their captions, but this field of their json. A clip without a caption asks for anything (""), and
    captions in ``without`` are passed over. DataError: a clip lacks the field, or there is none left.
    """
    found: list[Condition] = []
    for sample in read_samples(folder):
        if classes:
            text = class_of(sample.json, classes, f"{folder}: {sample.key}")
        elif worlds.drawn_by(sample.json) is not None and not found:
            return prompts(folder, count, without)
        else:
            texts = sample.captions or [""]
            text = texts[len(found) % len(texts)]
        if not text or text not in without or classes:
            found.append(Condition(sample.key, text, sample.video))
        if len(found) == count:
            break
    if not found:
        raise DataError(f"{folder}: no clip that could be asked for")
    return found


def class_of(facts: dict[str, object], field: str, where: str) -> str:
    """A clip's class, of a field of its json: a text or a number. DataError: it has none."""
    value = facts.get(field)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        told = f"has {value!r} in its field {field!r}" if field in facts else f"has no field {field!r}"
        raise DataError(f"{where} {told}, and --classes takes a class from it: a text or a number")
    return printable(str(value))


def common_world(asked: Sequence[Asked]) -> type[World] | None:
    """The world that drew all of these clips; None if none did. DataError: some were drawn, and others were not."""
    drawn = [one for one in asked if isinstance(one, Prompt)]
    if not drawn:
        return None
    if len(drawn) < len(asked):
        raise DataError(f"some prompts are of the world {drawn[0].world.name} and others of none: judge them apart")
    return world_of(drawn)


def requests(
    asked: Sequence[Asked], model: Model, seed: int, given: int, folder: Path, everyone: Processes = Processes()
) -> list[Request]:
    """A request for each; number i has seed ``seed`` + i. With ``given``, each is given so many first frames of its
    real clip, brought to the model's size and rate and written to ``folder``. DataError: a clip has fewer."""
    if not given:
        return [Request(prompt=one.text, seed=seed + i) for i, one in enumerate(asked)]

    def opening(one: Asked) -> str:
        clip = fit(model.bundle, Video(one.real, one.fps), frames=given).video
        name = hashlib.sha256(clip.frames.tobytes()).hexdigest()[:24]
        path = folder / f"{name}{'.png' if given == 1 else '.mp4'}"
        Video(clip.frames, float(model.bundle.config.fps)).write(path, lossless=given > 1)
        return str(path)

    files = everyone.each(opening, asked)
    if given == 1:
        return [
            Request(prompt=one.text, image=file, seed=seed + i)
            for i, (one, file) in enumerate(zip(asked, files, strict=True))
        ]
    return [
        Request(prompt=one.text, video=file, given_frames=given, seed=seed + i)
        for i, (one, file) in enumerate(zip(asked, files, strict=True))
    ]
