"""How well a learned world answers: beside the simulator that it learned from, given the same keys.

A course is a recording that no model was trained on: frames that are seen, and the keys that follow.

    frames    seen      | dreamt: each from the key alone and all that was dreamt before
    course    0 ... s-1 | s  s+1 ... s+n-1

Of what is dreamt the world's judge says from pixels alone where the figure is; in the simulator that is known. Each
figure stands beside its ceiling, that of the real frames through the tokenizer: nobody can dream better than that.

A *sound* frame shows somebody, and all that stays as it is in a course (who, ground, sky, level) as it was.
Two keys differ in effect, at some frame, where they lead the simulator from there to different places. Whether a model
heeds its keys is told there alone: of each key it is asked for the next frame, and the place that it shows is one of
those that the simulator reaches, the nearest one.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Floats, Frames, Ints
from vpoet.errors import DataError
from vpoet.evaluate.keys import keys_read, telling
from vpoet.evaluate.physics import physics, trials
from vpoet.evaluate.pixels import psnr
from vpoet.generate.environment import Session
from vpoet.generate.model import Model
from vpoet.play.reading import WAYS
from vpoet.sequence.actions import outcome_values
from vpoet.sequence.arrangements import Given, Sample
from vpoet.sequence.document import KINDS, build
from vpoet.sequence.tasks import TABLE
from vpoet.worlds.recording import Sticky
from vpoet.worlds.world import SteppedWorld, World

UNSEEN = 10**9
"""The world's recordings from this number on are no training data."""
HORIZONS = (1, 8, 16, 64)
"""Frames dreamt, after which it is asked how far off they are."""
GENIES = 4
"""The frame at which pictures under the right and under random keys are compared (Genie, arXiv:2402.15391, 3.1)."""
_PLAY = KINDS.index("play")


@dataclass(frozen=True, eq=False)
class Course:
    """One recording: what is seen of it, and what follows."""

    number: int
    text: str
    seen: Frames
    """uint8 [s, H, W, 3]."""
    did: list[int]
    """[s - 1], the keys between them, and their rewards."""
    brought: list[float]
    keys: list[int]
    """[n], those that follow."""
    frames: Frames
    """uint8 [n, H, W, 3], where they lead."""
    rewards: list[float]
    places: Doubles
    """[n, 2]: x and y of the figure's feet in them, in units of 1/64 of the shorter side."""
    state: bytes
    """Of the simulator at the last frame that is seen."""


def courses(
    world: type[World], size: tuple[int, int], fps: float, seen: int, length: int, first: int = UNSEEN
) -> Iterator[Course]:
    """Endless courses of ``seen`` and ``length`` frames, from recording number ``first`` on, half of them under random
    keys; shorter ones are left out.

    DataError: one cannot act in the world, or its recordings do not tell what is needed.
    """
    clips, simulator = world(*size, fps, seen + length), world.stepped(*size, fps)
    number = first
    while True:
        frames, facts = clips.clip(number)
        number += 1
        if len(frames) < seen + length:
            continue
        actions, rewards = facts["actions"], facts["outcomes"]["reward"]
        simulator.restore(bytes.fromhex(facts["state"]))
        for action in actions[: seen - 1]:
            simulator.step(action)
        yield Course(
            number=number - 1, text=facts["caption"][0], seen=frames[:seen],
            did=actions[: seen - 1], brought=rewards[: seen - 1],
            keys=actions[seen - 1 :], frames=frames[seen:], rewards=rewards[seen - 1 :],
            places=np.stack([facts["truth"][axis][seen:] for axis in "xy"], -1).astype(float), state=simulator.save(),
        )  # fmt: skip


def dream(session: Session, course: Course, keys: Sequence[int], seed: int) -> tuple[Frames, list[float]]:
    """The frames [m, H, W, 3] and rewards that the model answers these keys with; fewer than keys if it says that the
    end is reached."""
    session.begin(seed, course.text, course.seen, course.did, course.brought)
    frames, rewards = [], []
    for key in keys:
        frame, reward, ended = session.step(key)
        frames.append(frame)
        rewards.append(reward)
        if ended:
            break
    return np.stack(frames), rewards


def errors(simulator: SteppedWorld, frames: Frames, places: Doubles) -> Doubles:
    """[n]: how far from ``places`` the judge sees the figure in these frames, in units; inf where it sees nobody, and
    where there are no more frames."""
    seen = [(one["x"], one["y"]) for one in simulator.see(frames)]
    far = [math.inf if None in at else math.dist(at, there) for at, there in zip(seen, places, strict=False)]
    return np.array(far + [math.inf] * (len(places) - len(far)))


def effects(simulator: SteppedWorld, state: bytes) -> list[tuple[float, float] | None]:
    """Where each key leads the figure from a state; None where the end is."""
    found: list[tuple[float, float] | None] = []
    for key in range(len(simulator.actions)):
        simulator.restore(state)
        _, _, ended = simulator.step(key)
        truth = simulator.truth
        found.append(None if ended else (float(truth["x"]), float(truth["y"])))
    return found


def followed(session: Session, simulator: SteppedWorld, course: Course, seed: int) -> list[tuple[int, int]]:
    """Pairs of the key that the model was given behind what is seen, and the one that its frame looks like, -1 for none
    of them; of one key of all those with the same effect. Empty where all keys have the same."""
    reached: dict[tuple[float, float], int] = {}
    for key, place in enumerate(effects(simulator, course.state)):
        if place is not None:
            reached.setdefault(place, key)
    if len(reached) < 2:
        return []
    session.begin(seed, course.text, course.seen, course.did, course.brought)
    pairs = []
    for key in reached.values():
        (one,) = simulator.see(session.fork().step(key)[0][None])
        there = (one["x"], one["y"])
        pairs.append((key, -1 if None in there else reached[min(reached, key=lambda place: math.dist(place, there))]))
    return pairs


def key_bits(model: Model, simulator: SteppedWorld, course: Course, random: np.random.Generator) -> float | None:
    """Bits that the course's next frame costs more under a key of another effect than under that which led to it; None
    if there is no such key."""
    reached, (right, *_) = effects(simulator, course.state), course.keys
    wrong = [key for key, place in enumerate(reached) if place is not None and place != reached[right]]
    if not wrong:
        return None
    told = [_frame_nats(model, course, key) for key in (right, int(random.choice(wrong)))]
    return (told[1] - told[0]) / math.log(2)


def _frame_nats(model: Model, course: Course, key: int) -> float:
    """-log p of the codes of the first frame that follows, had ``key`` led to it."""
    bundle = model.bundle
    if bundle.config.actions is None:
        raise DataError("this model was not trained for play")
    frames = np.concatenate([course.seen, course.frames[:1]])
    codes: Ints = bundle.video.encode(frames)
    rewards = [*course.brought, course.rewards[0]]
    sample = Sample(
        np.array(bundle.text.encode(course.text), np.int32), codes, round(bundle.config.fps),
        actions=bundle.config.actions.values([*course.did, key]),
        outcomes=outcome_values(rewards, [False] * len(rewards)),
    )  # fmt: skip
    document = TABLE["play"].document(sample, Given())
    (nats,) = model.token_nats([document])
    sequence = build(document, bundle.transformer.vocabulary)
    kinds = sequence.kinds[sequence.targets]
    drawn: Floats = nats[np.flatnonzero(kinds == _PLAY)[-codes[0].size :]]
    return float(drawn.sum())


def soundness(simulator: SteppedWorld, first: Frames, frames: Frames) -> list[bool]:
    """Of each of the frames, whether it is sound: shows somebody, and what ``first`` [1, H, W, 3] shows of all else
    that does not move."""
    (was,) = simulator.see(first)
    stays = [name for name in ("who", "ground", "sky", "level") if name in was]
    return [bool(one["who"]) and all(one[name] == was[name] for name in stays) for one in simulator.see(frames)]


def wander(session: Session, course: Course, frames: int, seed: int) -> Iterator[Frames]:
    """Frames [H, W, 3] under random keys that are held for a while, from a course on. Where the model says that the end
    is reached, it begins again from there."""
    random = np.random.default_rng((seed, 3))
    act = Sticky(lambda: int(random.integers(len(session.actions))), random)
    session.begin(seed, course.text, course.seen, course.did, course.brought)
    for number in range(frames):
        frame, _, ended = session.step(act())
        yield frame
        if ended:
            session.begin(seed + number + 1, course.text, course.seen, course.did, course.brought)


def row(model: Model, session: Session, simulator: SteppedWorld, course: Course) -> dict[str, Any]:
    """All that is measured of a course, as JSON takes it."""
    random = np.random.default_rng((course.number, 4))
    dreamt, rewards = dream(session, course, course.keys, course.number)
    drawn = model.bundle.video.decode(model.bundle.video.encode(np.concatenate([course.seen, course.frames])))
    kept = drawn[len(course.seen) :]
    at = min(GENIES, len(course.keys)) - 1
    others, _ = dream(session, course, random.integers(len(session.actions), size=at + 1).tolist(), course.number)
    far, ceiling = (errors(simulator, frames, course.places) for frames in (dreamt, kept))
    found: dict[str, Any] = {"course": course.number, "frames": len(dreamt)}
    for horizon in (horizon for horizon in HORIZONS if horizon <= len(course.keys)):
        last = min(horizon, len(dreamt)) - 1
        for name, each in (("error", far), ("ceiling", ceiling)):  # JSON has no infinity: None is nobody
            found[f"{name}_{horizon}"] = float(each[horizon - 1]) if np.isfinite(each[horizon - 1]) else None
        found[f"psnr_{horizon}"] = psnr(course.frames[last : last + 1], dreamt[last : last + 1])
    pictures = [psnr(course.frames[at : at + 1], x[at : at + 1]) for x in (dreamt, others) if len(x) > at]
    found["psnr_lost"] = pictures[0] - pictures[1] if len(pictures) == 2 else None
    found["psnr_ceiling"] = psnr(course.frames, kept)
    found["followed"] = followed(session, simulator, course, course.number)
    found["key_bits"] = key_bits(model, simulator, course, random)
    found["sound"] = sum(soundness(simulator, course.seen[-1:], dreamt))
    found["sound_ceiling"] = sum(soundness(simulator, course.seen[-1:], kept)) / len(kept)
    found["coins"] = coins(course.rewards, rewards)
    told = telling(simulator, course.state, course.keys)
    for suffix, frames in (("", course.frames), ("_dreamt", dreamt)):
        read = keys_read(model, course.seen, frames, course.text, course.keys, told)
        found |= {f"read_by_{way}{suffix}": counts for way, counts in read.items()}
    return found | trials(lambda: _begun(session, course), simulator, course.state)


def _begun(session: Session, course: Course) -> Session:
    session.begin(course.number, course.text, course.seen, course.did, course.brought)
    return session


def coins(real: Sequence[float], dreamt: Sequence[float], near: int = 1) -> tuple[int, int, int]:
    """Rewards above 0 that were dreamt where there was one, up to ``near`` frames off; those that were dreamt; those
    that there were."""
    left = [step for step, reward in enumerate(real) if reward > 0]
    count, told, hits = len(left), [step for step, reward in enumerate(dreamt) if reward > 0], 0
    for step in told:
        match = next((other for other in left if abs(other - step) <= near), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return hits, len(told), count


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """What the rows come to, by name; medians and 90th percentiles of errors are over courses, None where in so many of
    them nobody is seen."""
    found: dict[str, float | None] = {"courses": len(rows)}
    for horizon in HORIZONS:
        for name in ("error", "ceiling"):
            told = [one[f"{name}_{horizon}"] for one in rows if f"{name}_{horizon}" in one]
            values = sorted(math.inf if value is None else value for value in told)
            for suffix, share in (("", 0.5), ("_p90", 0.9)):
                if values:
                    value = values[math.ceil(share * len(values)) - 1]
                    found[f"{name}_{horizon}{suffix}"] = value if math.isfinite(value) else None
        pictures = [one[f"psnr_{horizon}"] for one in rows if f"psnr_{horizon}" in one]
        if pictures:
            found[f"psnr_{horizon}"] = float(np.mean(pictures))
    found["psnr_ceiling"] = float(np.mean([one["psnr_ceiling"] for one in rows]))
    lost = [one["psnr_lost"] for one in rows if one["psnr_lost"] is not None]
    if lost:
        found["psnr_lost"] = float(np.mean(lost))
    pairs = [tuple(pair) for one in rows for pair in one["followed"]]
    if pairs:
        found["followed"] = float(np.mean([given == read for given, read in pairs]))
        found["followed_f1"] = _f1(pairs)
    bits = [one["key_bits"] for one in rows if one["key_bits"] is not None]
    if bits:
        found["key_bits"] = float(np.mean(bits))
    for name in (f"read_by_{way}{suffix}" for way in WAYS for suffix in ("", "_dreamt")):
        counts = [one[name] for one in rows if name in one]
        if counts and (count := sum(count for _, count in counts)):
            found[name] = sum(hits for hits, _ in counts) / count
    hits, told, there = np.sum([one["coins"] for one in rows], axis=0).tolist()
    if told + there:
        found["coins_f1"] = 2 * hits / (told + there)
    frames = sum(one["frames"] for one in rows)
    found["sound"] = sum(one["sound"] for one in rows) / frames
    found["sound_ceiling"] = float(np.mean([one["sound_ceiling"] for one in rows]))
    return found | physics(rows)


def _f1(pairs: Sequence[tuple[int, int]]) -> float:
    """The mean over keys of the harmonic mean of precision and recall."""
    found = []
    for key in sorted({given for given, _ in pairs}):
        hits = sum(given == read == key for given, read in pairs)
        found.append(2 * hits / (sum(given == key for given, _ in pairs) + sum(read == key for _, read in pairs)))
    return float(np.mean(found))
