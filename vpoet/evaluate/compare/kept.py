"""Numbers of clips, kept by content: what was computed once is read, and a kill loses no more than one clip's.

    CACHE/HASH.npy    float64 [K]

HASH is of what was measured, with the weights and the protocol that it was measured with, and of the clips' contents.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from vpoet.files import write_atomic
from vpoet.processes import Processes

Watched = Callable[[Sequence[int]], Iterable[int]]


class Kept:
    """A folder of them; processes of a launcher share out what is not there."""

    def __init__(self, folder: Path, everyone: Processes = Processes()) -> None:
        self._folder, self._everyone = folder, everyone

    def of(
        self,
        about: str,
        contents: Sequence[str],
        compute: Callable[[int], Sequence[float]],
        watched: Watched = iter,
    ) -> list[list[float]]:
        """The numbers of each of the contents, in order; ``compute`` gets the position of one that is not there."""
        hashes = (
            hashlib.sha256(f"{about} {content}".encode("utf-8", "surrogatepass")).hexdigest() for content in contents
        )
        files = [self._folder / f"{each[:40]}.npy" for each in hashes]

        def found(i: int) -> list[float]:
            with suppress(OSError, ValueError, TypeError, EOFError):  # nothing there, or damaged: computed again
                return [float(value) for value in np.load(files[i], allow_pickle=False)]
            values = list(compute(i))
            buffer = io.BytesIO()
            np.save(buffer, np.array(values, np.float64))
            write_atomic(files[i], buffer.getvalue())
            return values

        return self._everyone.each(found, range(len(files)), watched)
