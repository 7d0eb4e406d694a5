"""Servers that are measured from outside."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def running(command: Sequence[Any], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with whoever measures it, also where that one is told to end (SIGTERM)."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how) as server:
            try:
                yield server
            finally:
                server.terminate()
    finally:
        signal.signal(signal.SIGTERM, before)
