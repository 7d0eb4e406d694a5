"""Who tries to come to a goal (`vpoet.play.reaching`): chance, planners in the world itself or in a model's, and what a
model reads off videos or would do anyhow."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from vpoet.generate.model import Model
from vpoet.play.control import Control, Episode
from vpoet.play.costs import Goal, pixels
from vpoet.play.dreams import Dreams
from vpoet.play.futures import Actions, carried_out, space_of
from vpoet.play.planners import Planner
from vpoet.play.reaching import Near, Start, away
from vpoet.play.suggestions import KINDS, Policy, on_the_way, suggestions
from vpoet.worlds.recording import Sticky
from vpoet.worlds.world import SteppedWorld

Player = Callable[[Start, int], Episode]
"""From a start, at which the world is, and a seed to what was done: the same for the same."""
ROUNDS = 4


def players(
    world: SteppedWorld, model: Model | None, samples: Sequence[int], every: int, near: Near, ahead: int
) -> dict[str, Player]:
    """By name, for goals that are ``ahead`` steps away: each has twice as many. What the model was not trained for is
    left out. PromptError: it was not trained for play."""
    limit = 2 * ahead
    found: dict[str, Player] = {"random keys": partial(by_chance, world, limit=limit)}

    def planning(planner: Planner, learned: bool, kinds: Sequence[str] = ()) -> Player:
        def play(start: Start, seed: int) -> Episode:
            dream, suggest = None, None
            if learned and model is not None:
                dream = Dreams(model, start.caption, seed=seed, horizon=planner.horizon)
                suggest = suggestions(dream, kinds, planner.horizon, start.goal) if kinds else None
            return Control(
                cost=Goal(start.goal, pixels), planner=planner, space=space_of(world), every=every, suggest=suggest
            ).run(
                world, start.frame, steps=limit, seed=seed, dream=dream,
                done=lambda: away(world.truth, start.truth, near) <= 1,
            )  # fmt: skip

        return play

    served = [] if model is None else [kind for kind in KINDS if kind in model.bundle.config.tasks]
    for tried in samples:
        searches = {"random shooting": 1, "CEM": min(ROUNDS, tried)}
        for name, rounds in searches.items():
            planner = Planner(horizon=ahead, samples=tried, rounds=rounds)
            found[f"oracle, {name}, {tried}"] = planning(planner, False)
            if model is not None:
                found[f"model, {name}, {tried}"] = planning(planner, True)
        for kind in served:
            found[f"model, CEM from its {kind}, {tried}"] = planning(planner, True, [kind])
    if model is not None and "inverse" in served:
        found["model, inverse alone"] = lambda start, seed: _by_inverse(world, model, start, seed, ahead)
    if model is not None and "policy" in served:
        found["model, policy"] = lambda start, seed: by_policy(world, model, start, seed, start.caption, limit)
    return found


def by_chance(world: SteppedWorld, start: Start, seed: int, limit: int) -> Episode:
    """Actions at random, held for a while, as recordings have them."""
    random, space = np.random.default_rng(seed), space_of(world)

    def drawn() -> Any:
        return int(random.integers(len(space.names))) if space.names else random.uniform(space.low, space.high)

    actions: Sticky[Any] = Sticky(drawn, random)
    return followed(world, start, np.array([actions() for _ in range(limit)]))


def _by_inverse(world: SteppedWorld, model: Model, start: Start, seed: int, ahead: int) -> Episode:
    """The way to the goal is imagined as a video, its actions are read and carried out, once."""
    return followed(world, start, on_the_way(model, start.frame, start.goal, ahead, prompt=start.caption, seed=seed))


def by_policy(
    world: SteppedWorld, model: Model, start: Start, seed: int, prompt: str, limit: int, guidance: float = 1.0
) -> Episode:
    """What a model that is told ``prompt`` would do."""
    policy, random = Policy(model, prompt, guidance), np.random.default_rng(seed)
    episode = Episode(start.frame, [], [])
    while len(episode.parts) < limit and not episode.ended:
        episode.parts.append(carried_out(world, policy.draw(episode.seen, random)[None]))
    return episode


def followed(world: SteppedWorld, start: Start, actions: Actions) -> Episode:
    """These actions, up to the end if they lead there."""
    return Episode(start.frame, [], [carried_out(world, actions)])
