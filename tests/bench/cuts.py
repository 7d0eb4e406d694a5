"""How well shots are told apart: ``python tests/bench/cuts.py [FOLDER] [--cuts N] [--detectors NAME ...]``.

Films are made: clips of the world, and every other one of the videos in FOLDER, joined by hard cuts, by fades through
black or white, or not at all but with flashes and pans. All are coded as h264, decoded again, and shown to each
detector. One JSON line each: F1 of cuts at exactly the right frame; frames of another shot than most of theirs that
detected shots hold (leaked), which is what would come into a clip; F1 of fades; flashes and pans that were cut.
"""

import argparse
import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count, islice, pairwise
from typing import NamedTuple

import numpy as np

from vpoet.arrays import Frames
from vpoet.data.sources import gather
from vpoet.errors import DataError
from vpoet.media.cuts import Shots
from vpoet.media.detectors import DETECTORS, detector
from vpoet.media.mp4 import encode_mp4
from vpoet.media.video import resize_frame, stream_frames, stream_numbered
from vpoet.worlds.platformer.world import Platformer

SIDE, FPS = 96, 24.0
SHORTEST, LONGEST = 12, 40
"""Frames of a shot."""
JOINED = 20
"""Cuts or fades of a film."""


class Film(NamedTuple):
    """Frames, and of each the number of its shot; None between shots."""

    frames: Frames
    shots: list[int | None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="videos to join with clips of the world")
    parser.add_argument("--cuts", type=int, default=1000, help="hard cuts; a fade and a flash or pan to three [1000]")
    parser.add_argument("--detectors", nargs="+", default=["vpoet"], choices=DETECTORS, help="[vpoet]")
    wanted = parser.parse_args()
    chance = np.random.default_rng(0)
    clips = material(wanted.folder, chance)
    rest = max(1, 3 * wanted.cuts // 10)
    kinds = {
        "hard": films(clips, wanted.cuts, chance, fades=False),
        "fade": films(clips, rest, chance, fades=True),
        "none": (disturbed(next(clips), chance, number) for number in range(rest)),
    }
    scores: dict[str, Counter[str]] = {name: Counter() for name in wanted.detectors}
    for kind, made in kinds.items():
        for film in made:
            thumbs = decoded(film.frames)
            for name, score in scores.items():
                began = time.process_time()
                found = numbered(name, thumbs)
                score["us"] += round(1e6 * (time.process_time() - began))
                score["frames"] += len(found)
                score.update(judged(kind, film.shots, found))
    for name, score in scores.items():
        print(json.dumps({"detector": name, "clips": wanted.folder or "world", **told(score, wanted.cuts, rest)}))


def material(folder: str | None, chance: np.random.Generator) -> Iterator[Frames]:
    """Shots without a cut, [T, SIDE, SIDE, 3], without end; a video has a few of them."""
    world = Platformer(SIDE, SIDE, FPS, LONGEST)
    names = [item.path for item in gather([folder])] if folder else []
    order = iter(chance.permutation(len(names)).tolist() * 1000)
    for number in count():
        if names and number % 2:
            try:
                frames = (resize_frame(frame, SIDE, SIDE) for frame in stream_frames(names[next(order)])[1])
                taken = list(islice(frames, LONGEST))
            except DataError:
                continue
            if len(taken) < LONGEST:
                continue
            shot = np.stack(taken)
        else:
            shot = world.clip(number)[0]
        yield shot[: int(chance.integers(SHORTEST, LONGEST + 1))]


def films(clips: Iterator[Frames], joints: int, chance: np.random.Generator, fades: bool) -> Iterator[Film]:
    while joints > 0:
        parts: list[Frames] = [next(clips)]
        shots: list[int | None] = [0] * len(parts[0])
        for number in range(1, 1 + min(JOINED, joints)):
            clip = next(clips)
            if fades:
                over, dark = int(chance.integers(4, 11)), int(chance.integers(2, 20))
                colour = 255 * int(chance.random() < 0.25)
                ramp = np.linspace(0, 1, over + 1)[1:, None, None, None]
                parts[-1] = mixed(parts[-1], ramp, colour)
                clip = mixed(clip[::-1], ramp, colour)[::-1]
                parts.append(np.full((dark, SIDE, SIDE, 3), colour, np.uint8))
                shots += [None] * dark
            parts.append(clip)
            shots += [number] * len(clip)
        joints -= JOINED
        yield Film(np.concatenate(parts), shots)


def mixed(clip: Frames, ramp: np.ndarray, colour: int) -> Frames:
    """The clip, which ends in a colour."""
    clip = clip.copy()
    end = clip[-len(ramp) :].astype(float)
    clip[-len(ramp) :] = end + ramp * (colour - end)
    return clip


def disturbed(clip: Frames, chance: np.random.Generator, number: int) -> Film:
    """One shot with a flash in it, or with the camera moving over it."""
    if number % 2:
        first, long = int(chance.integers(4, len(clip) - 6)), int(chance.integers(1, 6))
        clip, light = clip.copy(), clip[first : first + long].astype(float)
        shares = np.sort(chance.uniform(0.3, 1.0, len(light)))[::-1, None, None, None]
        clip[first : first + long] = light + shares * (255 - light)
    else:
        speed = np.cumsum(chance.normal(0, 0.6, len(clip))) + chance.uniform(-4, 4)
        speed[: int(chance.integers(0, len(clip)))] *= int(chance.integers(0, 2))  # it may begin within the shot
        at = np.rint(np.cumsum(speed)).astype(int)
        wide = np.concatenate([clip, clip[:, :, ::-1]], axis=2)  # seen from inside a drum
        clip = np.stack([np.roll(frame, int(by), axis=1)[:, :SIDE] for frame, by in zip(wide, at, strict=True)])
    return Film(clip, [0] * len(clip))


def decoded(frames: Frames) -> list[Frames]:
    """Thumbnails of what comes out of h264."""
    file, thumbs = io.BytesIO(), list[Frames]()
    encode_mp4(file, frames, FPS)
    for _ in stream_numbered(file.getvalue(), watch=thumbs.append)[1]:
        pass
    assert len(thumbs) == len(frames)
    return thumbs


def numbered(name: str, thumbs: Sequence[Frames]) -> list[int | None]:
    shots = Shots(detector(name))
    for thumb in thumbs:
        shots.add(thumb)
    shots.end()
    return [shots.of(frame) for frame in range(len(thumbs))]


def joints(shots: Sequence[int | None]) -> list[tuple[int, int]]:
    """(frame after the last of one shot, first frame of the next)"""
    inside = [at for at, shot in enumerate(shots) if shot is not None]
    return [(one + 1, other) for one, other in pairwise(inside) if shots[one] != shots[other]]


def judged(kind: str, truth: Sequence[int | None], found: Sequence[int | None]) -> Counter[str]:
    true, said, score = joints(truth), joints(found), Counter[str]()
    if kind == "none":
        return Counter({"disturbed": bool(said)})
    if kind == "hard":
        right = len(set(true) & set(said))
    else:  # a fade is found if a joint lies in its darkness, or less than two frames from it, and no more than one
        near = [sum(first - 2 <= b and a <= last + 2 for a, b in said) for first, last in true]
        right = sum(number == 1 for number in near)
    score.update({f"{kind} right": right, f"{kind} true": len(true), f"{kind} said": len(said)})
    held: dict[int, Counter[int | None]] = {}
    for shot, number in zip(truth, found, strict=True):
        if number is not None and shot is not None:
            held.setdefault(number, Counter())[shot] += 1
    score[f"{kind} leaked"] = sum(each.total() - max(each.values()) for each in held.values())
    return score


def told(score: Counter[str], cuts: int, rest: int) -> dict[str, float]:
    def f1(kind: str) -> float:
        return round(2 * score[f"{kind} right"] / max(1, score[f"{kind} true"] + score[f"{kind} said"]), 4)

    return {
        "cuts": cuts, "F1": f1("hard"), "leaked_frames": score["hard leaked"], "fades": rest, "fades_F1": f1("fade"),
        "fades_leaked_frames": score["fade leaked"], "flashes_and_pans": rest, "cut": score["disturbed"],
        "us_a_frame": round(score["us"] / max(1, score["frames"])),
    }  # fmt: skip


if __name__ == "__main__":
    main()
