"""Who tries to come to a goal (`vpoet.play.reaching`): chance, planners in the world itself or in a model's, and what a
model reads off videos or would do anyhow."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from vpoet.generate.model import Model
from vpoet.play.control import Control, Episode
from vpoet.play.costs import Goal, pixels
from vpoet.play.dreams import Dreams
from vpoet.play.futures import Actions, carried_out, space_of
from vpoet.play.planners import Planner
from vpoet.play.reaching import AHEAD, NEAR, Start, away
from vpoet.play.suggestions import KINDS, Policy, on_the_way, suggestions
from vpoet.worlds.recording import Sticky
from vpoet.worlds.world import SteppedWorld

Player = Callable[[Start, int], Episode]
"""From a start, at which the world is, and a seed to what was done: the same for the same."""
LIMIT = 2 * AHEAD
"""Actions that a player has."""
ROUNDS = 4


def players(world: SteppedWorld, model: Model | None, samples: Sequence[int], every: int) -> dict[str, Player]:
    """By name. PromptError: the model was not trained for play; what it was not trained for besides is left out."""
    found: dict[str, Player] = {"random keys": partial(by_chance, world)}

    def planning(planner: Planner, learned: bool, kinds: Sequence[str] = ()) -> Player:
        def play(start: Start, seed: int) -> Episode:
            dream, suggest = None, None
            if learned and model is not None:
                dream = Dreams(model, start.caption, seed=seed, horizon=planner.horizon)
                suggest = suggestions(dream, kinds, planner.horizon, start.goal) if kinds else None
            return _by_plans(world, start, seed, Control(
                cost=Goal(start.goal, pixels), planner=planner, space=space_of(world), every=every, suggest=suggest
            ), dream)  # fmt: skip

        return play

    served = [] if model is None else [kind for kind in KINDS if kind in model.bundle.config.tasks]
    for tried in samples:
        searches = {"random shooting": 1, "CEM": min(ROUNDS, tried)}
        for name, rounds in searches.items():
            planner = Planner(horizon=AHEAD, samples=tried, rounds=rounds)
            found[f"oracle, {name}, {tried}"] = planning(planner, False)
            if model is not None:
                found[f"model, {name}, {tried}"] = planning(planner, True)
        for kind in served:
            found[f"model, CEM from its {kind}, {tried}"] = planning(planner, True, [kind])
    if model is not None and "inverse" in served:
        found["model, inverse alone"] = lambda start, seed: _by_inverse(world, model, start, seed)
    if model is not None and "policy" in served:
        found["model, policy"] = lambda start, seed: by_policy(world, model, start, seed, start.caption)
    return found


def _by_plans(world: SteppedWorld, start: Start, seed: int, control: Control, dream: Dreams | None) -> Episode:
    return control.run(
        world, start.frame, steps=LIMIT, seed=seed, dream=dream, done=lambda: away(world.truth, start.place) <= NEAR
    )


def by_chance(world: SteppedWorld, start: Start, seed: int, limit: int = LIMIT) -> Episode:
    """Keys at random, held for a while, as recordings have them."""
    random = np.random.default_rng(seed)
    keys: Sticky[int] = Sticky(lambda: int(random.integers(len(world.actions))), random)
    return followed(world, start, np.array([keys() for _ in range(limit)]))


def _by_inverse(world: SteppedWorld, model: Model, start: Start, seed: int) -> Episode:
    """The way to the goal is imagined as a video, its actions are read and carried out, once."""
    return followed(world, start, on_the_way(model, start.frame, start.goal, AHEAD, prompt=start.caption, seed=seed))


def by_policy(
    world: SteppedWorld, model: Model, start: Start, seed: int, prompt: str, limit: int = LIMIT, guidance: float = 1.0
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
