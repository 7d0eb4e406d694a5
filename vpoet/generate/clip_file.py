"""The files of samples: a clip is written while it is made, and a record beside it says how it was made."""

import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from vpoet.arrays import Frames, Ints
from vpoet.errors import VpoetWarning
from vpoet.files import aside, sweep, write_atomic
from vpoet.generate.kept_codes import beside, to_record
from vpoet.media.mp4 import open_mp4
from vpoet.media.sheet import contact_sheet
from vpoet.media.video import Video

_ONLY_SOME = ("compiled", "guesses", "edit", "control")
"""What a record tells of a clip where it is so (`Model.rounding`), or was asked for."""


class Film:
    """One sample's file in the making. Use it as a context: an exception inside leaves no file.

    An .mp4 is written as its frames come, aside, and put in place by `finish`; other kinds are held until then.
    ``lossless``: an .mp4 that holds the frames bit for bit, for programs more than for players.
    """

    def __init__(self, file: Path, fps: float, *, lossless: bool = False) -> None:
        self.file = file
        self._fps = fps
        self._held: list[Frames] = []
        self._open = ExitStack()
        self._add: Callable[[Frames], None] = self._held.append
        if file.suffix.lower() == ".mp4":
            sweep(file.parent)  # of an earlier run that was killed
            fresh = self._open.enter_context(aside(file))
            self._add = self._open.enter_context(open_mp4(fresh, fps, lossless=lossless))

    def add(self, frames: Frames) -> None:
        """Frames uint8 [T, H, W, 3] that follow those before."""
        for frame in frames:
            self._add(frame)

    def finish(self, made: dict[str, Any], codes: Ints | None = None) -> None:
        """The clip, then its record, with the codes [t, h, w] that the clip is where there are such: a clip that has a
        record is whole."""
        beside(self.file).unlink(missing_ok=True)
        self._open.close()
        if self._held and self.file.suffix.lower() == ".png" and len(self._held) > 1:
            with aside(self.file) as fresh:
                contact_sheet([(made["prompt"], np.stack(self._held))]).save(fresh)
        elif self._held:
            write_atomic(self.file, Video(np.stack(self._held), self._fps).encode(self.file.suffix.lower()))
        if codes is not None:
            made = made | {"codes": to_record(self.file, codes, self._fps)}
        write_atomic(beside(self.file), json.dumps(made, indent=1) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        if error[0] is not None:
            self._open.__exit__(*error)  # type: ignore[arg-type]


def is_made(file: Path, made: dict[str, Any]) -> bool:
    """Whether the clip is there, and the record beside it says that it was made just so. VpoetWarning: the record is of
    the time before records told the decoder, so it says less than the clip depends on."""
    try:
        found = json.loads(beside(file).read_text())
    except (OSError, ValueError, RecursionError):
        return False
    if not file.is_file() or not isinstance(found, dict):
        return False
    if "model" in found and "decoder" not in found:
        warnings.warn(
            f"{file}: an older vpoet made it, and did not note by which decoder; it is made again",
            VpoetWarning,
            stacklevel=2,
        )
    # what only some records tell must be as absent as in ``made``
    return made.items() <= found.items() and all(name in made or name not in found for name in _ONLY_SOME)
