"""Frames made ahead: while a frame is looked at, the next one is made for the key that is held.

    shown     | frame 4        | frame 5        | frame 6
    made      | 5, on a fork   | 6, on a fork   | 7, on a fork
    held        right            right            jump: 6 is made anew, late

A frame is a function of the seed, its number and all that went before (`vpoet.generate.environment`), so that one made
on a fork is the very frame that the session would have made: it is taken where the key is the one it was made for, and
thrown away where it is not. So does NFD (arXiv:2506.01380) with frames of which this need not hold.
"""

from collections.abc import Sequence

from vpoet.arrays import Frames
from vpoet.generate.environment import Session

Action = int | Sequence[float]


class Ahead:
    """A session, and what it may become in one step."""

    def __init__(self, session: Session) -> None:
        self.session = session
        """As it is now: another object after each step."""
        self._made: dict[object, tuple[Session, tuple[Frames, float, bool]]] = {}

    def make(self, action: Action) -> None:
        """The next frame, should this be the action; the errors are those of `Session.step`."""
        if _key(action) not in self._made:
            fork = self.session.fork()
            self._made[_key(action)] = fork, fork.step(action)

    def step(self, action: Action) -> tuple[Frames, float, bool]:
        """As `Session.step`: at once where the frame was made ahead."""
        if _key(action) not in self._made:
            self.forget()
            return self.session.step(action)
        self.session, shown = self._made[_key(action)]
        self.forget()
        return shown

    def forget(self) -> None:
        """What was made ahead: before the session is told another prompt, or begins again."""
        self._made.clear()


def _key(action: Action) -> object:
    return tuple(action) if isinstance(action, Sequence) else action
