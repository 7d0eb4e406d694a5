"""Edits on the bundle that ships: how exact, how true, how still.

`edits_identity`: clips drawn again under the prompt that they have; all must come out bit for bit. They are clips of
the world, encoded; with filters, which leave codes of most of these no way, half are clips that the model drew by
them. `edits_ground`: clips of the world that nobody trained on, drawn again under their caption with another ground,
by strength, and beside them samples of that caption alone (``fresh``): ``true`` is the share that shows the ground
asked for, ``moved`` by how many pixels the figure stands elsewhere (median over frames, then over clips, 64 where
nobody is seen), ``kept`` the share of codes that stay. `edits_controlled`: the same of another sky and of another
character, without controls and under all that the model reads, made of the clip that is edited. `edits_chain`: ten
edits of a clip one after the other, each under another caption and only in the lower right quarter: ``touched``,
cells outside that changed.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vpoet.arrays import Frames, Ints
from vpoet.errors import VpoetWarning
from vpoet.evaluate.controls import OTHERWISE, signal
from vpoet.generate.kept_codes import Source
from vpoet.generate.model import Model, load
from vpoet.generate.request import ControlClip, Request
from vpoet.generate.sampling import Sampling
from vpoet.media.video import Video
from vpoet.worlds.platformer.captions import captions
from vpoet.worlds.platformer.sight import Witness
from vpoet.worlds.platformer.world import Platformer

FIRST = 2 * 10**9
"""Number of the first clip: far from those that the model was trained on."""
IDENTITIES, CLIPS, CHAINS, LINKS = 500, 24, 4, 10
AT_ONCE = 8
FILTERED = {"top_k": 50, "top_p": 0.9, "min_p": 0.01}
HOW: tuple[tuple[dict[str, Any], int | None, int], ...] = (
    ({"guidance": 1.0, "temperature": 1.0}, None, AT_ONCE),
    ({"guidance": 3.0, "temperature": 0.9}, None, AT_ONCE),
    ({"guidance": 3.0, "temperature": 0.9} | FILTERED, None, AT_ONCE),
    ({"guidance": 1.5, "temperature": 0.4} | FILTERED, None, 1),
    ({"guidance": 1.0, "temperature": 1.0} | FILTERED, 0, AT_ONCE),
)
"""Settings of the draw, guesses a pass, and clips in a batch."""


def edits_identity(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", VpoetWarning)
    one, found = load(device="cpu"), {}
    each = IDENTITIES // len(HOW)
    for number, (how, guesses, batch) in enumerate(HOW):
        model, sampling = Model(one.bundle, guesses=guesses), one.sampling(**how)
        right = 0
        for members in _batches(range(number * each, (number + 1) * each), AT_ONCE):
            real = members[: len(members) // 2] if sampling.filtered else members
            clips = list(_sources(one, real, frames=5))
            if drawn := members[len(real) :]:
                requests = [
                    Request(prompt=clip.prompt or "", frames=5, seed=i) for clip, i in zip(clips, drawn, strict=True)
                ]
                made = model.decode([model.document(request) for request in requests], drawn, sampling)
                clips += [Source(d.document.codes(), 8, r.prompt) for d, r in zip(made, requests, strict=True)]
            for some in _batches(clips, batch):
                requests = [Request(prompt=clip.prompt or "", edit=clip, strength=0.0, seed=7) for clip in some]
                again = edited(model, requests, sampling)
                right += sum(np.array_equal(a, clip.codes) for a, clip in zip(again, some, strict=True))
        label = ", ".join(
            [f"{name} {value:g}" for name, value in how.items()] + [f"guesses {guesses}", f"batch {batch}"]
        )
        found[label] = f"{right} of {each}"
    return found


def edits_ground(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load(device="cpu")
    own, plain = model.sampling(), model.sampling(guidance=1.0, temperature=1.0)
    ways = [Way(None, own), Way(0.0, own), Way(0.0, plain), Way(0.1, plain), Way(0.5, plain)]
    return {"clips": CLIPS} | told_otherwise(model, "ground", ways)


def edits_controlled(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model = load(device="cpu")
    kinds = tuple(model.bundle.transformer.config.controls)
    own, plain = model.sampling(), model.sampling(guidance=1.0, temperature=1.0)
    ways = [Way(0.0, own), Way(0.0, own, kinds), Way(0.0, plain), Way(0.0, plain, kinds)]
    return {"clips": CLIPS} | {name: told_otherwise(model, name, ways) for name in ("sky", "who")}


@dataclass(frozen=True, slots=True)
class Way:
    """How a clip is drawn again."""

    strength: float | None
    """None: it is no edit, but a sample."""
    sampling: Sampling
    kinds: tuple[str, ...] = ()
    """Controls by the clip that is edited."""

    def __str__(self) -> str:
        named = "fresh" if self.strength is None else f"strength {self.strength:g}"
        told = f"{named}, cfg {self.sampling.guidance:g}, temperature {self.sampling.temperature:g}"
        return ", ".join((told, *self.kinds))


def told_otherwise(model: Model, name: str, ways: Sequence[Way]) -> dict[str, Any]:
    """Clips drawn again under their caption with another ground, sky or character."""
    witness, world, found = Witness(), Platformer(), dict[str, Any]()
    known = [_known(model, world, i) for i in range(CLIPS)]
    asked = [_told(fields, name) for _, _, fields in known]
    clips = list(_sources(model, range(CLIPS)))
    before = [witness.look(model.bundle.video.decode(clip.codes)) for clip in clips]
    for way in ways:
        true, moved, kept = [], [], []
        for members in _batches(range(CLIPS), AT_ONCE):
            requests = []
            for i in members:
                frames, number, _ = known[i]
                told = tuple(
                    ControlClip(kind, Video(signal(world, number, kind, frames), 8), 1.0) for kind in way.kinds
                )
                edit = {} if way.strength is None else {"edit": clips[i], "strength": way.strength}
                requests.append(Request(prompt=asked[i][0], seed=i, control=told, **edit))
            for i, codes in zip(members, edited(model, requests, way.sampling), strict=True):
                after = witness.look(model.bundle.video.decode(codes))
                true.append(after.shown.get(name) == asked[i][1])
                moved.append(_moved(before[i].character, after.character))
                kept.append(float((codes == clips[i].codes).mean()))
        found[str(way)] = {
            "true": round(float(np.mean(true)), 3),
            "moved": round(float(np.median(moved)), 2),
            "kept": round(float(np.mean(kept)), 3),
        }
    return found


def edits_chain(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    model, world = load(device="cpu"), Platformer()
    white: Frames = np.zeros((17, 64, 64, 3), np.uint8)
    white[:, 32:, 32:] = 255
    touched, changed, cells = 0, 0, 0
    clips = list(_sources(model, range(CHAINS)))
    chains = [clip.codes for clip in clips]
    for link in range(LINKS):
        prompts = [captions(_known(model, world, 1000 + CHAINS * link + i)[2]["truth"])[1] for i in range(CHAINS)]
        requests = [
            Request(prompt=prompt, edit=Source(codes, 8, clip.prompt), strength=1.0, seed=link, mask=Video(white, 8))
            for prompt, codes, clip in zip(prompts, chains, clips, strict=True)
        ]
        chains = edited(model, requests, model.sampling())
        inside = np.zeros(chains[0].shape, np.bool_)
        inside[:, 4:, 4:] = True
        for codes, clip in zip(chains, clips, strict=True):
            touched += int((codes != clip.codes)[~inside].sum())
            changed += int((codes != clip.codes)[inside].sum())
            cells += int((~inside).sum())
    return {"clips": CHAINS, "edits": LINKS, "touched": touched, "of": cells, "changed_inside": changed}


def edited(model: Model, requests: list[Request], sampling: Sampling) -> list[Ints]:
    """The codes that requests come to."""
    rollouts = [model.rollout(request) for request in requests]
    documents = [rollout.document for rollout in rollouts if rollout.document is not None]
    decoded = model.decode(documents, [rollout.seed for rollout in rollouts], sampling)
    return [each.document.codes() for each in decoded]


def _sources(model: Model, numbers: Iterable[int], frames: int = 17) -> Iterator[Source]:
    """Clips of the world as codes, with what they show: a number whose caption has words that the model never met is
    passed over for one of the millions behind it."""
    world = Platformer(frames=frames)
    for number in numbers:
        clip, _, fields = _known(model, world, number)
        yield Source(model.bundle.video.encode(Video(clip, 8)), 8, captions(fields["truth"])[1])


def _known(model: Model, world: Platformer, number: int) -> tuple[Frames, int, dict[str, Any]]:
    """A clip, the world's number for it, and what is known of it."""
    number += FIRST
    while True:
        clip, fields = world.clip(number)
        if not model.unknown(captions(fields["truth"])[1]):
            return clip, number, fields
        number += 10**6


def _told(fields: dict[str, Any], name: str) -> tuple[str, str]:
    """A clip's caption with the ground, sky or character that follows its own, and that one."""
    values = list(OTHERWISE[name])
    value = values[(values.index(fields["truth"][name]) + 1) % len(values)]
    return captions(fields["truth"] | {name: value})[1], value


def _moved(before: Any, after: Any) -> float:
    """Pixels from where a figure was to where it is, the median over frames."""
    if not before or not after:
        return 64.0
    ways = [np.hypot(a[1] - b[1], a[2] - b[2]) for a, b in zip(before, after, strict=True)]
    return float(np.median(ways))


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
