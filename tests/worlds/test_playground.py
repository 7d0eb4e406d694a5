"""The playground: what keys do, that it is the same everywhere and from any saved state, its judge, its recordings."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

from vpoet import worlds
from vpoet.data.folder import read_samples
from vpoet.errors import DataError, ShapeError
from vpoet.evaluate.adherence import prompts
from vpoet.media.video import Video
from vpoet.worlds.platformer.scenery import CHARACTERS
from vpoet.worlds.platformer.world import Platformer
from vpoet.worlds.playground.captions import understood
from vpoet.worlds.playground.drawing import POSES, Painter
from vpoet.worlds.playground.levels import Level, levels
from vpoet.worlds.playground.physics import ACTIONS, CLIMBS, FLIES, STANDS, Body, advance, touches
from vpoet.worlds.playground.recordings import POLICIES, Recordings
from vpoet.worlds.playground.scripts import seek
from vpoet.worlds.playground.stepped import Playground
from vpoet.worlds.recording import LONGEST_HOLD
from vpoet.worlds.world import FAULTS

NOOP, LEFT, RIGHT, JUMP, CLIMB, DOWN = range(len(ACTIONS))
LEVELS = levels(64, 52)
HELD_OUT = 3_000_000_000
"""The first seed: no training, tuning or test set has any of these."""


def level(low: int = 0, high: int = 2, ladder: int = 3, water: int | None = None) -> Level:
    """The one with things in these slots."""
    lefts = [16 * slot for slot in (low, high)]
    for each in LEVELS:
        places = [platform.left for platform in each.platforms], each.ladder[0], each.water and each.water[0]
        if places == (lefts, 16 * ladder + 8, None if water is None else 16 * water):
            return each
    raise AssertionError("no such level")


def press(body: Body, where: Level, *actions: int) -> list[tuple[int, int]]:
    """Where each of the actions leads."""
    places = []
    for action in actions:
        advance(body, where, action)
        places.append((body.x, body.y))
    return places


def play(world: Playground, seed: int, steps: int) -> list[tuple[int, float, bool, bytes]]:
    """Random keys; the next seed begins after the end, and every hundred steps. Of each step: its frame's checksum,
    what it brought, the state."""
    random = np.random.default_rng(seed)
    world.reset(seed)
    found = []
    for at, action in enumerate(random.integers(len(ACTIONS), size=steps).tolist()):
        frame, reward, end = world.step(action)
        found.append((crc32(frame.tobytes()), reward, end, world.save()))
        if end or at % 100 == 99:
            seed += 1
            world.reset(seed)
    return found


def test_ten_thousand_steps_are_the_same_again_and_from_any_saved_state() -> None:
    world = Playground()
    whole = play(world, 5, 10_000)
    assert play(Playground(), 5, 10_000) == whole
    assert sum(end for _, _, end, _ in whole) > 10
    assert sum(reward for _, reward, _, _ in whole) > 50
    other = Playground()
    actions = np.random.default_rng(5).integers(len(ACTIONS), size=10_000).tolist()
    for at in range(0, 9_999, 7):
        if not whole[at][2] and at % 100 != 99:
            other.restore(whole[at][3])
            frame, reward, end = other.step(actions[at + 1])
            assert (crc32(frame.tobytes()), reward, end, other.save()) == whole[at + 1]
    assert crc32(b"".join(state for *_, state in whole)) == 329704680  # on every machine, of every version


def test_states_of_other_worlds_are_refused() -> None:
    world = Playground()
    for state in (b"", b"vpoet-p2", b"vpoet-p1" + world.save()[8:], world.save()[:-1], b"x" * len(world.save())):
        with pytest.raises(DataError, match="no saved state"):
            world.restore(state)
    with pytest.raises(DataError, match="playground 128 units wide; this one is 64"):
        world.restore(Playground(64, 128).save())


def test_walking() -> None:
    where, body = level(), Body(32, 52)
    assert press(body, where, RIGHT, RIGHT, LEFT, NOOP, CLIMB, DOWN) == [(36, 52), (40, 52), *[(36, 52)] * 4]
    press(body, where, *[LEFT] * 20)
    assert (body.x, body.doing) == (8, STANDS)


def test_a_jump_lands_after_nine_steps_and_keeps_the_speed_of_the_walk() -> None:
    where, body = level(low=1, high=0, ladder=0), Body(60 - 4, 52)
    heights = [52 - y for _, y in press(body, where, JUMP, *[NOOP] * 9)]
    assert heights == [8, 14, 18, 20, 20, 18, 14, 8, 0, 0]
    body = Body(24, 52)
    places = press(body, level(low=2, high=1, ladder=1), LEFT, JUMP, NOOP, NOOP)
    assert [x for x, _ in places] == [20, 16, 12, 8]
    assert body.doing == FLIES
    assert press(body, where, RIGHT)[0][0] == 12


def test_platforms_are_jumped_through_from_below_and_dropped_through() -> None:
    where, body = level(low=0), Body(16, 52)
    press(body, where, JUMP, *[NOOP] * 6)
    assert (body.y, body.doing) == (38, STANDS)
    press(body, where, JUMP, *[NOOP] * 8)
    assert body.y == 38
    press(body, where, DOWN, *[NOOP] * 4)
    assert (body.y, body.doing) == (52, STANDS)
    body = Body(32, 38)
    press(body, where, *[RIGHT] * 7)
    assert (body.y, body.doing) == (52, STANDS)  # over the edge


def test_the_ladder_leads_from_the_floor_to_the_high_platform_and_back() -> None:
    where, body = level(ladder=3), Body(60, 52)
    places = press(body, where, *[CLIMB] * 6)
    assert {x for x, _ in places} == {56}
    assert body.doing == CLIMBS
    press(body, where, CLIMB)
    assert (body.y, body.doing) == (24, STANDS)
    assert press(body, where, CLIMB) == [(56, 24)]
    press(body, where, *[DOWN] * 10)
    assert (body.y, body.doing) == (52, STANDS)
    press(body, where, CLIMB, CLIMB, LEFT)
    assert body.doing == FLIES
    press(body, where, CLIMB)
    assert (body.x, body.doing) == (56, CLIMBS)  # grasped again
    press(body, where, JUMP, NOOP, NOOP, NOOP)
    assert (body.x, body.y) == (56, 52)


def test_the_end_is_to_fall_into_the_water() -> None:
    where = level(water=1)
    assert where.water == (16, 32)
    body = Body(12, 52)
    press(body, where, RIGHT, RIGHT, RIGHT)
    assert body.doing == FLIES
    while not body.ended:
        assert body.y <= 60
        press(body, where, RIGHT)
    assert body.y == 60
    assert where.water[0] < body.x < where.water[1]
    body = Body(28, 52)
    press(body, level(low=0, high=1, ladder=1, water=2), RIGHT, JUMP, *[RIGHT] * 8)
    assert (body.y, body.doing, body.ended) == (52, STANDS, False)  # over it

    world = Playground()
    world.restore(next(state for _, _, end, state in play(world, 5, 2000) if end))
    with pytest.raises(DataError, match="end is reached"):
        world.step(NOOP)
    world.reset(1)
    for action in (-1, 6):
        with pytest.raises(DataError, match=f"no action {action}; there are noop, left, right, jump, climb, down"):
            world.step(action)


@pytest.mark.parametrize("where", LEVELS)
def test_each_coin_of_each_level_can_be_taken_and_appears_at_the_next_place(where: Level) -> None:
    for x, y in where.starts:
        body = Body(x, y)
        if touches(body, where.coins[0]):
            continue
        taken = []
        for _ in range(400):
            before = body.coin
            if advance(body, where, seek(body, where)):
                assert body.coin == (before + 1) % len(where.coins)
                taken.append(before)
            assert not body.ended
        assert taken[:8] == [0, 1, 2, 3] * 2


def test_figures_stand_on_a_grid() -> None:
    """Of four units across and two down, whatever is pressed: see `vpoet.worlds.playground.physics`."""
    world, random = Playground(), np.random.default_rng(0)
    for seed in range(20):
        world.reset(seed)
        while not world.body.ended and random.random() < 0.995:
            world.step(int(random.integers(len(ACTIONS))))
            assert (world.body.x % 4, world.body.y % 2) == (0, 0)


def test_a_prompt_says_who_and_where_and_the_seed_what_it_leaves_open() -> None:
    world = Playground()
    for seed in range(6):
        world.reset(seed, "a robot on a planet at night")
        assert (world.truth["who"], world.truth["ground"], world.truth["sky"]) == ("robot", "planet", "night")
        stated = world.truth
        world.reset(seed)
        own = world.truth
        assert {key: stated[key] for key in ("level", "x", "y", "coin")} == {
            key: own[key] for key in ("level", "x", "y", "coin")
        }
        world.reset(seed, "In fog, A Woman")
        assert (world.truth["who"], world.truth["ground"], world.truth["sky"]) == ("woman", own["ground"], "fog")
    assert {world.reset(seed) is not None and world.truth["who"] for seed in range(60)} == set(CHARACTERS)
    for nonsense in ("a dragon in a cave", "robots", "42"):
        with pytest.raises(DataError, match="names nobody and no place; for instance 'a robot on grass at night'"):
            world.reset(0, nonsense)
    with pytest.raises(DataError, match="a seed is 0 or more"):
        world.reset(-1)


def test_captions_of_both_platform_worlds_are_understood() -> None:
    for seed in range(40):
        attributes = Platformer.attributes(seed)
        for number, caption in enumerate(Platformer(16, 16, frames=1).clip(seed)[1]["caption"]):
            wanted = {name: attributes[name] for name in ("who", "ground", "sky")[: 2 if number == 0 else 3]}
            assert understood(caption) == wanted
        facts = Recordings(32, 32, frames=2).clip(seed)[1]
        for number, caption in enumerate(facts["caption"]):
            assert understood(caption) | {FAULTS: ""} == Recordings.stated(facts, number)


def frames_of(world: Playground, seeds: range, steps: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    frames, truths = [], []
    for seed in seeds:
        random = np.random.default_rng(seed)
        frames.append(world.reset(seed))
        truths.append(world.truth)
        for _ in range(steps):
            action = int(random.integers(len(ACTIONS))) if seed % 2 else seek(world.body, world.level)
            frame, _, end = world.step(action)
            frames.append(frame)
            truths.append(world.truth)
            if end:
                break
    return np.stack(frames), truths


def test_the_judge_reads_fresh_frames_and_noisy_ones() -> None:
    world = Playground()
    frames, truths = frames_of(world, range(HELD_OUT, HELD_OUT + 10), 14)
    assert len(frames) > 120
    noise = np.resize([0, 4, 10], len(frames))[:, None, None, None]  # of 36 and of 28 dB
    noisy = np.random.default_rng(0).normal(frames, noise).clip(0, 255).round().astype(np.uint8)
    assert world.see(noisy) == truths


def test_the_judge_says_what_is_there_and_not_what_should_be() -> None:
    world, painter = Playground(), Painter(64, 64)
    scene = {"who": "robot", "ground": "sand", "sky": "dusk"}
    where = level(low=1)
    empty = painter.stage("sand", "dusk", where)
    seen = world.see(empty[None])[0]
    assert seen == {**scene, "who": "", "level": LEVELS.index(where), "x": None, "y": None} | {
        "action": "", "facing": "", "coin": []
    }  # fmt: skip
    for x, y in ((20, 52), (21, 51), (33, 30), (8, 60)):
        for faces_left in (False, True):
            body = Body(x, y, doing=FLIES, down=-1, faces_left=faces_left, coin=1)
            seen = world.see(painter.frame(scene, where, body)[None])[0]
            told = {key: seen[key] for key in ("who", "x", "y", "action", "facing", "coin")}
            facing = "left" if faces_left else "right"
            assert told == {
                "who": "robot", "x": x, "y": y, "action": "jump", "facing": facing, "coin": list(where.coins[1])
            }  # fmt: skip
    with pytest.raises(ShapeError, match=r"this playground sees uint8 \[T, 64, 64, 3\]"):
        world.see(np.zeros((1, 32, 64, 3), np.uint8))
    assert world.see(np.zeros((0, 64, 64, 3), np.uint8)) == []


def test_every_pose_is_told_from_every_other() -> None:
    world, painter = Playground(), Painter(64, 64)
    where = level()
    for who in CHARACTERS:
        frames = []
        for name, left in POSES:
            frame = painter.stage("stone", "day", where).copy()
            painter.put(frame, who, (name, left), (24, 50))
            frames.append(frame)
        seen = [(one["who"], one["x"], one["y"], one["action"], one["facing"]) for one in world.see(np.stack(frames))]
        doing = [{"idle": "stand"}.get(name, name.rstrip("01234567")) for name, _ in POSES]
        facing = ["left" if left else "right" for _, left in POSES]
        assert seen == [(who, 24, 50, one, way) for one, way in zip(doing, facing, strict=True)]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 64), (128, 128)])
def test_other_sizes(height: int, width: int) -> None:
    """The same levels, seen to half a pixel."""
    world = Playground(height, width)
    frames, truths = frames_of(world, range(2), 3)
    assert frames.shape[1:] == (height, width, 3)
    half = 32 / min(height, width) + 1e-9
    for seen, truth in zip(world.see(frames), truths, strict=True):
        assert abs(seen.pop("x") - truth.pop("x")) <= half
        assert abs(seen.pop("y") - truth.pop("y")) <= half
        assert seen == truth
    for size in ((31, 64, 8.0), (64, 64, 0.0)):
        with pytest.raises(DataError, match="32 pixels or more each way, at a rate above 0"):
            Playground(*size)


def test_recordings_say_what_was_done_and_replay_to_the_same_frames() -> None:
    recordings, world = Recordings(32, 32, 8.0, 25), Playground(32, 32)
    holds, lengths = [], []
    for seed in range(60):
        frames, facts = recordings.clip(seed)
        again, same = recordings.clip(seed)
        assert (again == frames).all()
        assert same == facts
        steps = facts["frames"] - 1
        lengths.append(steps)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["action_space"] == {"names": list(ACTIONS)}
        assert facts["policy"] == POLICIES[seed % 2] == recordings.attributes(seed)["policy"]
        rewards, ends = facts["outcomes"]["reward"], facts["outcomes"]["end"]
        assert len(facts["actions"]) == len(rewards) == len(ends) == steps == len(frames) - 1
        assert not any(ends[:-1])
        assert ends[-1] or steps == 24
        spans = [(one["from"], one["to"]) for one in facts["captions"]]
        assert [first for first, _ in spans] == [0, *(last for _, last in spans[:-1])]
        assert spans[-1][1] == len(frames)
        truth = facts["truth"]
        assert {name: truth[name] for name in ("who", "ground", "sky")}.items() <= recordings.attributes(seed).items()
        for step, reward in enumerate(rewards):
            assert (truth["coin"][step + 1] != truth["coin"][step]) == bool(reward)
        world.restore(bytes.fromhex(facts["state"]))
        for action, frame, reward, end in zip(facts["actions"], frames[1:], rewards, ends, strict=True):
            shown, *outcome = world.step(action)
            assert (shown == frame).all()
            assert outcome == [reward, end]
        if facts["policy"] == "random":
            holds += [len(list(run)) for _, run in groupby(facts["actions"])]
    assert set(lengths) > {24}
    assert max(lengths) == 24
    assert min(lengths) >= 1
    assert np.mean(holds) < LONGEST_HOLD / 2


def test_restless_players_press_all_keys_where_others_press_few() -> None:
    """On the ladder who goes for the coin never lets go; and what a restless one does replays like any recording."""
    found: dict[str, Counter[str]] = {}
    for name in ("playground", "restless"):
        clips = worlds.find(name)(64, 64, 8, 33)
        told = [clips.clip(seed)[1] for seed in range(40)]
        found[name] = Counter(
            ACTIONS[action]
            for facts in told
            for action, doing in zip(facts["actions"], facts["truth"]["action"], strict=False)
            if doing == "climb"
        )
    assert found["playground"]["noop"] < 3
    assert min(found["restless"][name] for name in ACTIONS) > 8
    restless = worlds.find("restless")(64, 64, 8, 9)
    frames, facts = restless.clip(3)
    assert facts["policy"] == restless.attributes(3)["policy"] == "restless"
    assert {key: facts["truth"][key] for key in ("who", "ground", "sky")}.items() <= Recordings.attributes(3).items()
    world = restless.stepped(64, 64, 8)
    world.restore(bytes.fromhex(facts["state"]))
    assert all(
        np.array_equal(world.step(action)[0], frame) for action, frame in zip(facts["actions"], frames[1:], strict=True)
    )
    assert np.array_equal(restless.clip(3)[0], frames)


def test_clips_that_the_world_could_not_have_drawn_have_faults() -> None:
    world = Recordings(64, 64, 8.0, 8)
    frames, facts = world.clip(4)
    assert world.see(frames) == world.stated(facts, 1)
    truth = facts["truth"]
    assert world.see(np.concatenate([frames[:4], world.clip(5)[0]]))[FAULTS].startswith("another ground")
    frames, facts = Recordings(64, 64, 8.0, 33).clip(2)
    way = np.abs(np.array(facts["truth"]["x"]) - facts["truth"]["x"][0])
    assert way.max() > 10
    assert world.see(frames[[0, way.argmax()]])[FAULTS] == "leap"
    empty = Painter(64, 64).stage(truth["ground"], truth["sky"], LEVELS[truth["level"]])
    assert world.see(np.stack([frames[0], empty]))[FAULTS].endswith("nobody, no coin")


def test_recordings_become_raw_shards_without_loss(
    tmp_path: Path, program: Callable[..., tuple[int, str, str]]
) -> None:
    settings = ("--clips", 12, "--frames", 9, "--height", 32, "--width", 32, "--out", tmp_path / "raw")
    status, _, err = program("train/ingest.py", "world:playground", *settings)
    assert status == 0, err
    assert (tmp_path / "raw" / "clips.png").exists()
    samples = list(read_samples(tmp_path / "raw"))
    world = Recordings(32, 32, 8.0, 9)
    assert len(samples) == 12
    for seed, sample in enumerate(samples):
        frames, facts = world.clip(seed)
        assert (Video.read(sample.video).frames == frames).all()
        assert {key: sample.json[key] for key in facts} == json.loads(json.dumps(facts))
    asked = prompts(tmp_path / "raw", 3)
    assert [prompt.stated.keys() for prompt in asked][1] == {"who", "ground", "sky", FAULTS}
    assert worlds.drawn_by(samples[0].json) is Recordings
