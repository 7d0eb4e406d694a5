"""Files that are brought here before they are asked for."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Errands:
    """Brings what was asked for by `add`, one after the other, by a thread of its own.

    That it fails is told to nobody: whoever needs the file brings it then, and hears why it doesn't come. Pickled, it
    is empty.
    """

    def __init__(self) -> None:
        self._asked: dict[str, Callable[[], object]] = {}
        self._now = ""
        """What is being brought."""
        self._works = False
        self._changed = threading.Condition()

    def __reduce__(self) -> tuple[Any, ...]:
        return Errands, ()

    def add(self, name: str, bring: Callable[[], object]) -> None:
        with self._changed:
            if name != self._now:
                self._asked.setdefault(name, bring)
            if self._asked and not self._works:
                self._works = True
                # a daemon, as a program that ends needs nothing any more
                threading.Thread(target=self._work, name="errands", daemon=True).start()

    def take(self, name: str) -> None:
        """Return when the file is not under way (any more): it is there, or to be brought by whoever needs it now."""
        with self._changed:
            self._asked.pop(name, None)
            self._changed.wait_for(lambda: self._now != name)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._asked:
                    self._works = False
                    return
                self._now, bring = next(iter(self._asked.items()))
                del self._asked[self._now]
            with suppress(Exception):
                bring()
            with self._changed:
                self._now = ""
                self._changed.notify_all()
