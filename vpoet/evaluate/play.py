"""How well a learned world answers: beside the simulator that it learned from, given the same keys.

Of what is dreamt the world's judge says from pixels alone where things are; in the simulator that is known
(`vpoet.evaluate.courses`). Each figure stands beside its ceiling, that of the real frames through the tokenizer: nobody
can dream better than that.

A *sound* frame shows somebody, and all that stays as it is in a course (who, ground, sky, level) as it was; of an
environment, all that is always to be seen.
Two keys differ in effect, at some frame, where they lead the simulator from there to different places. Whether a model
heeds its keys is told there alone: of each key it is asked for the next frame, and the place that it shows is one of
those that the simulator reaches, the nearest one.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Floats, Frames, Ints
from vpoet.errors import DataError
from vpoet.evaluate.courses import FIGURE, Course, anything, keys, measures, scores
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
from vpoet.worlds.environments.known import Measure, Told
from vpoet.worlds.recording import Sticky
from vpoet.worlds.world import SteppedWorld

HORIZONS = (1, 8, 16, 64)
"""Frames dreamt, after which it is asked how far off they are."""
GENIES = 4
"""The frame at which pictures under the right and under random keys are compared (Genie, arXiv:2402.15391, 3.1)."""
_FAR = re.compile(r"((?:\w+_)?(?:error|ceiling|judge))_\d+")
_PLAY = KINDS.index("play")


def dream(session: Session, course: Course, keys: Sequence[Any], seed: int) -> tuple[Frames, list[float]]:
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


def errors(measure: Measure, seen: Sequence[Told], truths: Sequence[Told]) -> Doubles:
    """[n]: how far from the truths the judge sees something, in its units; inf where it sees none, and where no more
    was ``seen``; nan where there is none."""
    far = [measure.apart(truth, one) for truth, one in zip(truths, seen, strict=False)]
    return np.array(far + [measure.apart(truth, {}) for truth in truths[len(seen) :]])


def effects(simulator: SteppedWorld, state: bytes, tried: Sequence[Any]) -> list[tuple[float, ...] | None]:
    """Where each of these actions leads whom the keys move from a state; None where the end is."""
    found: list[tuple[float, ...] | None] = []
    for key in tried:
        simulator.restore(state)
        _, _, ended = simulator.step(key)
        found.append(None if ended else measures(simulator)[0].at(simulator.truth))
    return found


def followed(session: Session, simulator: SteppedWorld, course: Course, seed: int) -> list[tuple[int, int]]:
    """Pairs of the key that the model was given behind what is seen, and the one that its frame looks like, -1 for none
    of them; of one key of all those with the same effect. Empty where all keys have the same."""
    reached: dict[tuple[float, ...], int] = {}
    tried = keys(simulator)
    for number, place in enumerate(effects(simulator, course.state, tried)):
        if place is not None:
            reached.setdefault(place, number)
    if len(reached) < 2:
        return []
    session.begin(seed, course.text, course.seen, course.did, course.brought)
    pairs = []
    for number in reached.values():
        (one,) = simulator.see(session.fork().step(tried[number])[0][None])
        there = measures(simulator)[0].at(one)
        read = -1 if there is None else reached[min(reached, key=partial(math.dist, there))]
        pairs.append((number, read))
    return pairs


def key_bits(model: Model, simulator: SteppedWorld, course: Course, random: np.random.Generator) -> float | None:
    """Bits that the course's next frame costs more under a key of another effect than under that which led to it; None
    if there is no such key."""
    right, tried = course.keys[0], keys(simulator)
    led, *reached = effects(simulator, course.state, [right, *tried])
    wrong = [key for key, place in zip(tried, reached, strict=True) if place is not None and place != led]
    if not wrong:
        return None
    told = [_frame_nats(model, course, key) for key in (right, wrong[int(random.integers(len(wrong)))])]
    return (told[1] - told[0]) / math.log(2)


def _frame_nats(model: Model, course: Course, key: Any) -> float:
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
    """Of each of the frames, whether it is sound: shows all that is always to be seen, and what ``first``
    [1, H, W, 3] shows of all else that does not move."""
    (was,) = simulator.see(first)
    return [_sound(simulator, was, one) for one in simulator.see(frames)]


def _sound(simulator: SteppedWorld, was: Told, one: Told) -> bool:
    stays = [name for name in ("who", "ground", "sky", "level") if name in was]
    there = all(measure.at(one) is not None for measure in measures(simulator) if measure.always)
    return there and all(one[name] == was[name] for name in stays)


def wander(session: Session, simulator: SteppedWorld, course: Course, frames: int, seed: int) -> Iterator[Frames]:
    """Frames [H, W, 3] under random keys that are held for a while, from a course on. Where the model says that the end
    is reached, it begins again from there."""
    random = np.random.default_rng((seed, 3))
    act: Sticky[Any] = Sticky(lambda: anything(simulator, random), random)
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
    others, _ = dream(session, course, [anything(simulator, random) for _ in range(at + 1)], course.number)
    found: dict[str, Any] = {"course": course.number, "frames": len(dreamt)}
    seen = {"error": simulator.see(dreamt), "ceiling": simulator.see(kept)}
    figure = measures(simulator) == (FIGURE,)
    if not figure:  # which is read to the pixel
        seen["judge"] = simulator.see(course.frames)
    horizons = [horizon for horizon in HORIZONS if horizon <= len(course.keys)]
    for measure, (name, told) in product(measures(simulator), seen.items()):
        far = errors(measure, told, course.truths)
        for horizon in horizons:
            off = float(far[horizon - 1])
            if not math.isnan(off):  # JSON has no infinity: None is nobody
                found[f"{_named(measure, name)}_{horizon}"] = off if math.isfinite(off) else None
    for horizon in horizons:
        last = min(horizon, len(dreamt)) - 1
        found[f"psnr_{horizon}"] = psnr(course.frames[last : last + 1], dreamt[last : last + 1])
    pictures = [psnr(course.frames[at : at + 1], x[at : at + 1]) for x in (dreamt, others) if len(x) > at]
    found["psnr_lost"] = pictures[0] - pictures[1] if len(pictures) == 2 else None
    found["psnr_ceiling"] = psnr(course.frames, kept)
    found["followed"] = followed(session, simulator, course, course.number)
    found["key_bits"] = key_bits(model, simulator, course, random)
    (was,) = simulator.see(course.seen[-1:])
    found["sound"] = sum(_sound(simulator, was, one) for one in seen["error"])
    found["sound_ceiling"] = sum(_sound(simulator, was, one) for one in seen["ceiling"]) / len(kept)
    if scores(simulator):
        found["coins"] = coins(course.rewards, rewards)
    if figure:
        tellable = telling(simulator, course.state, course.keys)
        for suffix, frames in (("", course.frames), ("_dreamt", dreamt)):
            read = keys_read(model, course.seen, frames, course.text, course.keys, tellable)
            found |= {f"read_by_{way}{suffix}": counts for way, counts in read.items()}
    return found | trials(lambda: _begun(session, course), simulator, course.state)


def _named(measure: Measure, name: str) -> str:
    return f"{measure.name}_{name}" if measure.name else name


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
    names = dict.fromkeys(match[1] for one in rows for key in one if (match := _FAR.fullmatch(key)))
    for horizon in HORIZONS:
        for name in names:
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
    hits, dreamt, there = (sum(one["coins"][at] for one in rows if "coins" in one) for at in range(3))
    if dreamt + there:
        found["coins_f1"] = 2 * hits / (dreamt + there)
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
