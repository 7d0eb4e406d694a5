"""PushT (gym-pusht): a disc that pushes a block in the shape of a T over a board of 512 units a side.

The judge knows the colours of disc and block, and the board as it is drawn without them. Each pixel is so much board,
so much disc and so much block, which is a linear equation, as pictures are made smaller by averaging. The disc's place
is the middle of its share; the block's place and angle are those at which a T that is drawn with soft edges differs
least from its share, found by Gauss-Newton from all angles.

Shapes: T frames; H, W sides of a frame; N poses that are tried.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vpoet.arrays import Doubles, Frames
from vpoet.errors import ShapeError
from vpoet.worlds.environments.known import Environment, Measure, Told, densest

BOARD = 512.0
RADIUS = 15.0
"""Of the disc, in units."""
BAR, STEM, END = 60.0, 15.0, 120.0
"""Of the T, whose bar's upper edge is the x-axis of its own coordinates: half the bar's length; half the width of the
stem, and twice that is the width of the bar; how far down the stem goes."""
MIDDLE = (3600 * 15 + 2700 * 75) / 6300
"""How far below its origin the T's centre of area is."""
DISC, BLOCK = (78, 126, 255), (143, 163, 184)
"""Their colours within: royal blue and light slate grey, a fifth lighter than at their outlines."""
CLEAR, UNLIKE = 0.3, 0.25
"""Share of a pixel from which on it counts, and how much of its difference from the board is neither disc nor block."""
CORNER, HALF = 0.2, 0.5
"""Shares of the disc, which may lie in a corner and then is cut, and of the block that have to be seen."""
FITS = 0.6
"""Share of the area that block and T have in common, of what they cover together, from which on it is a T."""
STEPS = 12
"""Of Gauss-Newton."""
ANGLES = 24
"""From which it begins; it goes on from the best two."""
STRIDE, AROUND, AWAY = 70.0, 90.0, 75.0
"""Of the pusher, in units: how far ahead it is told to go, of which a step covers a quarter and more; how far it keeps
from the block's middle on its way around; and how far behind that it goes to either side."""
FIELD, CLOSE, TRIES, ASIDE = (130.0, 382.0), 20.0, 60, 25.0
"""Where it takes the block, when it is there, how many steps it tries, and how far beside the middle it pushes."""
WANDERS = 0.02
"""Chance, at each step, to go anywhere for a while."""


class PushT(Environment):
    """Angles are in degrees, all else in units of the board."""

    options = {"obs_type": "pixels"}  # noqa: RUF012 what PushT renders otherwise has a cross where the action leads
    measures = (
        Measure("agent", ("agent_x", "agent_y"), "units of a board of 512"),
        Measure("block", ("block_x", "block_y"), "units of a board of 512"),
        Measure("angle", ("angle",), "degrees", turn=360),
    )
    near = (
        (Measure("places", ("agent_x", "agent_y", "block_x", "block_y"), "units of a board of 512"), 20),
        (Measure("angle", ("angle",), "degrees", turn=360), 20),
    )  # DINO-WM's, arXiv:2411.04983: the two places are one vector
    left_out = (
        "jumps and walls, as nobody jumps; keys read off frames, as vectors are not keys; rewards, as PushT's is the "
        "share of the goal that is covered, and so above 0 nearly everywhere"
    )
    scores = False

    def __init__(self, make: Callable[[], Any], squeeze: Callable[[Frames], Frames]) -> None:
        board_HW3 = _board(make().unwrapped, squeeze).astype(float)
        self._board = board_HW3
        self._things = np.stack([np.array(colour) - board_HW3 for colour in (DISC, BLOCK)], -1)  # [H, W, 3, 2]
        self._shares = np.linalg.pinv(self._things)
        high, wide = board_HW3.shape[:2]
        self._unit = BOARD / high, BOARD / wide
        rows, columns = (np.arange(high) + 0.5) * self._unit[0], (np.arange(wide) + 0.5) * self._unit[1]
        self._y, self._x = np.meshgrid(rows, columns, indexing="ij")

    @staticmethod
    def truth(told: Told) -> dict[str, float | None]:
        (agent_x, agent_y), (x, y, angle) = told["pos_agent"], told["block_pose"]
        return {"agent_x": agent_x, "agent_y": agent_y, "block_x": x, "block_y": y, "angle": math.degrees(angle) % 360}

    def see(self, frames: Frames) -> list[dict[str, float | None]]:
        """ShapeError: frames of another size."""
        if frames.shape[1:] != self._board.shape:
            raise ShapeError(f"frames of {frames.shape[1:]}, and this judge sees {self._board.shape}")
        found = list[dict[str, float | None]]()
        for frame in frames:
            shares_HW2 = self._shared(frame - self._board)
            agent, pose = self._disc(shares_HW2[..., 0]), self._tee(shares_HW2[..., 1])
            found.append(dict(zip(("agent_x", "agent_y", "block_x", "block_y", "angle"), agent + pose, strict=True)))
        return found

    @staticmethod
    def player(random: np.random.Generator) -> Callable[[Told], Any]:
        return Pusher(random)

    def _shared(self, rest_HW3: Doubles) -> Doubles:
        """[H, W, 2]: how much of each pixel is disc and block, where that explains most of what is not board."""
        shares_HW2: Doubles = np.einsum("hwsc,hwc->hws", self._shares, rest_HW3)
        left_HW3 = rest_HW3 - np.einsum("hwcs,hws->hwc", self._things, shares_HW2)
        explained_HW = (left_HW3**2).sum(-1) < UNLIKE * (rest_HW3**2).sum(-1)
        clear_HW2: Doubles = np.where((shares_HW2 > CLEAR) & explained_HW[..., None], shares_HW2, 0).clip(0, 1)
        return clear_HW2

    def _disc(self, share_HW: Doubles) -> tuple[float | None, float | None]:
        """Where its middle is: about, where most of it is, and then by what is within its reach of there."""
        reach = RADIUS + max(self._unit) / 2
        row, column = densest(share_HW, *(round(2 * RADIUS / unit) for unit in self._unit))
        for _ in range(2):
            y, x = row * self._unit[0], column * self._unit[1]
            near_HW = np.where(np.hypot(self._x - x, self._y - y) <= reach, share_HW, 0)
            if near_HW.sum() < math.pi * RADIUS**2 / (self._unit[0] * self._unit[1]) * CORNER:
                return None, None
            x, y = (float((near_HW * axis).sum() / near_HW.sum()) for axis in (self._x, self._y))
            row, column = y / self._unit[0], x / self._unit[1]
        return x, y

    def _tee(self, share_HW: Doubles) -> tuple[float | None, float | None, float | None]:
        """Origin and angle; nothing where there is no such thing."""
        if share_HW.sum() * self._unit[0] * self._unit[1] < HALF * (3600 + 2700):
            return None, None, None
        x, y = (float((share_HW * axis).sum() / share_HW.sum()) for axis in (self._x, self._y))
        angles_N = np.arange(ANGLES) * 2 * math.pi / ANGLES
        poses_N3 = np.stack(
            [x + MIDDLE * np.sin(angles_N), y - MIDDLE * np.cos(angles_N), angles_N], -1
        )  # all have their centre of area at (x, y)
        lost_N = self._lost(poses_N3, share_HW)
        found = [self._fitted(poses_N3[at], share_HW) for at in lost_N.argsort()[:2]]
        pose_3 = min(found, key=lambda pose: float(self._lost(pose[None], share_HW)[0]))
        drawn_HW = self._drawn(pose_3[None])[0]
        if np.minimum(drawn_HW, share_HW).sum() < FITS * np.maximum(drawn_HW, share_HW).sum():
            return None, None, None
        return float(pose_3[0]), float(pose_3[1]), math.degrees(pose_3[2]) % 360

    def _fitted(self, pose_3: Doubles, share_HW: Doubles) -> Doubles:
        nudge_33 = np.diag([1.0, 1.0, 0.02])
        for _ in range(STEPS):
            drawn_NHW = self._drawn(np.concatenate([pose_3 + nudge_33, pose_3 - nudge_33, pose_3[None]]))
            slopes_P3 = ((drawn_NHW[:3] - drawn_NHW[3:6]).reshape(3, -1) / 2).T
            step_3 = np.linalg.lstsq(slopes_P3, (share_HW - drawn_NHW[6]).ravel(), rcond=None)[0]
            pose_3 = pose_3 + nudge_33.diagonal() * step_3.clip(-10, 10)
            if np.abs(step_3).max() < 1e-2:
                break
        return pose_3

    def _lost(self, poses_N3: Doubles, share_HW: Doubles) -> Doubles:
        lost_N: Doubles = ((self._drawn(poses_N3) - share_HW) ** 2).sum((1, 2))
        return lost_N

    def _drawn(self, poses_N3: Doubles) -> Doubles:
        """[N, H, W]: the share of each pixel that a T covers, by how far its middle is from the nearest edge."""
        x_N, y_N, angle_N = poses_N3.T[:, :, None, None]
        right, down = self._x - x_N, self._y - y_N
        across = np.cos(angle_N) * right + np.sin(angle_N) * down
        along = np.cos(angle_N) * down - np.sin(angle_N) * right
        outside = np.minimum(
            np.maximum(np.abs(across) - BAR, np.abs(along - STEM) - STEM),
            np.maximum(np.abs(across) - STEM, np.abs(along - END / 2) - END / 2),
        )
        share_NHW: Doubles = (0.5 - outside / (0.5 * sum(self._unit))).clip(0, 1)
        return share_NHW


class Pusher:
    """Takes the block from place to place: goes around it, and through it.

    Where the disc has to go is told a little at a time, so that it does not run; it pushes beside the block's middle as
    often as at it, so that the block turns; and sometimes it goes anywhere. What is random is drawn from ``random``.
    """

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._left = self._astray = 0
        self._place, self._goal, self._aside = np.zeros(2), np.zeros(2), 0.0

    def __call__(self, told: Told) -> list[float]:
        agent, pose = np.array(told["pos_agent"]), np.array(told["block_pose"])
        middle = pose[:2] + MIDDLE * np.array([-math.sin(pose[2]), math.cos(pose[2])])
        if not self._left or math.dist(middle, self._place) < CLOSE:
            self._left = TRIES
            self._place = self._random.uniform(*FIELD, size=2)
            self._aside = self._random.uniform(-1, 1) * ASIDE
        self._left -= 1
        if not self._astray and self._random.random() < WANDERS:
            self._astray, self._goal = int(self._random.integers(3, 9)), self._random.uniform(0, BOARD, size=2)
        if self._astray:
            self._astray -= 1
            return _within(self._goal)
        way = (self._place - middle) / max(math.dist(self._place, middle), 1e-6)
        side = np.array([-way[1], way[0]])
        behind = middle - (AWAY + STEM) * way + self._aside * side
        off = agent - middle
        aside = float(off @ side)
        if off @ way < 0 and abs(aside - self._aside) < 2 * STEM:
            return _within(agent + STRIDE * way)
        if off @ way > -AWAY:  # around, not through
            return _within(agent + STRIDE * (math.copysign(1, aside) * side if abs(aside) < AROUND else -way))
        return _within(agent + _short(behind - agent))


def _short(vector: Doubles) -> Doubles:
    far = float(np.hypot(*vector))
    return vector * min(1, STRIDE / max(far, 1e-6))


def _within(target: Doubles) -> list[float]:
    """As the environment takes it."""
    return [float(value) for value in target.clip(0, BOARD).astype(np.float32)]


def _board(env: Any, squeeze: Callable[[Frames], Frames]) -> Frames:
    """The board without disc and block: of two pictures, with both at the left and at the right, the halves where
    neither is."""
    left, right = ([side, 430, side, 80, 0] for side in (80, 432))
    high = squeeze(env.reset(seed=0, options={"reset_to_state": np.array(left)})[0])
    other = squeeze(env.reset(seed=0, options={"reset_to_state": np.array(right)})[0])
    half = high.shape[1] // 2
    return np.concatenate([other[:, :half], high[:, half:]], 1)


ENVIRONMENT = PushT
