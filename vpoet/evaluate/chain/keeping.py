"""Keeping a chain to its hours: what a machine could do at its start is not what it can do an hour later.

Somebody works beside it, or stops to. So a training gets other steps where all would end too late by what came before
it and by how fast it goes, or so early that something more could be learnt. It is stopped for that, which saves it, and
goes on: its learning rate falls to the end that it has then.
"""

import json
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from vpoet.evaluate.chain.plan import AIM, LEAST
from vpoet.evaluate.chain.stages import Plan

EARLY = 0.85
"""Of the hours: a chain that would end before gets more steps, while it is in the first half of a training."""
RESTART = 30.0
"""Seconds that stopping a training and going on takes: one that ends in less is left alone."""
WINDOW, PART = 120.0, 0.15
"""Seconds of a training that tell how fast it goes, at least, and their part of what it is planned to take: evaluations
and checkpoints lie between steps."""
LOOKS = 5.0
"""Seconds between two looks."""
TAIL, ROWS = 1 << 16, 30
"""Bytes at the end of a run's metrics that are read, and rows of these that are looked at."""
EVALUATED = ("heldout/", "seen/")
"""What the names of what an evaluation tells begin with."""


def fitted(plan: Plan, name: str, spent: float, took: float = 0.0, done: int = 0, pace: float | None = None) -> Plan:
    """The plan, with other steps of a training where all would end too late or too early; itself where not.

    ``spent``: seconds of all before that training. ``took``: its own until now, in which it did so many steps.
    ``pace``: seconds that a step takes; None: as planned.
    """
    stage, steps = plan.stage(name), plan.steps(name)
    pace = stage.seconds / steps if pace is None else pace
    left = (steps - done) * pace
    late = took + left > plan.room(name, spent, 1.0)
    early = took + left < plan.room(name, spent, EARLY) and 2 * done < steps < stage.most
    if not (late or early) or (done and left < RESTART):
        return plan
    room = plan.room(name, spent, AIM) - took - (RESTART if done else 0.0)
    least = min(steps, max(LEAST, done + 1 + int(RESTART / pace) if done else 0))
    new = max(least, min(done + int(room / pace), steps if late else stage.most))
    if new == steps:
        return plan
    why = "time is shorter" if late else "there is more time"
    return plan.with_steps(name, new, took + (new - done) * pace, f"{name}: {why} than planned: {new:,} steps")


class Watch:
    """Looks at how fast a training goes, by its run folder's metrics, and stops it where `fitted` gives it other steps:
    `plan` then has them."""

    def __init__(
        self, plan: Plan, name: str, spent: float, metrics: Path, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.plan = plan
        self._name, self._spent, self._metrics, self._clock = name, spent, metrics, clock
        self._window = max(WINDOW, PART * plan.stage(name).seconds)
        self._step: int | None = None
        self._next = self._seen = clock()
        self._recent: deque[tuple[float, int]] = deque()
        """Seconds and steps between two looks that saw another step; evaluations, which are few, do not count."""

    def __call__(self, took: float) -> bool:
        """Whether the training, which took so many seconds, is to be stopped."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + LOOKS
        rows = last_rows(self._metrics)
        step = max(rows, default=None)
        if step is None or step == self._step:
            return False
        passed, began, self._seen, self._step = now - self._seen, self._step, now, step
        if began is None or step < began or any(rows[at] for at in rows if at > began):
            return False
        self._recent.append((passed, step - began))
        while sum(seconds for seconds, _ in self._recent) - self._recent[0][0] >= self._window:
            self._recent.popleft()
        seconds, steps = (sum(each) for each in zip(*self._recent, strict=True))
        if seconds < self._window:
            return False
        plan = fitted(self.plan, self._name, self._spent, took, step, seconds / steps)
        changed, self.plan = plan is not self.plan, plan
        return changed


def last_rows(metrics: Path) -> dict[int, bool]:
    """The last steps that a run's metrics tell of, and whether it was evaluated after each."""
    found: dict[int, bool] = {}
    try:
        with metrics.open("rb") as lines:
            lines.seek(max(0, os.fstat(lines.fileno()).st_size - TAIL))
            whole = lines.read().split(b"\n")[:-1]
        for line in whole[-ROWS:]:
            row = json.loads(line)
            found[int(row["step"])] = any(name.startswith(EVALUATED) for name in row)
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or of a run that was killed while it wrote
        pass
    return found
