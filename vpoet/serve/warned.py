"""What warnings say of a request is for who asked, and not for the server's log."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from vpoet.errors import VpoetWarning

_NOTES: ContextVar[list[str] | None] = ContextVar("notes", default=None)
"""Where warnings of what runs now are noted: each thread, and each task of a loop, has its own."""


@contextlib.contextmanager
def routed() -> Iterator[None]:
    """Within it, warnings of ours go to who notes them (`noted`), each time they are given; elsewhere as before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=VpoetWarning)
        warnings.showwarning = functools.partial(_route, warnings.showwarning)
        yield


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """What is warned of within it, in this thread and in those that it waits for, as it comes."""
    notes = list[str]()
    before = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(before)


def _route(show: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    notes = _NOTES.get()
    if notes is None or not issubclass(category, VpoetWarning):
        show(message, category, *place)
    else:
        notes.append(str(message))
