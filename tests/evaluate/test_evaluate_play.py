"""The judge of a learned world: full marks for the simulator itself, none for one that does not answer."""

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.evaluate import play
from vpoet.evaluate.keys import telling
from vpoet.evaluate.physics import physics, trials
from vpoet.worlds.world import SteppedWorld

WORLD, SIZE, FPS = worlds.find("playground"), (64, 64), 8.0
COURSES = list(islice(play.courses(WORLD, SIZE, FPS, 4, 16), 6))


class Player:
    """The simulator as a learned world; ``deaf`` to keys if so asked."""

    def __init__(self, deaf: bool = False) -> None:
        self.world = WORLD.stepped(*SIZE, FPS)
        self.actions, self.deaf = self.world.actions, deaf

    def begin(self, seed: int, prompt: str, frames: Frames, actions: Any, rewards: Any) -> Frames:
        (course,) = (one for one in COURSES if np.array_equal(one.seen, frames))
        self.world.restore(course.state)
        last: Frames = course.seen[-1]
        return last

    def step(self, key: int) -> tuple[Frames, float, bool]:
        frame, reward, ended = self.world.step(0 if self.deaf else key)
        return frame, reward, ended

    def fork(self) -> "Player":
        other = Player(self.deaf)
        other.world.restore(self.world.save())
        return other


@pytest.fixture
def simulator() -> SteppedWorld:
    return WORLD.stepped(*SIZE, FPS)


def test_courses_are_recordings_that_go_on_from_their_state(simulator: SteppedWorld) -> None:
    for course in COURSES:
        simulator.restore(course.state)
        frames = [simulator.step(key)[0] for key in course.keys]
        np.testing.assert_array_equal(np.stack(frames), course.frames)
        assert (len(course.seen), len(course.did), len(course.keys)) == (4, 3, 16)


def test_the_simulator_itself_makes_no_error_and_heeds_every_key(simulator: SteppedWorld) -> None:
    pairs = []
    for course in COURSES:
        dreamt, rewards = play.dream(Player(), course, course.keys, 0)  # type: ignore[arg-type]
        np.testing.assert_array_equal(dreamt, course.frames)
        assert play.errors(simulator, dreamt, course.places).max() == 0
        assert play.coins(course.rewards, rewards)[0] == sum(reward > 0 for reward in course.rewards)
        assert all(play.soundness(simulator, course.seen[-1:], dreamt))
        pairs += play.followed(Player(), simulator, course, 0)  # type: ignore[arg-type]
    assert len(pairs) > len(COURSES)
    assert all(given == read for given, read in pairs)
    assert play._f1(pairs) == 1


def test_the_simulator_itself_jumps_and_stops_as_it_does_and_a_deaf_one_does_not(simulator: SteppedWorld) -> None:
    def rows(deaf: bool) -> list[dict[str, Any]]:
        def begun(course: play.Course) -> Player:
            player = Player(deaf)
            player.world.restore(course.state)
            return player

        return [trials(partial(begun, course), simulator, course.state) for course in COURSES]

    found = physics(rows(deaf=False))
    assert found["jumps"]
    assert found["walls"]
    assert (found["apex_error"], found["air_time_error"], found["wall_error"]) == (0, 0, 0)
    jumps = [one["jump"] for one in rows(deaf=False) if "jump" in one]
    assert max(rise for rise, *_ in jumps) == 20, "8 + 6 + 4 + 2 units, of vpoet.worlds.playground.physics"
    deaf = rows(deaf=True)
    assert physics(deaf)["apex_error"] == np.median([rise for rise, *_ in jumps])
    assert all(one["jump"][3] == 0 for one in deaf if "jump" in one)
    assert any(one["wall"][1] != one["wall"][0] for one in deaf if "wall" in one)


def test_one_that_is_deaf_follows_one_key_in_several(simulator: SteppedWorld) -> None:
    pairs = [
        pair
        for course in COURSES
        for pair in play.followed(Player(deaf=True), simulator, course, 0)  # type: ignore[arg-type]
    ]
    assert np.mean([given == read for given, read in pairs]) <= 0.5
    assert play._f1(pairs) < 0.3


def test_nobody_and_frames_that_are_missing_are_infinitely_far(simulator: SteppedWorld) -> None:
    course = COURSES[0]
    far = play.errors(simulator, np.zeros((2, 64, 64, 3), np.uint8), course.places)
    assert far.shape == (16,)
    assert np.isinf(far).all()


def test_another_scene_is_not_sound(simulator: SteppedWorld) -> None:
    one, other = COURSES[0], next(course for course in COURSES if course.text != COURSES[0].text)
    assert not any(play.soundness(simulator, one.seen[-1:], other.frames))


@pytest.mark.parametrize(
    ("real", "dreamt", "found"),
    [
        ([0, 1, 0, 0], [0, 0, 1, 0], (1, 1, 1)),
        ([0, 1, 0, 0], [0, 0, 0, 1], (0, 1, 1)),
        ([0, 1, 0, 0], [1, 1, 1, 0], (1, 3, 1)),
        ([1, 0, 0, 1], [0, 0, 0, 0], (0, 0, 2)),
    ],
)
def test_coins(real: Sequence[float], dreamt: Sequence[float], found: tuple[int, int, int]) -> None:
    assert play.coins(real, dreamt) == found


def test_a_summary_has_medians_and_percentiles_over_courses() -> None:
    rows = [
        {"frames": 8, "error_8": error, "ceiling_8": 0.0, "psnr_8": 30.0, "psnr_ceiling": 40.0, "psnr_lost": None}
        | {"followed": [(1, 1), (2, 1)], "key_bits": 3.0, "sound": 4, "sound_ceiling": 1.0, "coins": (1, 1, 2)}
        for error in (0.0, 1.0, None)
    ]
    found = play.summary(rows)
    assert (found["error_8"], found["error_8_p90"], found["sound"]) == (1.0, None, 0.5)
    assert found["coins_f1"] == pytest.approx(2 / 3)
    assert found["followed_f1"] == pytest.approx((2 * 3 / 9 + 0) / 2)


def test_a_key_can_be_told_where_every_other_one_leads_to_another_frame(simulator: SteppedWorld) -> None:
    told = []
    for course in islice(play.courses(worlds.find("playground"), (64, 64), 8, 4, 12), 6):
        found = telling(simulator, course.state, course.keys)
        simulator.restore(course.state)
        for key, one in zip(course.keys, found, strict=True):
            state = simulator.save()
            frames = []
            for other in range(len(simulator.actions)):
                simulator.restore(state)
                frames.append(simulator.step(other)[0].tobytes())
            assert one == (frames.count(frames[key]) == 1)
            simulator.restore(state)
            simulator.step(key)
        told += found.tolist()
    assert 0 < sum(told) < len(told)
