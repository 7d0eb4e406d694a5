"""Breakout of the Atari console: a paddle, a ball, six rows of bricks, and numbers above them.

The judge draws with the console itself, by writing its memory: the picture without bricks, each digit of the score and
each number of lives; bricks are what it shows where they are. Which bricks there are is told by least squares; the ball
and the paddle are the middle of what is red beyond them; numbers are those whose picture is nearest.

Places are in the console's own pixels, 210 rows of 160. Shapes: T frames; H, W sides of a frame; B bricks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.errors import ShapeError
from vpoet.worlds.environments.known import Environment, Measure, Told, densest

HIGH, WIDE = 210, 160
LEFT, RIGHT, TOP = 8, 152, 32
"""The field: between its walls, and below its ceiling."""
BRICKS_TOP, BRICK_HIGH, BRICK_WIDE, ROWS, COLUMNS = 57, 6, 8, 6, 18
PADDLE, PADDLE_HIGH, PADDLE_WIDE = 189, 4, 16
BALL_HIGH, BALL_WIDE = 4, 2
RED = (200, 72, 72)
"""Of ball and paddle."""
NUMBERS = 17
"""Above this row are the score and the lives."""
PADDLE_X, LIVES, SCORE, BALL_X, BALL_Y = 72, 57, (76, 77), 99, 101
"""Bytes of the memory; the score has two decimal digits a byte."""
MOST_LIVES = 5
PLAIN, UNLIKE = 0.4, 0.15
"""Share of ball and paddle that has to be seen, and how much of a pixel's difference is not red."""
NOOP, FIRE, TO_RIGHT, TO_LEFT = range(4)
ERRS, NEAR = 0.1, 4
"""Chance of the player, at each step, to press anything for a while; and how near to the ball is below it."""


class Breakout(Environment):
    measures = (
        Measure("paddle", ("paddle_x",), "pixels of 160"),
        Measure("ball", ("ball_x", "ball_y"), "pixels of 160x210", always=False),
        Measure("lives", ("lives",), "lives"),
        Measure("score", ("score",), "points"),
    )
    left_out = (
        "jumps and walls, as nobody jumps; keys read off frames, as to know which can be told takes a restored state "
        "for each key of each frame, and a state is restored by playing it again"
    )
    scores = True

    def __init__(self, make: Callable[[], Any], squeeze: Callable[[Frames], Frames]) -> None:
        console = make().unwrapped
        full, _ = console.reset(seed=0)
        bare = full.copy()
        bare[BRICKS_TOP : BRICKS_TOP + ROWS * BRICK_HIGH, LEFT:RIGHT] = 0
        bare[PADDLE : PADDLE + PADDLE_HIGH, LEFT:RIGHT] = 0
        self._bare = squeeze(bare).astype(float)
        self._size = self._bare.shape[:2]
        unit = HIGH / self._size[0], WIDE / self._size[1]
        self._unit = unit
        self._bricks = slice(int(BRICKS_TOP / unit[0]), int(np.ceil((BRICKS_TOP + ROWS * BRICK_HIGH) / unit[0])))
        drawn = [squeeze(_only(full, *_brick(number))) for number in range(ROWS * COLUMNS)]
        self._drawn_BHW3 = np.stack(drawn).astype(float)
        self._told_BP = np.linalg.pinv(self._drawn_BHW3[:, self._bricks].reshape(len(drawn), -1).T)
        self._lives, *self._digits = _glyphs(console, squeeze, int(NUMBERS / unit[0]))

    @staticmethod
    def truth(told: Told) -> dict[str, float | None]:
        ram = told["ram"]
        left = ram[PADDLE_X] - 47
        seen = max(left, LEFT), min(left + PADDLE_WIDE, RIGHT)  # the walls hide what is beyond
        x, y = ram[BALL_X] - 49 + BALL_WIDE / 2, ram[BALL_Y] + 9 + BALL_HIGH / 2
        there = ram[BALL_Y] and y < PADDLE - BALL_HIGH  # lower, paddle and ball are one thing to see
        high, low = (10 * (ram[byte] >> 4) + (ram[byte] & 15) for byte in SCORE)
        return {
            "paddle_x": sum(seen) / 2,
            "ball_x": x if there else None,
            "ball_y": y if there else None,
            "lives": ram[LIVES],
            "score": 100 * high + low,
        }

    def see(self, frames: Frames) -> list[dict[str, float | None]]:
        """ShapeError: frames of another size."""
        if frames.shape[1:3] != self._size:
            raise ShapeError(f"frames of {frames.shape[1:3]}, and this judge sees {self._size}")
        return [self._look(frame.astype(float)) for frame in frames]

    @staticmethod
    def player(random: np.random.Generator) -> Callable[[Told], Any]:
        return Follower(random)

    def _look(self, frame_HW3: Doubles) -> dict[str, float | None]:
        rest_HW3 = frame_HW3 - self._bare
        there_B = self._told_BP @ rest_HW3[self._bricks].ravel() > 0.5
        rest_HW3 = rest_HW3 - self._drawn_BHW3[there_B].sum(0)
        red_HW = (rest_HW3 @ np.array(RED) / np.dot(RED, RED)).clip(0, 1)
        unlike_HW = ((rest_HW3 - red_HW[..., None] * np.array(RED)) ** 2).sum(-1)
        red_HW = np.where(unlike_HW < UNLIKE * (rest_HW3**2).sum(-1), red_HW, 0)
        rows = [int(row / self._unit[0]) for row in (TOP, PADDLE, PADDLE + PADDLE_HIGH)]
        columns = slice(round(LEFT / self._unit[1]), round(RIGHT / self._unit[1]))
        area = self._unit[0] * self._unit[1]
        ball = _middle(red_HW[rows[0] : rows[1], columns], PLAIN * BALL_HIGH * BALL_WIDE / area)
        strip_HW = red_HW[rows[1] : rows[2] + 1, columns]
        strip_HW = np.where(strip_HW > strip_HW.max() / 3, strip_HW, 0)
        paddle = None
        if strip_HW.sum() >= PLAIN * PADDLE_HIGH * PADDLE_WIDE / 2 / area:
            shares = strip_HW.sum(0)
            paddle = float((shares * (np.arange(len(shares)) + 0.5)).sum() / shares.sum()) + columns.start
        return {
            "paddle_x": None if paddle is None else paddle * self._unit[1],
            "ball_x": None if ball is None else (ball[1] + columns.start) * self._unit[1],
            "ball_y": None if ball is None else (ball[0] + rows[0]) * self._unit[0],
            "lives": self._lives.nearest(frame_HW3),
            "score": sum(10**place * digits.nearest(frame_HW3) for place, digits in enumerate(self._digits)),
        }


class Follower:
    """Keeps the paddle below the ball, and errs; what is random is drawn from ``random``."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._left = self._key = 0

    def __call__(self, told: Told) -> int:
        if not self._left and self._random.random() < ERRS:
            self._left, self._key = int(self._random.integers(1, 9)), int(self._random.integers(4))
        if self._left:
            self._left -= 1
            return self._key
        ram = told["ram"]
        if not ram[BALL_Y]:
            return FIRE
        off = ram[BALL_X] - 48 - (ram[PADDLE_X] - 47 + PADDLE_WIDE / 2)
        return NOOP if abs(off) <= NEAR else TO_RIGHT if off > 0 else TO_LEFT


class _Glyphs:
    """Pictures of one number at its place: of the first, the next ..."""

    def __init__(self, first: int, pictures: Sequence[Frames]) -> None:
        self._first = first
        self._pictures = np.stack(pictures).astype(float)
        self._where = (self._pictures != self._pictures[0]).any((0, 3))

    def nearest(self, frame_HW3: Doubles) -> int:
        told = frame_HW3[: len(self._where)][self._where]
        return self._first + int(((self._pictures[:, self._where] - told) ** 2).sum((1, 2)).argmin())


def _glyphs(console: Any, squeeze: Callable[[Frames], Frames], rows: int) -> list[_Glyphs]:
    """Of the lives, and of the score's ones, tens and hundreds."""

    def painted(byte: int, values: Sequence[int], first: int = 0) -> _Glyphs:
        pictures = []
        for value in values:
            console.reset(seed=0)
            console.ale.setRAM(byte, value)
            pictures.append(squeeze(console.step(NOOP)[0])[:rows])
        return _Glyphs(first, pictures)

    hundreds, rest = SCORE
    digits = range(10)
    ones, tens = painted(rest, digits), painted(rest, [digit << 4 for digit in digits])
    lives = painted(LIVES, range(1, MOST_LIVES + 1), first=1)  # with none the game is over
    return [lives, ones, tens, painted(hundreds, digits)]


def _brick(number: int) -> tuple[slice, slice]:
    """Rows and columns."""
    row, column = divmod(number, COLUMNS)
    top, left = BRICKS_TOP + row * BRICK_HIGH, LEFT + column * BRICK_WIDE
    return slice(top, top + BRICK_HIGH), slice(left, left + BRICK_WIDE)


def _only(picture: Frames, rows: slice, columns: slice) -> Frames:
    alone = np.zeros_like(picture)
    alone[rows, columns] = picture[rows, columns]
    return alone


def _middle(share_HW: Doubles, least: float) -> tuple[float, float] | None:
    """Row and column of the middle of what is densest in a window of three pixels a side, if it comes to ``least``."""
    row, column = densest(share_HW, 3, 3)
    rows, columns = (slice(max(0, round(at - 1.5)), round(at + 1.5)) for at in (row, column))
    near_HW = share_HW[rows, columns]
    if near_HW.sum() < least:
        return None
    y, x = (np.arange(side) + 0.5 for side in near_HW.shape)
    middle = (near_HW.sum(1) @ y / near_HW.sum(), near_HW.sum(0) @ x / near_HW.sum())
    return float(middle[0]) + rows.start, float(middle[1]) + columns.start


ENVIRONMENT = Breakout
