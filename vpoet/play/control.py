"""Model-predictive control: plan, carry out the first actions of the plan, look, and plan again.

world      what is acted in, and planned in too, by saving and restoring it: the oracle
dream      makes a learned world of all that was seen and done, to plan in instead
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vpoet.arrays import Frames
from vpoet.play.costs import Cost, Goal
from vpoet.play.futures import Actions, Future, Place, carried_out
from vpoet.play.planners import Planned, Planner, search
from vpoet.play.proposals import anything
from vpoet.sequence.actions import ActionSpace
from vpoet.worlds.world import SteppedWorld


@dataclass(frozen=True, eq=False, slots=True)
class Seen:
    """What was seen and done so far."""

    frames: Frames
    """uint8 [T + 1, H, W, 3]"""
    actions: Actions
    """[T] or [T, D]: those between the frames."""
    rewards: list[float]
    """[T]"""

    def last(self, frames: int) -> "Seen":
        """No more than so many frames, 1 or more, and what was done between them."""
        first = max(len(self.frames) - frames, 0)
        return Seen(self.frames[first:], self.actions[first:], self.rewards[first:])


Dream = Callable[[Seen], Place]
"""A learned world at the last frame of what was seen."""
Suggest = Callable[[Seen], Sequence[Actions]]
"""Whole plans, [K] or [K, D] each, that may be good ones from there."""


@dataclass(frozen=True, eq=False, slots=True)
class Episode:
    """What was done in a world, as it was planned and as it came."""

    first: Frames
    searches: list[Planned]
    """Each from where the plan before was left; the last one's plan is left undone where to stay costs no more."""
    parts: list[Future]
    """What came of the plans, as far as they were carried out; or of what was not planned at all."""

    @property
    def seen(self) -> Seen:
        actions = [part.taken for part in self.parts] or [np.zeros(0, np.int64)]
        rewards = [float(reward) for part in self.parts for reward in part.rewards]
        frames = np.concatenate([self.first[None], *(part.frames for part in self.parts)])
        return Seen(frames, np.concatenate(actions), rewards)

    @property
    def imagined(self) -> Frames:
        """uint8 [T + 1, H, W, 3]: the frames that were seen, as they were expected when they were planned for."""
        expected = [planned.future for planned in self.searches] or self.parts
        pairs = zip(expected, self.parts, strict=False)
        return np.concatenate([self.first[None], *(future.frames[: len(part)] for future, part in pairs)])

    @property
    def ended(self) -> bool:
        return bool(self.parts) and self.parts[-1].ended


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Control:
    """Who plans, and what for."""

    cost: Cost
    planner: Planner
    space: ActionSpace
    every: int = 4
    """Actions that are carried out before the next plan, at most: a plan that ends before is followed to its end."""
    suggest: Suggest | None = None

    def run(
        self,
        world: SteppedWorld,
        frame: Frames,
        *,
        steps: int,
        seed: int = 0,
        dream: Dream | None = None,
        done: Callable[[], bool] = lambda: False,
    ) -> Episode:
        """Act from the ``frame`` on that a world shows, ``steps`` actions at most; ``done`` can end it after each plan.

        With a `Goal` it ends, too, where no plan comes nearer than one is. The same seed gives the same.
        """
        random = np.random.default_rng(seed)
        episode = Episode(frame, [], [])
        proposal, known, left = anything(self.space, self.planner.horizon), list[Actions](), steps
        while left and not episode.ended and not done():
            seen = episode.seen
            suggested = [*known, *(self.suggest(seen) if self.suggest else ())]
            place = world if dream is None else dream(seen)
            planned = search(place, self.cost, self.planner, random, proposal, suggested)
            episode.searches.append(planned)
            best = planned.best
            if isinstance(self.cost, Goal) and best.cost >= self.cost.stay(seen.frames[-1]):
                break
            part = carried_out(world, best.actions[: min(self.every, left)])
            episode.parts.append(part)
            left -= len(part)
            proposal = planned.proposal.later(len(part))
            known = [_later(best.plan, len(part), proposal.middle())]
        return episode


def _later(plan: Actions, steps: int, middle: Actions) -> Actions:
    """What is left of a plan, and behind it what is likeliest."""
    return np.concatenate([plan[steps:], middle[len(plan) - steps :]])
