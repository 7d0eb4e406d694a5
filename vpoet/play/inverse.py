"""Inverse dynamics: what was done between the frames of a video, as the task `inverse` reads it.

    text, frames 0..t-1  ->  [action] [action] ...

The frames are read in one pass; then each action is the most probable one given all frames and the actions before it,
a pass of one token each. Videos that are longer than a document are read in pieces, of which each begins with the frame
that the one before it ended with.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vpoet.arrays import Codes, Doubles, Floats, Ints
from vpoet.errors import PromptError, ShapeError
from vpoet.generate.asks.table import served
from vpoet.generate.heads import Heads
from vpoet.generate.in_order import Track
from vpoet.generate.model import Model
from vpoet.generate.sampling import Sampling
from vpoet.nn.steady import steady
from vpoet.sequence.actions import NONE, ActionSpace
from vpoet.sequence.arrangements import Given, Sample, frames_between

TASK = "inverse"


@dataclass(frozen=True, eq=False, slots=True)
class Inferred:
    """The actions between T frames."""

    values: Ints
    """[T - 1, A], of the vocabulary's range."""
    nats: Floats
    """[T - 1, A]: -log p of each."""
    space: ActionSpace
    alike: Sequence[Sequence[int]] = ()
    """Of each step the other actions that explain it within a bit of the one that is told, as keys do that change
    nothing against a wall: values of the range. Empty if only the most probable one is known, as by `inverse`."""

    @property
    def actions(self) -> list[int] | Doubles:
        """Indices, or vectors [T - 1, D]."""
        return self.space.actions(self.values)

    @property
    def probabilities(self) -> Doubles:
        """[T - 1]: how sure the model is of each."""
        found: Doubles = np.exp(-self.nats.sum(1).astype(np.float64))
        return found


def between(model: Model, codes: Codes, prompt: str = "") -> Inferred:
    """The same of a video's codes [T, h, w]; T is 2 or more."""
    bundle, space = model.bundle, space_of(model)
    if len(codes) < 2:
        raise ShapeError("a single frame: an action leads from one to the next")
    text = np.array(bundle.text.encode(prompt), np.int32)
    blank = np.ones((len(codes) - 1, space.arity), np.int32)
    config = bundle.config
    sample = Sample(text, codes, config.fps, actions=blank, room=config.length, window=config.window)
    most = frames_between(sample)
    if most < 2:
        raise ShapeError(
            f"two frames of {codes.shape[1]} x {codes.shape[2]} codes and a prompt of {len(text)} pieces are more than "
            f"the {config.length} tokens, and the window of {config.window or 'any number of'} frames, that this model "
            "was trained on"
        )
    values, nats = [], []
    heads = Heads(steady(bundle.transformer), Sampling())
    for start in range(0, len(codes) - 1, most - 1):
        part = Given(stretch=(start, min(start + most, len(codes))))
        track = Track(model.decoding, served(bundle, sample, TASK, part))
        found = drawn([track], heads, range(len(track.predicted)))
        values.append(found[0].reshape(-1, space.arity))
        nats.append(found[1].reshape(-1, space.arity))
    return Inferred(np.concatenate(values), np.concatenate(nats), space)


@torch.inference_mode()
def drawn(
    tracks: Sequence[Track], heads: Heads, numbers: Iterable[int], random: np.random.Generator | None = None
) -> tuple[Ints, Floats]:
    """Action tokens, by their numbers among those that a document predicts, one after the other: values of their range
    [N], and -log p of each [N]. The value that says that nothing led to a frame is none of them. ``tracks`` are the
    document and, where ``heads`` guide, its null prompt. Without ``random`` each is the most probable one."""
    vocabulary, ids, nats = tracks[0].vocabulary, list[int](), list[float]()
    for number in numbers:
        state_ND = torch.cat([track.before(number) for track in tracks])
        noise_1V = torch.from_numpy(heads.noise("actions", random, 1)).to(state_ND.device)
        noise_1V[:, NONE] = -torch.inf
        id_1, nats_1 = heads.draw("actions", state_ND, noise_1V)
        for track in tracks:
            track.sequence.ids[track.predicted[number]] = int(id_1)
        ids.append(int(id_1))
        nats.append(float(nats_1))
    return vocabulary.values(np.array(ids, np.int64), "actions"), np.array(nats, np.float32)


def space_of(model: Model) -> ActionSpace:
    """Of a model that reads actions. PromptError: it was not trained for it, or its codes tell no single frames."""
    config = model.bundle.config
    if TASK not in config.tasks or config.actions is None:
        raise PromptError(f"this model was not trained for {TASK}; it was for {', '.join(config.tasks)}")
    if model.bundle.video.stride[0] != 1:
        raise PromptError(
            f"this model's video tokenizer makes one grid of codes of {model.bundle.video.stride[0]} frames, and "
            "actions lead from each to the next: train a tokenizer with time_stride 1"
        )
    return config.actions


def told(inferred: Inferred) -> list[dict[str, Any]]:
    """A row for each action: the frame it leads from, its name (or vector), how sure the model is of it, and, if they
    are known, those that it can hardly be told from."""
    found = inferred.actions
    named = [inferred.space.names[action] if inferred.space.names else action.tolist() for action in found]  # type: ignore[union-attr]
    rows = zip(named, inferred.probabilities.tolist(), strict=True)
    steps = [{"frame": frame, "action": action, "probability": sure} for frame, (action, sure) in enumerate(rows)]
    for step, others in zip(steps, inferred.alike, strict=False):
        step["or"] = [inferred.space.names[other - NONE - 1] for other in others]
    return steps
