"""Planners: a search for the actions whose future costs least, in a world that is real or learned.

Random shooting draws plans and takes the best one. The cross-entropy method draws round by round, each from what the
best of the rounds before have in common; as improved by Pinneri et al. (2020, iCEM, arXiv:2008.06389) its noise is
coloured, rounds become smaller, the best stay in the race, and the last round has the middle of all. What is searched
for vectors by means and spreads is searched for actions with names by their odds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vpoet.errors import ConfigError
from vpoet.play.costs import Cost
from vpoet.play.futures import Actions, Future, Place, futures
from vpoet.play.proposals import Proposal


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """How a plan is searched for."""

    horizon: int = 16
    """Actions of a plan."""
    samples: int = 256
    """Plans that are tried in all."""
    rounds: int = 4
    """1 is random shooting."""
    elites: int = 8
    """The best so many are what the next round is drawn from."""
    kept: float = 0.1
    """Share of what a round was drawn from that stays for the next."""
    decay: float = 1.25
    """A round has so many times fewer plans than the one before it."""
    colour: float = 2.0
    """Of the noise: 0 is white, more goes on for longer."""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= self.samples:
            raise ConfigError(f"rounds = {self.rounds}: it is 1 to samples, which are {self.samples}")
        if self.horizon < 1:
            raise ConfigError(f"horizon = {self.horizon}: a plan has 1 action or more")
        if self.elites < 1 or not 0 <= self.kept < 1 or self.decay < 1 or self.colour < 0:
            raise ConfigError(
                f"elites = {self.elites} (1 or more), kept = {self.kept} (0 to 1), decay = {self.decay} (1 or more) "
                f"or colour = {self.colour} (0 or more) is out of its range"
            )

    @property
    def sizes(self) -> list[int]:
        """Plans of each round; they sum up to `samples`."""
        weights = self.decay ** -np.arange(self.rounds)
        ends = np.rint(self.samples * weights.cumsum() / weights.sum()).astype(int)
        sizes: list[int] = np.diff(ends, prepend=0).tolist()
        return sizes


@dataclass(frozen=True, eq=False, slots=True)
class Candidate:
    """A plan that was tried."""

    round: int
    cost: float
    """At its best step."""
    steps: int
    """Actions up to there, 1 or more."""
    plan: Actions
    """[K] or [K, D]."""

    @property
    def actions(self) -> Actions:
        """Those that lead to its best step."""
        return self.plan[: self.steps]


@dataclass(frozen=True, eq=False, slots=True)
class Planned:
    """What came of a search."""

    candidates: list[Candidate]
    """All, the best first; of equal ones the shorter, and then the one that was tried first."""
    future: Future
    """Of the best one."""
    proposal: Proposal
    """What the best were drawn from at last."""

    @property
    def best(self) -> Candidate:
        return self.candidates[0]


def search(
    place: Place,
    cost: Cost,
    planner: Planner,
    random: np.random.Generator,
    proposal: Proposal,
    suggested: Sequence[Actions] = (),
) -> Planned:
    """The plan of least cost from where a world is, which stays there.

    ``proposal`` is what the first round is drawn from, beside whole plans that are ``suggested``.
    """
    tried: list[Candidate] = []
    best: tuple[float, int, Future] | None = None
    for number, size in enumerate(planner.sizes):
        given = list(suggested) if number == 0 else [proposal.middle()] * (number == planner.rounds - 1)
        fresh = max(size - len(given), 0)
        plans = [*given, *proposal.draw(random, fresh, planner.colour)]
        for future in futures(place, np.stack(plans)) if plans else ():
            costs = cost(future)
            steps = int(costs.argmin()) + 1
            tried.append(Candidate(number, float(costs[steps - 1]), steps, future.plan))
            if best is None or (tried[-1].cost, steps) < best[:2]:
                best = tried[-1].cost, steps, future
        tried.sort(key=lambda each: (each.cost, each.steps))
        proposal = proposal.fitted(np.stack([each.plan for each in tried[: planner.elites]]), planner.kept)
    assert best is not None
    return Planned(tried, best[2], proposal)
