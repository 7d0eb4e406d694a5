"""What was done between the frames of a video, as a model that plays explains it: by Bayes' rule, the actions under
which it finds the next frame the most probable.

    p(action | frames up to t + 1)  ~  sum over outcomes of p(outcome, frame t + 1 | frames up to t, action)

before which all actions that have a name are as probable. All of them go in side by side, a pass a frame. What comes of
a step is drawn before its frame (`vpoet.generate.play_decoder`): each outcome that is not improbable counts.

A model that was trained for play needs nothing else to read actions. A document of `vpoet.play.inverse` teaches one
token a frame, one of play teaches all that the action changes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from vpoet.arrays import Codes, Doubles, Ints
from vpoet.errors import ShapeError
from vpoet.generate.model import Model
from vpoet.generate.play_decoder import PlayDecoder, Scene
from vpoet.generate.threads import few_threads
from vpoet.play.inverse import Inferred
from vpoet.sequence.actions import NONE, START, outcome_values

IMPROBABLE = 0.02
"""An outcome that is less probable than this after an action is not what came of it."""

ALIKE = math.log(2)
"""Nats: an action that explains a frame worse than another by less can hardly be told from it."""


@dataclass(frozen=True, eq=False, slots=True)
class _Way:
    """To a frame."""

    action: int
    outcome: int
    """Values of their ranges."""
    nats: float
    """-log p of outcome and frame."""
    decoder: PlayDecoder
    at: int
    """The document in which it was gone."""


def explains(model: Model) -> bool:
    """Whether a model can: it plays, frame by frame, by actions with names."""
    config = model.bundle.config
    named = config.actions is not None and bool(config.actions.names)
    return named and "play" in config.tasks and model.bundle.video.stride[0] == 1


@torch.inference_mode()
def likeliest(model: Model, codes: Codes, prompt: str = "") -> Inferred:
    """The actions between the frames of a video's codes [T, h, w] of a model that `explains`; T is 2 or more.

    ShapeError: a single frame, or a prompt and two frames are more than a model without a window was trained on.
    """
    if len(codes) < 2:
        raise ShapeError("a single frame: an action leads from one to the next")
    bundle = model.bundle
    space = bundle.config.actions
    assert space is not None
    assert explains(model)
    scene = Scene(fps=bundle.config.fps, grid=codes.shape[1:], actions=space.arity)
    text = np.array(bundle.text.encode(prompt), np.int32)
    decoding, flat = replace(model.decoding, build_play=None, guesses=0), codes.reshape(len(codes), -1)

    def begun(first: Ints) -> PlayDecoder:
        decoder = PlayDecoder(decoding, scene, [text], length=bundle.config.length)
        decoder.give(_rows(first, [(NONE, START)]))
        return decoder

    found, outcome = list[tuple[int, float, list[int]]](), int(outcome_values([0.0], [False])[0])
    with few_threads(bundle.transformer):
        decoder = begun(flat[0])
        for before, after in pairwise(flat):
            try:
                decoder, told, outcome = _explained(model, decoder, after, outcome)
            except ShapeError:  # the document is full
                decoder, told, outcome = _explained(model, begun(before), after, outcome)
            found.append(told)
    values, nats, alike = zip(*found, strict=True)
    return Inferred(np.array(values, np.int32)[:, None], np.array(nats, np.float32)[:, None], space, alike)


def _explained(
    model: Model, decoder: PlayDecoder, frame: Ints, outcome: int
) -> tuple[PlayDecoder, tuple[int, float, list[int]], int]:
    """What leads best to a frame's codes [C]: the decoder behind it, the action with its -log p and those that are
    `ALIKE`, and what came of it. ``outcome`` is what is tried first."""
    space = model.bundle.config.actions
    assert space is not None
    actions = list(range(NONE + 1, NONE + 1 + len(space.names)))
    ways, p_BV = _weighed(model, decoder, frame, [(action, outcome) for action in actions])
    likely = [
        (action, other)
        for action, p_V in zip(actions, p_BV, strict=True)
        for other in np.flatnonzero(p_V > IMPROBABLE).tolist()
        if other not in (outcome, START)
    ]
    if likely:
        ways += _weighed(model, decoder, frame, likely)[0]
    logs = [np.logaddexp.reduce([-way.nats for way in ways if way.action == action]) for action in actions]
    best = actions[int(np.argmax(logs))]
    way = min((way for way in ways if way.action == best), key=lambda way: way.nats)
    nats = max(float(np.logaddexp.reduce(logs)) - float(max(logs)), 0.0)
    alike = [action for action, log in zip(actions, logs, strict=True) if action != best and log > max(logs) - ALIKE]
    return way.decoder.fork([way.at]), (best, nats, alike), way.outcome


def _weighed(
    model: Model, decoder: PlayDecoder, frame: Ints, steps: Sequence[tuple[int, int]]
) -> tuple[list[_Way], Doubles]:
    """Each of B steps, an action and its outcome, to a frame's codes [C] from the same past; and after each action p of
    every outcome, [B, V]."""
    transformer = model.bundle.transformer
    beside = decoder.fork([0] * len(steps))
    h_BRD = beside.give(_rows(frame, steps))
    table = transformer.appended["outcomes"]
    assert isinstance(table, nn.Embedding)
    log_p_BV = torch.log_softmax((h_BRD[:, 0] @ table.weight.T).float(), 1)
    ids = torch.from_numpy(np.tile(frame, len(steps)).astype(np.int64)) + transformer.ranges["codes"][0]
    codes_BC = transformer.visual_nats(h_BRD[:, 1:-1].flatten(0, 1), ids.to(h_BRD.device)).view(len(steps), -1)
    came = torch.tensor([[outcome] for _, outcome in steps], device=h_BRD.device)
    nats = (codes_BC.sum(1) - log_p_BV.gather(1, came)[:, 0]).tolist()
    ways = [_Way(*step, weight, beside, at) for at, (step, weight) in enumerate(zip(steps, nats, strict=True))]
    return ways, log_p_BV.exp().double().cpu().numpy()


def _rows(frame: Ints, steps: Sequence[tuple[int, int]]) -> Ints:
    """[B, 2 + C]."""
    return np.concatenate([np.array(steps, np.int32), np.tile(frame, (len(steps), 1))], 1)
