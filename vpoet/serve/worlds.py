"""The learned world and, beside it, the real one that it was learned from, under the same keys.

Where there is a real one, both begin with its first frame. After that each goes its own way: nothing corrects the
learned one.
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from vpoet import worlds
from vpoet.arrays import Frames
from vpoet.errors import DataError, PromptError
from vpoet.generate.ahead import Ahead
from vpoet.generate.environment import Session
from vpoet.worlds.world import SteppedWorld

REAL, MODEL, BOTH = "real", "model", "both"
VIEWS = (REAL, MODEL, BOTH)
AUTO, NONE = "auto", "none"
GAP = 2
"""Pixels between two pictures side by side, white."""


@dataclass(frozen=True, eq=False, slots=True)
class Shown:
    """What is to be seen after a step."""

    number: int
    """Steps since the beginning."""
    pictures: tuple[Frames, ...]
    """uint8 [H, W, 3] of each of `Worlds.shows`."""
    rewards: tuple[float, ...]
    ended: tuple[bool, ...]
    nats: float
    """-log p of the learned world's frame: how much it surprised the model itself."""


class Worlds:
    """One game: what is done in it is done in each of its worlds."""

    def __init__(self, session: Session, source: str = "", real: SteppedWorld | None = None) -> None:
        """``source`` is the name of the ``real`` one. DataError: the two are told other things to do; PromptError:
        actions are vectors."""
        self.actions = session.actions
        if not self.actions:
            raise PromptError("this model is told vectors, and a key is none: play it from Python (`Model.play`)")
        if real is not None and tuple(real.actions) != self.actions:
            raise DataError(
                f"the model is told {', '.join(self.actions)}, and the real world {', '.join(real.actions)}: it was "
                "learned from another"
            )
        self._ahead, self._real, self.source = Ahead(session), real, source
        self.shows = (MODEL,) if real is None else (REAL, MODEL)
        """The worlds, in the order of the pictures."""
        self.idle = next((i for i, name in enumerate(self.actions) if name in ("noop", "none", "stay")), 0)
        """What is done where no key is down."""
        self.number = 0
        self.told = ""
        """The prompt that the learned world was told last."""

    @property
    def session(self) -> Session:
        return self._ahead.session

    @property
    def over(self) -> bool:
        """Whether no world goes on."""
        return all(self._last.ended)

    def begin(self, seed: int, prompt: str) -> Shown:
        """The first frame; where the real world has words for what it shows (``caption``), the model is told these, and
        the prompt where it has none. The errors are those of both worlds' `reset`; then all is as it was."""
        if self._real is None:
            pictures: tuple[Frames, ...] = (self.session.reset(seed, prompt),)
        else:
            first = self._real.reset(seed, prompt)
            prompt = str(getattr(self._real, "caption", prompt))
            pictures = first, self.session.begin(seed, prompt, first[None])
        self._ahead.forget()
        self.number, self.told = 0, prompt
        still = len(pictures)
        self._last = Shown(0, pictures, (0.0,) * still, (False,) * still, float(self.session.nats.sum()))
        return self._last

    def step(self, action: int) -> Shown:
        """The next frame of each world that goes on; VpoetError where the learned one cannot."""
        self.number += 1
        steps = (self._ahead.step,) if self._real is None else (self._real.step, self._ahead.step)
        each = [
            (picture, 0.0, True) if ended else step(action)
            for step, picture, ended in zip(steps, self._last.pictures, self._last.ended, strict=True)
        ]
        pictures, rewards, ended = zip(*each, strict=True)
        self._last = Shown(self.number, pictures, rewards, ended, float(self.session.nats.sum()))
        return self._last

    def ahead(self, action: int) -> None:
        """Make the learned world's next frame, should this be the action (`vpoet.generate.ahead`)."""
        if not self._last.ended[-1]:
            self._ahead.make(action)

    def prompt(self, text: str) -> None:
        """Tell the learned world another prompt; the real one stays as it is. The errors are those of
        `Session.prompt`."""
        self._ahead.forget()
        self.session.prompt(text)
        self.told = text


def side_worlds(name: str, session: Session) -> Worlds:
    """A session and beside it ``world:NAME`` or ``env:NAME``, of its size and rate; "auto": the world of vpoet whose
    actions it has, if there is one; "none". DataError: one cannot act in it, or not at this size and rate."""
    height, width = session.size
    if name == NONE:
        return Worlds(session)
    if name != AUTO:
        if not name.startswith((worlds.WORLD, worlds.ENV)):
            raise DataError(f"--world {name}: world:NAME, env:NAME, {AUTO} or {NONE}")
        return Worlds(session, name, worlds.stepped(name, height, width, session.fps))
    for source in (worlds.WORLD + each for each in worlds.names()):
        with contextlib.suppress(DataError):
            return Worlds(session, source, worlds.stepped(source, height, width, session.fps))
    return Worlds(session)


def side_by_side(shown: Shown, shows: tuple[str, ...], view: str, scale: int) -> Frames:
    """The pictures of a view, enlarged by whole pixels. DataError: there is no such picture."""
    if view != BOTH and view not in shows:
        raise DataError(f"there is no {view} world here to show: name one (--world)")
    chosen = [picture for name, picture in zip(shows, shown.pictures, strict=True) if view in (BOTH, name)]
    enlarged = [picture.repeat(scale, 0).repeat(scale, 1) for picture in chosen]
    gap = np.full((enlarged[0].shape[0], GAP * scale, 3), 255, np.uint8)
    whole = [part for picture in enlarged for part in (gap, picture)][1:]
    return np.concatenate(whole, 1)
