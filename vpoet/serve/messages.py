"""What the page of play and its server say to each other over one websocket.

The page sends JSON, an object each, at most `LONGEST` bytes:

    {"do": "press", "key": 2, "at": 17}     a key went down: an action by its index; ``at`` comes back in the first
    {"do": "release", "key": 2}             frame that heeds it
    {"do": "restart", "seed": 3, "prompt": "a robot on grass"}
    {"do": "prompt", "text": "a robot on snow"}
    {"do": "pace", "fps": 20}               frames a second
    {"do": "pause", "on": true}
    {"do": "record", "on": true, "view": "both"}

The server sends JSON, an object with ``say``, and frames and films in binary, least significant byte first:

    byte 0  1 byte each      pictures, height and width (2 bytes each), number, at (4 bytes each), nats (float32),
    1       frame            of each picture: reward as its sign (signed byte), ended (byte); then the pictures, RGB
    2       film             the .mp4
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vpoet.data.fields import parse_json
from vpoet.errors import DataError
from vpoet.serve.worlds import VIEWS, Shown

LONGEST = 4096
FRAME, FILM = 1, 2
_HEAD = struct.Struct("<BBHHIIf")
_EACH = struct.Struct("<bB")
SLOWEST, FASTEST = 0.5, 240.0
"""Frames a second."""
_SEEDS = 2**32
_WORDS = 1000
"""Characters of a prompt."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A message of the page, checked."""

    do: str
    told: dict[str, Any]


def _within(low: float, high: float, kind: type = int) -> Callable[[Any], bool]:
    kinds = (int,) if kind is int else (int, float)
    return lambda x: isinstance(x, kinds) and not isinstance(x, bool) and math.isfinite(x) and low <= x <= high


def _is_text(x: Any) -> bool:
    return isinstance(x, str) and len(x) <= _WORDS


def _is_switch(x: Any) -> bool:
    return isinstance(x, bool)


_ASKS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "press": {"key": _within(0, 10**6), "at": _within(0, _SEEDS - 1)},
    "release": {"key": _within(0, 10**6)},
    "restart": {"seed": _within(0, _SEEDS - 1), "prompt": _is_text},
    "prompt": {"text": _is_text},
    "pace": {"fps": _within(SLOWEST, FASTEST, float)},
    "pause": {"on": _is_switch},
    "record": {"on": _is_switch, "view": lambda x: x in VIEWS},
}
"""What the page may ask, and what each value of it is."""


def heard(message: str) -> Ask:
    """A message of the page. DataError: it is none."""
    told = parse_json(message)
    fields = _ASKS.get(str(told.get("do"))) if isinstance(told, dict) else None
    if fields is None:
        raise DataError(f"a message does one of {', '.join(_ASKS)}")
    wrong = [name for name, allows in fields.items() if name not in told or not allows(told[name])]
    if wrong:
        raise DataError(f"{told['do']}: no such {wrong[0]}")
    return Ask(told["do"], {name: told[name] for name in fields})


def frame(shown: Shown, at: int) -> bytes:
    """A frame as it is sent."""
    height, width = shown.pictures[0].shape[:2]
    head = _HEAD.pack(FRAME, len(shown.pictures), height, width, shown.number % 2**32, at, shown.nats)
    each = [_EACH.pack(int(np.sign(r)), e) for r, e in zip(shown.rewards, shown.ended, strict=True)]
    return b"".join([head, *each, *(np.ascontiguousarray(picture).tobytes() for picture in shown.pictures)])


def film(mp4: bytes) -> bytes:
    return bytes([FILM]) + mp4
