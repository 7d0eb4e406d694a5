"""One clip, one word: a figure that the world does not draw, learned by the bundle that ships from one clip of it.

The subject has a robot's head on a man's body: nobody in the world does. `vpoet finetune --subject sks` is given one
clip in which it walks, and as prior prompts captions of other clips. ``subject``: of 50 other captions with "a sks" in
the place of the robot, the share whose sample shows it, and the share that shows all that is asked for, by the judge of
the world (`vpoet.worlds.platformer.sight`), who knows the subject beside the six of the world. ``real`` is the same of
clips in which it is drawn, and ``coded`` of these through the tokenizer. ``others``: of captions of clips that nobody
trained on, the share whose sample passes the world's judge in all that they state, before and after with the same
seeds. It climbs in none of these: of a robot's back the bundle has never seen anything. ``seconds`` is the processor
time of the command.
"""

import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpoet import cli
from vpoet.arrays import Frames
from vpoet.bundle import SHIPPED
from vpoet.evaluate.adherence import wrong
from vpoet.evaluate.intervals import wilson
from vpoet.generate.model import Model, load
from vpoet.generate.request import Request
from vpoet.media.video import Video
from vpoet.training.precision import fastest
from vpoet.worlds.platformer.captions import captions, stated
from vpoet.worlds.platformer.scenery import CHARACTERS, Scenery
from vpoet.worlds.platformer.sight import Witness
from vpoet.worlds.platformer.sprites import Sprite
from vpoet.worlds.platformer.world import Platformer
from vpoet.worlds.world import FAULTS

WORD = "sks"
HEAD, BODY, WAIST = "robot", "man", 13
"""Who lends head and body, and how high up from the feet they meet, in the world's units."""
CLIP, PRIOR, ASKED, OTHERS = 2_100_000_000, 2_200_000_000, 2_300_000_000, 2_400_000_000
"""Numbers of the first clip of each set: no other set has any of these."""
PROMPTS, NEW, OTHER = 128, 50, 200
AT_ONCE = 8
UNSEEN = (("zombie", "ground", "snow"), ("robot", "action", "climb"))
"""Pairs that the bundle was not trained on."""


class Joined(Scenery):
    """Draws the subject, too."""

    def picture(self, name: str, height: float, mirrored: bool = False) -> Sprite:
        folder, _, pose = name.partition(f"/{WORD}_")
        if not pose:
            return super().picture(name, height, mirrored)
        ends = [
            super(Joined, self).picture(f"{folder}/{CHARACTERS[who]}_{pose}", height, mirrored) for who in (HEAD, BODY)
        ]
        return joined(*ends, round(WAIST * self.unit))


class SubjectWorld(Joined, Platformer):
    """The world with the subject in the place of who lends it its head."""

    def picture(self, name: str, height: float, mirrored: bool = False) -> Sprite:
        return super().picture(name.replace(f"{CHARACTERS[HEAD]}_", f"{WORD}_"), height, mirrored)


def joined(head: Sprite, body: Sprite, waist: int) -> Sprite:
    """The part of one picture that is higher than ``waist`` pixels, over the rest of another."""
    left = min(int(np.floor(part.left)) for part in (head, body))
    right = max(int(np.floor(part.left)) + part.pixels.shape[1] for part in (head, body))
    top = min(head.top, body.top)
    bottom = max(part.top + len(part.pixels) for part in (head, body))
    made = np.zeros((bottom - top, right - left, 4), np.float32)
    for part, rows in ((head, slice(0, -waist - top)), (body, slice(-waist - top, None))):
        whole = np.zeros_like(made)
        y, x = part.top - top, int(np.floor(part.left)) - left
        whole[y : y + part.pixels.shape[0], x : x + part.pixels.shape[1]] = part.pixels
        made[rows] = whole[rows]
    return Sprite(made, float(left), top)


def subject(_: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        tune(Path(folder), f"engine.dtype={fastest(torch.device('cpu'))}")
        seconds = time.process_time() - began
        return {"seconds": round(seconds), **measured(Path(folder) / "tuned", ASKED, OTHERS)}


def tune(folder: Path, *overrides: str) -> None:
    """Clip, list and prompts into a folder, and the command."""
    frames, truth = next(shown(SubjectWorld(), CLIP, lambda one: one["action"] == "walk" and not one["creature"]))
    Video(frames, 8.0).write(folder / "clip.mp4", lossless=True)
    (folder / "clip.jsonl").write_text(
        json.dumps({"path": "clip.mp4", "caption": [named(text) for text in captions(truth)[:3]]})
    )
    made = itertools.islice(others(PRIOR), PROMPTS)
    (folder / "prior.txt").write_text("\n".join(text for text, _ in made))
    cli.program("finetune")(
        SHIPPED, folder / "clip.jsonl", folder / "tuned", list(overrides), subject=WORD, prior=folder / "prior.txt"
    )


def measured(tuned: Path, first: int, second: int) -> dict[str, Any]:
    """What a bundle and the one that ships show of the prompts of clips from these numbers on."""
    before, after = load(SHIPPED, "cpu"), load(tuned, "cpu")
    coder, judge = before.bundle.video, Witness(characters={**CHARACTERS, WORD: WORD}, scenery=Joined)
    asked, real = [], []
    for frames, truth in itertools.islice(shown(SubjectWorld(), first, lambda one: one["action"] != "climb"), NEW):
        phrasing = len(asked) % Platformer.phrasings
        asked.append((named(captions(truth)[phrasing]), stated(truth, phrasing) | {"who": WORD}))
        real.append(frames)
    sets = {
        "subject": samples(after, [text for text, _ in asked]),
        "real": real,
        "coded": [coder.decode(coder.encode(Video(frames, 8.0))) for frames in real],
    }
    found: dict[str, Any] = {}
    for name, clips in sets.items():
        mistakes = [wrong(said, judge.look(frames).shown) for (_, said), frames in zip(asked, clips, strict=True)]
        found[name] = {
            "there": share(["who" not in each for each in mistakes]),
            "all": share([not each for each in mistakes]),
        }
    rest, world = list(itertools.islice(others(second), OTHER)), Platformer()
    for name, model in (("before", before), ("after", after)):
        seen = [world.see(frames) for frames in samples(model, [text for text, _ in rest])]
        found[f"others_{name}"] = share([not wrong(said, one) for (_, said), one in zip(rest, seen, strict=True)])
    return found


def samples(model: Model, prompts: list[str]) -> list[Frames]:
    """A clip of each prompt, number i with seed i."""
    requests = [Request(prompt=prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    made: list[Frames] = []
    for start in range(0, len(requests), AT_ONCE):
        made += [np.asarray(clip) for clip in model.sample_batch(requests[start : start + AT_ONCE], model.sampling())]
    return made


def shown(world: Platformer, first: int, wanted: Callable[[Mapping[str, str]], bool]) -> Iterator[tuple[Frames, Any]]:
    """Clips of the world from a number on, of who lends the subject its head and as it is wanted, with their truth."""
    for number in itertools.count(first):
        about = world.attributes(number)
        if about["who"] == HEAD and wanted(about):
            frames, fields = world.clip(number)
            yield frames, fields["truth"]


def others(first: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Captions, phrasings in turn, of clips of the world from a number on, and what they state."""
    world = Platformer()
    for number in itertools.count(first):
        about, phrasing = world.attributes(number), number % world.phrasings
        if not any(about["who"] == who and about[name] == value for who, name, value in UNSEEN):
            fields = world.clip(number)[1]
            yield fields["caption"][phrasing], stated(fields["truth"], phrasing) | {FAULTS: ""}


def named(caption: str) -> str:
    """A caption with the subject in the place of who lends it its head."""
    return caption.replace(f"a {HEAD} ", f"a {WORD} ")


def share(right: list[bool]) -> dict[str, Any]:
    """In percent, with the ends of its 95% interval (Wilson)."""
    count = sum(right)
    low, high = wilson(count, len(right))
    return {"right": count, "of": len(right), "percent": [round(100 * x, 1) for x in (count / len(right), low, high)]}
