"""Captions of clips that come without any: from a .txt beside the file, from its name, or from its folder's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vpoet.data.fields import LONGEST_CAPTION

NOTHING = "a video"
"""What a clip is called of which nothing tells anything."""
_MEANINGLESS = frozenset((
    "avi", "clip", "copy", "dji", "dsc", "dscn", "gh", "gopr", "gx", "img", "jpeg", "jpg", "mkv", "mov",
    "movie", "mp4", "mpeg", "mts", "mvi", "png", "pxl", "rec", "recording", "screen", "screenrecording",
    "sequence", "shot", "signal", "test", "tmp", "untitled", "vid", "video", "videos", "webm", "whatsapp", "wp",
))  # fmt: skip
"""What cameras, phones and programs write, which says nothing about the picture."""


@dataclass(frozen=True)
class Named:
    """A caption, and what it was read from."""

    caption: str
    source: str
    """text, name, folder or nothing"""


def named(file: str, inside: str) -> Named:
    """The caption of a file that lies at ``file``, and at ``inside`` as its list or folder tells it.

    ``dog_runs-01.mp4`` is "dog runs", ``v_ApplyMakeup_g01.avi`` is "apply makeup"; of ``walking/IMG_0001.mov`` the
    folder counts.
    """
    try:
        beside = Path(file).with_suffix(".txt")
        told = " ".join(beside.read_text(encoding="utf-8").split())[:LONGEST_CAPTION] if beside.is_file() else ""
    except (OSError, ValueError):
        told = ""
    if told:
        return Named(told, "text")
    path = PurePosixPath(inside)
    if words := _words([path.stem]):
        return Named(words, "name")
    if words := _words(path.parent.parts):
        return Named(words, "folder")
    return Named(NOTHING, "nothing")


def _words(names: Sequence[str]) -> str:
    """The words of names, in small letters: what has digits in it or means nothing is left out, and so are letters
    that stand alone, if nothing but such are left."""
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", " ".join(names))
    words = [word.lower() for word in re.split(r"[\W_]+", split) if word.isalpha()]
    words = [word for word in words if word not in _MEANINGLESS]
    while words and len(words[0]) == 1 and words[0] != "a":
        words.pop(0)
    return " ".join(words) if any(len(word) > 2 for word in words) else ""
