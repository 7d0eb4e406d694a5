"""Plans that a model itself suggests, for a search to begin from.

policy     what its training data would do next, in its own imagination, several times
inverse    a video is imagined on the way from the frame to the goal's picture, and its actions are read off
           (UniPi: Du et al., 2023, arXiv:2302.00111); where the model makes no such videos, the action that would
           lead from the one picture to the other in a step, held
"""

from collections.abc import Sequence

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.errors import PromptError
from vpoet.generate.asks.table import served
from vpoet.generate.environment import Session
from vpoet.generate.heads import Heads
from vpoet.generate.in_order import Track
from vpoet.generate.model import Model
from vpoet.generate.sampling import Sampling
from vpoet.generate.threads import few_threads
from vpoet.media.video import Video
from vpoet.nn.steady import steady
from vpoet.play.control import Seen, Suggest
from vpoet.play.dreams import Dreams
from vpoet.play.futures import Actions
from vpoet.play.inverse import drawn
from vpoet.play.reading import infer
from vpoet.play.reading import space as read_space
from vpoet.sequence.actions import outcome_values
from vpoet.sequence.arrangements import Given, Sample

KINDS = ("policy", "inverse")
POLICIES = 8
"""Plans by the policy, each time."""


class Policy:
    """A model's task `policy`: what is done next, given all that was seen and done."""

    def __init__(self, model: Model, prompt: str = "", guidance: float = 1.0) -> None:
        """``guidance`` above 1 keeps closer to the prompt (classifier-free: Ho and Salimans, arXiv:2207.12598), away
        from what is done where nothing is said. PromptError: the model was not trained for it."""
        if "policy" not in model.bundle.config.tasks or model.bundle.config.actions is None:
            trained = ", ".join(model.bundle.config.tasks)
            raise PromptError(f"this model was not trained for policy (what to do next); it was for {trained}")
        self._model, self._space = model, model.bundle.config.actions
        self._text = np.array(model.bundle.text.encode(prompt), np.int32)
        self._guided = guidance != 1
        self._heads = Heads(steady(model.bundle.transformer), Sampling(guidance=guidance))

    def draw(self, seen: Seen, random: np.random.Generator) -> Actions:
        """An action: an index, or a vector [D]. Of a longer past than the model's document holds, the end counts."""
        codes = self._model.bundle.video.encode(seen.frames)
        return self.action(codes, seen, random)

    def action(self, codes: Ints, seen: Seen, random: np.random.Generator) -> Actions:
        """The same of the codes [T + 1, h, w] of the frames; those of ``seen`` itself are not looked at."""
        bundle, arity = self._model.bundle, self._space.arity
        text, decoding = self._text, self._model.decoding
        frame = arity + 1 + codes[0].size
        most = max((bundle.config.length - len(text) - 32) // frame - 1, 1)
        codes, first = codes[-most:], max(len(codes) - most, 0)
        actions = self._space.values(seen.actions[first:].tolist())
        outcomes = outcome_values(seen.rewards[first:], [False] * len(actions))
        sample = Sample(
            text, np.concatenate([codes, np.zeros_like(codes[:1])]), bundle.config.fps,
            actions=np.concatenate([actions, np.ones((1, arity), np.int32)]),
            outcomes=np.concatenate([outcomes, outcome_values([0.0], [False])]),
        )  # fmt: skip
        told = served(bundle, sample, "policy", Given())
        tracks = [Track(decoding, each) for each in ([told, told.unprompted()] if self._guided else [told])]
        first_predicted = len(tracks[0].predicted) - frame
        with few_threads(bundle.transformer):
            values, _ = drawn(tracks, self._heads, range(first_predicted, first_predicted + arity), random)
        action: Actions = np.asarray(self._space.actions(values[None]))[0]
        return action

    def plan(self, world: Session, seen: Seen, horizon: int, random: np.random.Generator) -> Actions:
        """[K] or [K, D]: what is done in the model's own imagination, from a world at the last frame of what was seen;
        where that ends, it goes on with the last action."""
        codes = self._model.bundle.video.encode(seen.frames)
        done: list[Actions] = []
        for _ in range(horizon):
            done.append(self.action(codes, seen, random))
            _, reward, end = world.step(done[-1].tolist())
            if end:
                break
            codes = np.concatenate([codes, world.codes[None]])
            actions = np.concatenate([seen.actions, done[-1][None]]) if len(seen.actions) else done[-1][None]
            seen = Seen(seen.frames, actions, [*seen.rewards, reward])
        return np.stack(done + done[-1:] * (horizon - len(done)))


def on_the_way(model: Model, frame: Frames, goal: Frames, horizon: int, *, prompt: str = "", seed: int = 0) -> Actions:
    """[K] or [K, D]: the actions of a video that is imagined from a frame to a goal."""
    space, config = read_space(model), model.bundle.config
    if "interpolation" in config.tasks:
        ends = {"image": Video(frame[None], 0.0), "last": Video(goal[None], 0.0)}
        clip = model.sample(prompt, frames=horizon + 1, seed=seed, **ends)
    else:
        clip = Video(np.stack([frame, goal]), float(config.fps))
    found = np.asarray(space.actions(infer(model, model.bundle.video.encode(clip.frames), prompt).values))
    return np.concatenate([found, np.repeat(found[-1:], horizon - len(found), axis=0)])


def suggestions(dreams: Dreams, kinds: Sequence[str], horizon: int, goal: Frames | None = None) -> Suggest:
    """Of `KINDS`, with the model, prompt and seed of its dreams. PromptError: the model was not trained for one, or the
    inverse is asked for without a goal's picture."""
    model, prompt, seed = dreams.model, dreams.prompt, dreams.seed
    policy = Policy(model, prompt) if "policy" in kinds else None
    if "inverse" in kinds:
        read_space(model)
        if goal is None:
            raise PromptError("the inverse task reads the way to a picture: give one (--goal)")

    def suggest(seen: Seen) -> list[Actions]:
        plans = []
        if goal is not None and "inverse" in kinds:
            plans.append(on_the_way(model, seen.frames[-1], goal, horizon, prompt=prompt, seed=seed))
        if policy is not None:
            world, last = dreams(seen), seen.last(dreams.most)
            for number in range(POLICIES):
                random = np.random.default_rng([seed, len(seen.actions), number])
                plans.append(policy.plan(world.fork(), last, horizon, random))
        return plans

    return suggest
